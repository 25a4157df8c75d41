package arch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// clean is a small repository that keeps every rule. Each test changes a little of it.
func clean() map[string]string {
	doc := " is for the tests of the rules: a package comment that is long enough to say what the package is for," +
		" when one should not use it, and who may import it.\n"
	example := "import \"fmt\"\n\nfunc Example() {\n\tfmt.Println(1)\n\t// Output: 1\n}\n"
	return map[string]string{
		"go.mod":                          "module github.com/semelhq/semel\n\ngo 1.26.0\n",
		"adapter/go.mod":                  "module github.com/semelhq/semel/adapter\n\nrequire github.com/semelhq/semel v0.0.0\n",
		"doc.go":                          "// Package semel" + doc + "package semel\n",
		"example_test.go":                 "package semel_test\n\n" + example,
		"store/memory/store.go":           "// Package memory" + doc + "package memory\n",
		"store/memory/example_test.go":    "package memory_test\n\n" + example,
		"store/storetest/suite.go":        "// Package storetest" + doc + "package storetest\n\nimport _ \"testing\"\n",
		"store/storetest/example_test.go": "package storetest_test\n\nfunc Example() {}\n",
		"cmd/semel/main.go":               "// Semel" + doc + "package main\n\nfunc main() {}\n",
	}
}

// lines repeats a line of code.
func lines(n int, line string) string {
	return strings.Repeat(line+"\n", n)
}

// A ruleCase changes the clean repository and says which violations follow, as "path:line: rule", none meaning allowed.
type ruleCase struct {
	name string
	add  map[string]string
	want []string
}

func run(t *testing.T, cases []ruleCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sources := clean()
			maps.Copy(sources, c.add)
			fsys := fstest.MapFS{}
			for name, source := range sources {
				if source != "" { // "" takes a file away
					fsys[name] = &fstest.MapFile{Data: []byte(source)}
				}
			}
			found, err := Check(fsys)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range found {
				at := fmt.Sprintf("%s:%d: %s", v.Path, v.Line, v.Rule)
				got = append(got, at)
				if len(v.Text) < 20 || !strings.HasPrefix(v.String(), v.Path) {
					t.Errorf("violation %q does not say what to do", v)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("violations of %q:\n got  %q\n want %q\n in full: %v", c.add, got, c.want, found)
			}
		})
	}
}

func TestClean(t *testing.T) {
	run(t, []ruleCase{{name: "nothing changed"}})
}

func TestImports(t *testing.T) {
	imports := func(pkg string, paths ...string) string {
		source := "package " + pkg + "\n\n"
		for _, p := range paths {
			source += "import _ \"" + p + "\"\n"
		}
		return source
	}
	const ours = modulePath + "/"
	refused := func(name, file, target string) ruleCase {
		pkg := "p"
		if strings.HasSuffix(file, "_test.go") {
			pkg = "p_test"
		}
		want := []string{file + ":3: imports"}
		return ruleCase{name: name, add: map[string]string{file: imports(pkg, target)}, want: want}
	}
	cases := []ruleCase{
		refused("root imports a third party", "key.go", "golang.org/x/sync"),
		refused("root's test imports a third party", "key_test.go", "github.com/google/go-cmp/cmp"),
		refused("root imports cgo", "key.go", "C"),
		refused("root imports internal", "key.go", ours+"internal/arch"),
		refused("root imports level 1", "key.go", ours+"store/memory"),
		refused("root's test imports level 2", "key_test.go", ours+"sim"),
		refused("level 1 imports its neighbour", "store/memory/more.go", ours+"store/storetest"),
		refused("level 1 imports level 2", "store/memory/more.go", ours+"gateway"),
		refused("level 1 imports an adapter", "store/memory/more.go", ours+"adapter/sqlite"),
		refused("level 1's test imports level 2", "store/memory/more_test.go", ours+"sim"),
		refused("an import of cmd", "store/memory/more.go", ours+"cmd/semel"),
		refused("an import of bench", "cmd/semel/more.go", ours+"bench"),
		refused("an import of tools", "cmd/semel/more.go", ours+"tools/x"),
		refused("an import of nowhere", "cmd/semel/more.go", ours+"elsewhere"),
		{
			name: "allowed",
			add: map[string]string{
				"key.go":                    imports("semel", "crypto/sha256"),
				"key_test.go":               imports("semel_test", modulePath, ours+"store/memory", ours+"internal/x"),
				"store/memory/more.go":      imports("memory", modulePath, ours+"internal/x"),
				"store/memory/more_test.go": imports("memory_test", ours+"store/storetest"),
				"cmd/semel/more.go":         imports("main", ours+"gateway", ours+"adapter/sqlite", ours+"cmd/semel/x", "github.com/spf13/cobra"),
			},
		},
	}
	run(t, cases)
}

