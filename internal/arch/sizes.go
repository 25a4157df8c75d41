package arch

import (
	"fmt"
	"go/ast"
	"go/token"
)

// The limits. A file or function above its limit is two subjects under one name: split it by subject.
const (
	maxProductionLines = 400
	maxTestLines       = 600
	maxFunctionLines   = 60
	maxPackageFiles    = 15 // without tests
	maxCaseLines       = 10 // of a switch that still counts as flat
)

// checkFileSize checks the length of each Go file.
func checkFileSize(t *tree) (found []Violation) {
	for _, f := range t.files {
		limit := maxProductionLines
		if f.test {
			limit = maxTestLines
		}
		if f.lines > limit {
			found = append(found, Violation{
				f.path, limit + 1, "size",
				fmt.Sprintf("%d lines, at most %d: split it into files of one subject each", f.lines, limit),
			})
		}
	}
	return found
}

// checkPackageSize checks how many files a package has.
func checkPackageSize(t *tree) (found []Violation) {
	for _, p := range t.packages {
		if n := len(p.production); n > maxPackageFiles {
			found = append(found, Violation{
				p.dir, 0, "size",
				fmt.Sprintf("%d files that are not tests, at most %d: make a package of what stands for itself", n, maxPackageFiles),
			})
		}
	}
	return found
}

// checkFunctionSize checks the length of each function, function literals included in the one around them.
func checkFunctionSize(t *tree) (found []Violation) {
	for _, f := range t.files {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := t.functionLines(fn); n > maxFunctionLines {
				found = append(found, Violation{
					f.path, t.line(fn.Pos()), "size",
					fmt.Sprintf("func %s has %d lines, at most %d (tables and one flat switch aside): take a step of it out, under a name",
						fn.Name.Name, n, maxFunctionLines),
				})
			}
		}
	}
	return found
}

// functionLines counts a function's lines, signature and braces included. Aside, counted as their first line only:
// each composite literal, but not the function literals in it; and the function's switch, if its body has exactly one at
// its top level and that one is flat.
func (t *tree) functionLines(fn *ast.FuncDecl) int {
	aside := map[int]bool{}
	t.tablesAside(fn.Body, aside)

	var only ast.Stmt
	switches := 0
	for _, stmt := range fn.Body.List {
		switch stmt.(type) {
		case *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			only = stmt
			switches++
		}
	}
	if switches == 1 && t.flat(only) {
		t.mark(aside, only.Pos(), only.End(), true)
	}

	lines := t.line(fn.Body.Rbrace) - t.line(fn.Type.Pos()) + 1
	return lines - len(aside)
}

// tablesAside marks the lines of n's composite literals.
func (t *tree) tablesAside(n ast.Node, aside map[int]bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		t.mark(aside, table.Pos(), table.End(), true)
		ast.Inspect(table, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncLit)
			if !ok {
				return true
			}
			// Code is not data because it stands in a table.
			t.mark(aside, fn.Pos(), fn.End(), false)
			t.tablesAside(fn.Body, aside)
			return false
		})
		return false
	})
}

// mark puts the lines of a span into the set or takes them out. The first line never goes in.
func (t *tree) mark(set map[int]bool, from, to token.Pos, in bool) {
	first := t.line(from)
	if in {
		first++
	}
	for line := first; line <= t.line(to); line++ {
		if in {
			set[line] = true
		} else {
			delete(set, line)
		}
	}
}

// flat tells whether a switch only maps cases to answers: short cases, no loop, no further switch, no function literal.
func (t *tree) flat(s ast.Stmt) bool {
	is := true
	ast.Inspect(s, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.ForStmt, *ast.RangeStmt, *ast.FuncLit:
			is = false
		case *ast.CaseClause, *ast.CommClause:
			is = is && t.line(n.End())-t.line(n.Pos()) < maxCaseLines
		case *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			is = is && n == ast.Node(s)
		}
		return is
	})
	return is
}
