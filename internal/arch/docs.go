package arch

import (
	"fmt"
	"go/ast"
	"go/doc"
	"regexp"
	"slices"
	"strings"
)

// minDocWords is what a package comment needs at least to say what the package is for and when not to use it.
const minDocWords = 25

// checkPackageDoc checks that each package has a package comment, in exactly one place, of some substance. Where there are
// files that are not tests, it stands in one of them.
func checkPackageDoc(t *tree) (found []Violation) {
	for _, p := range t.packages {
		files := p.production
		if len(files) == 0 {
			files = p.tests
		}
		var comments []string
		var at *file
		for _, f := range files {
			if f.ast.Doc == nil || f.ast.Doc.Text() == "" {
				continue
			}
			if at != nil {
				found = append(found, Violation{
					f.path, t.line(f.ast.Package), "doc",
					"a second package comment, after " + at.path + ": keep one (or an empty line between the comment and `package`)",
				})
				continue
			}
			at = f
			comments = append(comments, f.ast.Doc.Text())
		}
		if at == nil {
			found = append(found, Violation{
				p.dir, 0, "doc",
				"package " + p.name + " has no package comment: say what it is for, when not to use it, and who may import it",
			})
			continue
		}
		if words := len(strings.Fields(comments[0])); words < minDocWords {
			found = append(found, Violation{
				at.path, t.line(at.ast.Package), "doc",
				fmt.Sprintf("the package comment has %d words, at least %d: say what it is for, when not to use it, and who may import it",
					words, minDocWords),
			})
		}
		if want := "Package " + p.name + " "; p.name != "main" && len(p.production) > 0 && !strings.HasPrefix(comments[0], want) {
			found = append(found, Violation{at.path, t.line(at.ast.Package), "doc", "the package comment begins with " + want})
		}
	}
	return found
}

// checkExamples checks that each package that users import has an Example that `go test` runs: one with an Output comment.
// A package that imports testing is called by tests only; there, an Example that compiles will do.
func checkExamples(t *tree) (found []Violation) {
	for _, p := range t.packages {
		if !public(p) {
			continue
		}
		imported := func(f *ast.File, name string) bool {
			return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"`+name+`"` })
		}
		suite := slices.ContainsFunc(p.production, func(f *file) bool { return imported(f.ast, "testing") })
		var examples []*doc.Example
		for _, f := range p.tests {
			examples = append(examples, doc.Examples(f.ast)...)
		}
		runs := slices.ContainsFunc(examples, func(e *doc.Example) bool { return e.Output != "" || e.EmptyOutput })
		switch {
		case len(examples) == 0:
			found = append(found, Violation{p.dir, 0, "example", "package " + p.name + " has no Example: add example_test.go"})
		case !runs && !suite:
			found = append(found, Violation{p.dir, 0, "example", "no Example of package " + p.name + " has an // Output: comment, so none is run"})
		}
	}
	return found
}

// public tells whether users of Semel can import a package.
func public(p *pkg) bool {
	l := placeOf(p.dir).level
	return l != command && l != apart && p.name != "main" && len(p.production) > 0 &&
		!slices.Contains(strings.Split(p.dir, "/"), "internal")
}

// checkNames checks the names of directories and packages: a name that says nothing gathers everything.
func checkNames(t *tree) (found []Violation) {
	empty := regexp.MustCompile(`^(util|common|type|model|manager|helper|impl)s?$`)
	for _, p := range t.packages {
		for _, name := range append(strings.Split(p.dir, "/"), p.name) {
			if empty.MatchString(name) {
				found = append(found, Violation{p.dir, 0, "name", "\"" + name + "\" says nothing: name the package for what it is about"})
				break
			}
		}
	}
	return found
}