// TestPlaces checks the whole matrix of who may import whom, which is too long to write as source files.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test     bool
		want     bool
	}{
		{from: "internal/x", to: ".", want: true},
		{from: "internal/x", to: "internal/y", want: true},
		{from: "internal/x", to: "store/memory", want: false},
		{from: "region", to: "store/remote", want: true},
		{from: "region", to: "store/memory", want: false},
		{from: "message", to: "store/remote", want: false},
		{from: "semelhttp/problem", to: "semelhttp", want: true},
		{from: "gateway", to: "semelhttp", want: true},
		{from: "gateway", to: "internal/x", want: true},
		{from: "gateway", to: "console", want: false},
		{from: "sim", to: "conformance", want: false},
		{from: "sim", to: "conformance", test: true, want: true},
		{from: "sim", to: "adapter/sqlite", want: false},
		{from: "adapter/sqlite", to: ".", want: true},
		{from: "adapter/sqlite", to: "store/batch", want: true},
		{from: "adapter/sqlite", to: "adapter/internal/x", want: true},
		{from: "adapter/sqlite", to: "adapter/mysql", want: false},
		{from: "adapter/sqlite", to: "adapter/mysql", test: true, want: true},
		{from: "adapter/sqlite", to: "internal/x", want: false},
		{from: "adapter/sqlite", to: "internal/x", test: true, want: true},
		{from: "store/memory", to: "internal/x", test: true, want: true},
		{from: "gateway", to: "internal/x", test: true, want: true},
		{from: "sim", to: "adapter/sqlite", test: true, want: false},
		{from: "adapter/sqlite", to: "gateway", want: false},
		{from: "adapter/sqlite", to: "cmd/semel", test: true, want: false},
		{from: "cmd/semel", to: "sim", want: true},
		{from: "cmd/semel", to: "internal/x", want: true},
		{from: "cmd/e2e", to: "cmd/semel/x", want: true},
		{from: "cmd/e2e", to: "bench", test: true, want: false},
		{from: "bench", to: "adapter/sqlite", want: true},
		{from: "bench", to: "cmd/semel", want: false},
		{from: "bench", to: "tools", want: false},
		{from: "store", to: ".", want: false},
		{from: "elsewhere", to: ".", want: false},
	} {
		if got := placeOf(c.from).allows(placeOf(c.to), c.test); got != c.want {
			t.Errorf("%s imports %s (in a test: %t): allowed %t, want %t", c.from, c.to, c.test, got, c.want)
		}
	}
}

func TestModules(t *testing.T) {
	run(t, []ruleCase{
		{
			name: "root requires something",
			add:  map[string]string{"go.mod": "module github.com/semelhq/semel\n\nrequire golang.org/x/sync v0.20.0\n"},
			want: []string{"go.mod:3: module"},
		},
		{
			name: "root requires a block",
			add:  map[string]string{"go.mod": "module github.com/semelhq/semel\n\nrequire (\n\tgolang.org/x/sync v0.20.0\n)\n"},
			want: []string{"go.mod:3: module"},
		},
		{name: "wrong path", add: map[string]string{"adapter/go.mod": "module example.com/x\n"}, want: []string{"adapter/go.mod:1: module"}},
		{
			name: "a sixth module",
			add:  map[string]string{"sim/go.mod": "module github.com/semelhq/semel/sim\n"},
			want: []string{"sim/go.mod:0: module"},
		},
		{
			name: "a directory outside the layout",
			add:  map[string]string{"extras/x.go": "// Package extras" + strings.Repeat(" word", 30) + "\npackage extras\n"},
			want: []string{"extras:0: example", "extras/x.go:0: imports"},
		},
		{name: "not Go", add: map[string]string{"key.go": "package semel\nfunc {\n"}, want: []string{"key.go:0: syntax"}},
		{name: "testdata may be anything", add: map[string]string{"sim/testdata/x.go": "func {", "node_modules/x/x.go": "func {"}},
	})
}
