package arch

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
)

// A Violation is one place that breaks one rule.
type Violation struct {
	Path string // relative to the root of the repository, with slashes
	Line int    // from 1; 0 where the whole file or directory is meant
	Rule string // one word: imports, module, size, name, state, doc, example, machine, syntax
	Text string // what is wrong and what to do about it
}

// String formats v as file:line: rule: text.
func (v Violation) String() string {
	if v.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", v.Path, v.Rule, v.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", v.Path, v.Line, v.Rule, v.Text)
}

// Check reads the whole repository in fsys, every module of it, and returns what breaks a rule, ordered by path and line.
// The error is for files that cannot be read; a Go file that does not parse is a Violation.
func Check(fsys fs.FS) ([]Violation, error) {
	t, err := load(fsys)
	if err != nil {
		return nil, err
	}
	found := t.broken
	for _, rule := range []func(*tree) []Violation{
		checkModules, checkImports, checkFileSize, checkFunctionSize, checkPackageSize,
		checkNames, checkState, checkPackageDoc, checkExamples, checkMachineWords,
	} {
		found = append(found, rule(t)...)
	}
	slices.SortStableFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return found, nil
}
