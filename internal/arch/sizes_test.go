package arch

import (
	"fmt"
	"strings"
	"testing"
)

func TestFileSize(t *testing.T) {
	production := "package semel\n" + lines(maxProductionLines-1, "// x")
	test := "package semel\n" + lines(maxTestLines-1, "// x")
	run(t, []ruleCase{
		{name: "production, at the limit", add: map[string]string{"key.go": production}},
		{name: "production", add: map[string]string{"key.go": production + "//\n"}, want: []string{"key.go:401: size"}},
		{name: "test, at the limit", add: map[string]string{"key_test.go": test}},
		{name: "test", add: map[string]string{"key_test.go": test + "//\n"}, want: []string{"key_test.go:601: size"}},
	})
}

func TestPackageSize(t *testing.T) {
	files := func(n int) map[string]string {
		add := map[string]string{}
		for i := range n {
			add[fmt.Sprintf("store/memory/f%d.go", i)] = "package memory\n"
			add[fmt.Sprintf("store/memory/f%d_test.go", i)] = "package memory\n"
		}
		return add
	}
	run(t, []ruleCase{
		{name: "at the limit", add: files(maxPackageFiles - 1)}, // store.go is there already
		{name: "over it", add: files(maxPackageFiles), want: []string{"store/memory:0: size"}},
	})
}

func TestFunctionSize(t *testing.T) {
	const inside = maxFunctionLines - 2 // without signature and closing brace
	function := func(body string) map[string]string {
		return map[string]string{"key.go": "package semel\n\nfunc f() {\n" + body + "}\n"}
	}
	table := func(n int) string { return "\t_ = []int{\n" + lines(n, "\t\t1,") + "\t}\n" }
	cases := func(n int, body string) string { return strings.Repeat("\tcase 1:\n"+body, n) }
	tooLong := []string{"key.go:3: size"}
	run(t, []ruleCase{
		{name: "at the limit", add: function(lines(inside, "\t_ = 1"))},
		{name: "over it", add: function(lines(inside+1, "\t_ = 1")), want: tooLong},
		{
			name: "a method",
			add:  map[string]string{"key.go": "package semel\n\nfunc (k Key) f() {\n" + lines(inside+1, "\t_ = 1") + "}\n"},
			want: tooLong,
		},
		{name: "a test", add: map[string]string{"key_test.go": "package semel\n\nfunc f() {\n" + lines(inside+1, "\t_ = 1") + "}\n"}, want: []string{"key_test.go:3: size"}},
		{name: "a table is aside", add: function(table(100) + lines(inside-1, "\t_ = 1"))},
		{name: "the code around a table is not", add: function(table(100) + lines(inside, "\t_ = 1")), want: tooLong},
		{
			name: "nor is code within a table",
			add:  function("\t_ = []func(){\n\t\tfunc() {\n" + lines(inside, "\t\t\t_ = 1") + "\t\t},\n\t}\n"),
			want: tooLong,
		},
		{name: "a flat switch is aside", add: function("\tswitch x {\n" + cases(100, "\t\t_ = 1\n") + "\t}\n" + lines(inside-1, "\t_ = 1"))},
		{name: "the code around it is not", add: function("\tswitch x {\n" + cases(100, "\t\t_ = 1\n") + "\t}\n" + lines(inside, "\t_ = 1")), want: tooLong},
		{name: "a flat type switch is aside", add: function("\tswitch x.(type) {\n" + strings.Repeat("\tcase int:\n", 100) + "\t}\n")},
		{name: "two switches are not", add: function(strings.Repeat("\tswitch x {\n"+cases(20, "\t\t_ = 1\n")+"\t}\n", 2)), want: tooLong},
		{name: "a switch with a loop is not", add: function("\tswitch x {\n" + cases(100, "\t\tfor {\n\t\t}\n") + "\t}\n"), want: tooLong},
		{name: "a switch in a switch is not", add: function("\tswitch x {\n" + cases(100, "\t\tswitch y {\n\t\t}\n") + "\t}\n"), want: tooLong},
		{name: "a switch with functions is not", add: function("\tswitch x {\n" + cases(100, "\t\tfunc() {}()\n") + "\t}\n"), want: tooLong},
		{name: "a switch with long cases is not", add: function("\tswitch x {\n" + cases(10, lines(maxCaseLines, "\t\t_ = 1")) + "\t}\n"), want: tooLong},
		{name: "a switch in a loop is not", add: function("\tfor {\n\t\tswitch x {\n" + cases(40, "\t\t\t_ = 1\n") + "\t\t}\n\t}\n"), want: tooLong},
	})
}
