package arch

import (
	"strings"
	"testing"
)

func TestState(t *testing.T) {
	in := func(body string) map[string]string {
		return map[string]string{"store/memory/more.go": "package memory\n\n" + body + "\n"}
	}
	refused := []string{"store/memory/more.go:3: state"}
	written := []string{"store/memory/more.go:5: state"}
	run(t, []ruleCase{
		{name: "func init", add: in("func init() {}"), want: refused},
		{name: "func init in a test", add: map[string]string{"key_test.go": "package semel\n\nfunc init() {}\n"}, want: []string{"key_test.go:3: state"}},
		{name: "a method called init", add: in("func (s Store) init() {}")},
		{name: "a number", add: in("var limit = 5"), want: refused},
		{name: "no value", add: in("var limit int"), want: refused},
		{name: "a map", add: in("var names = map[int]string{1: \"a\"}"), want: refused},
		{name: "a slice", add: in("var names = []string{\"a\"}"), want: refused},
		{name: "a hook", add: in("var now = time.Now"), want: refused},
		{name: "a pool", add: in("var pool = sync.Pool{}"), want: refused},
		{name: "an exported array", add: in("var Names = [...]string{\"a\"}"), want: refused},
		{name: "an exported pattern", add: in("var Pattern = regexp.MustCompile(`a`)"), want: refused},
		{name: "an error under another name", add: in("var Missing = errors.New(\"x\")"), want: refused},
		{name: "an error of another kind", add: in("var ErrMissing = missing{}"), want: refused},
		{name: "in the root", add: map[string]string{"key.go": "package semel\n\nvar limit = 5\n"}, want: []string{"key.go:3: state"}},
		{name: "in an adapter", add: map[string]string{"adapter/internal/x/x.go": "// Package x" + strings.Repeat(" x", 30) + "\npackage x\n\nvar y = 5\n"}, want: []string{"adapter/internal/x/x.go:4: state"}},
		{name: "in a group", add: in("var (\n\tErrA = errors.New(\"a\")\n\tlimit = 5\n)"), want: written},
		{name: "an array that is written", add: in("var names = [...]string{\"a\"}\n\nfunc f() { names[0] = \"b\" }"), want: written},
		{name: "an error that is written", add: in("var ErrA = errors.New(\"a\")\n\nfunc f() { ErrA = nil }"), want: written},
		{name: "an array whose address is taken", add: in("var counts = [...]int{1}\n\nfunc f() *int { return &counts[0] }"), want: written},
		{name: "an array that is counted up", add: in("var counts = [...]int{1}\n\nfunc f() { counts[0]++ }"), want: written},
		{
			name: "an error that another file writes",
			add: map[string]string{
				"store/memory/more.go":      "package memory\n\nvar ErrA = errors.New(\"a\")\n",
				"store/memory/more_test.go": "package memory\n\nfunc f() { (ErrA) = nil }\n",
			},
			want: []string{"store/memory/more_test.go:3: state"},
		},
		{
			name: "allowed",
			add: in("var _ fmt.Stringer = x{}\nvar ErrA = errors.New(\"a\")\nvar errB = fmt.Errorf(\"b: %w\", ErrA)\n" +
				"var names = [...]string{\"a\"}\nvar pattern = regexp.MustCompile(`a`)\n\n//go:embed schema.sql\nvar schema string\n"),
		},
		{name: "in a test", add: map[string]string{"key_test.go": "package semel\n\nvar update = flag.Bool(\"update\", false, \"\")\n"}},
		{name: "in cmd", add: map[string]string{"cmd/semel/more.go": "package main\n\nvar bold = style()\n"}},
	})
}

func TestPackageDoc(t *testing.T) {
	long := strings.Repeat(" word", 30) + "\n"
	run(t, []ruleCase{
		{name: "none", add: map[string]string{"store/memory/store.go": "package memory\n"}, want: []string{"store/memory:0: doc"}},
		{name: "short", add: map[string]string{"store/memory/store.go": "// Package memory is a store.\npackage memory\n"}, want: []string{"store/memory/store.go:2: doc"}},
		{name: "of another package", add: map[string]string{"store/memory/store.go": "// Package mem" + long + "package memory\n"}, want: []string{"store/memory/store.go:2: doc"}},
		{name: "two", add: map[string]string{"store/memory/z.go": "// Package memory" + long + "package memory\n"}, want: []string{"store/memory/z.go:2: doc"}},
		{name: "of a command", add: map[string]string{"cmd/semel/main.go": "package main\n"}, want: []string{"cmd/semel:0: doc"}},
		{name: "of a test package", add: map[string]string{"cmd/e2e/e2e_test.go": "package e2e\n"}, want: []string{"cmd/e2e:0: doc"}},
		{name: "in the wrong file", add: map[string]string{"store/memory/store.go": "package memory\n", "store/memory/a_test.go": "// Package memory" + long + "package memory\n"}, want: []string{"store/memory:0: doc"}},
	})
}

func TestExamples(t *testing.T) {
	run(t, []ruleCase{
		{name: "none", add: map[string]string{"store/memory/example_test.go": ""}, want: []string{"store/memory:0: example"}},
		{name: "none in the root", add: map[string]string{"example_test.go": ""}, want: []string{".:0: example"}},
		{name: "not run", add: map[string]string{"store/memory/example_test.go": "package memory_test\n\nfunc Example() {}\n"}, want: []string{"store/memory:0: example"}},
		{name: "none for a suite", add: map[string]string{"store/storetest/example_test.go": ""}, want: []string{"store/storetest:0: example"}},
		{name: "internal needs none", add: map[string]string{"internal/x/x.go": "// Package x" + strings.Repeat(" x", 30) + "\npackage x\n"}},
	})
}

func TestNames(t *testing.T) {
	source := func(name string) string {
		return "// Package " + name + strings.Repeat(" x", 30) + "\npackage " + name + "\n"
	}
	run(t, []ruleCase{
		{name: "util", add: map[string]string{"internal/util/x.go": source("util")}, want: []string{"internal/util:0: name"}},
		{name: "helpers", add: map[string]string{"internal/helpers/x.go": source("helpers")}, want: []string{"internal/helpers:0: name"}},
		{name: "the package only", add: map[string]string{"internal/x/x.go": source("types")}, want: []string{"internal/x:0: name"}},
		{name: "a parent", add: map[string]string{"internal/common/x/x.go": source("x")}, want: []string{"internal/common/x:0: name"}},
		{name: "allowed", add: map[string]string{"internal/typed/x.go": source("typed")}},
	})
}

func TestMachineWords(t *testing.T) {
	slash := "/" // apart, so that this file does not match itself
	run(t, []ruleCase{
		{name: "a directory", add: map[string]string{"README.md": "# Semel\n\nSee " + slash + "work/x.\n"}, want: []string{"README.md:3: machine"}},
		{name: "a home", add: map[string]string{"Makefile": "x:\n\tcd " + slash + "root/go\n"}, want: []string{"Makefile:2: machine"}},
		{name: "a tool", add: map[string]string{"key.go": "package semel\n\n// see farm" + "-x\n"}, want: []string{"key.go:3: machine"}},
		{name: "in testdata, twice", add: map[string]string{"sim/testdata/a.txt": slash + "work/\n" + slash + "work/\n"}, want: []string{"sim/testdata/a.txt:1: machine", "sim/testdata/a.txt:2: machine"}},
		{name: "data", add: map[string]string{"docs/a.png": "\x00" + slash + "work/"}},
		{name: "allowed", add: map[string]string{"README.md": "works; rework/ed; a workplace; farms; root/x\n"}},
	})
}
