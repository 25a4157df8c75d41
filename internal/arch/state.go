package arch

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
)

// checkState checks the libraries, that is all but cmd, bench and tools, for state that belongs to nobody: func init, and
// package variables in files that are not tests. Of these it lets pass what Go offers no constant for:
//
//   - var _ I = x, the proof that a type implements an interface
//   - sentinel errors: Err… or err…, made by errors.New or fmt.Errorf
//   - what //go:embed fills
//   - unexported arrays (not slices, not maps) given by a literal
//   - unexported results of the calls in fixed, such as regexp.MustCompile
//
// provided that nothing in the package assigns to them or takes their address.
func checkState(t *tree) (found []Violation) {
	for _, p := range t.packages {
		if l := placeOf(p.dir).level; l == command || l == apart {
			continue
		}
		var kept []string
		for _, f := range p.all() {
			for _, decl := range f.ast.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						found = append(found, Violation{
							f.path, t.line(d.Pos()), "state",
							"no func init: do it in a constructor, where the caller sees it and can get an error",
						})
					}
				case *ast.GenDecl:
					if d.Tok == token.VAR && !f.test {
						found = append(found, t.variables(f, d, &kept)...)
					}
				}
			}
		}
		found = append(found, t.writes(p, kept)...)
	}
	return found
}

// variables returns the variables of one declaration that are not allowed, and adds the names of the others to kept.
func (t *tree) variables(f *file, d *ast.GenDecl, kept *[]string) (found []Violation) {
	for _, spec := range d.Specs {
		spec, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for i, name := range spec.Names {
			var value ast.Expr
			if len(spec.Values) == len(spec.Names) {
				value = spec.Values[i]
			}
			switch {
			case name.Name == "_":
			case embedded(d, spec), sentinel(name, value), !name.IsExported() && constant(value):
				*kept = append(*kept, name.Name)
			default:
				found = append(found, Violation{
					f.path, t.line(name.Pos()), "state",
					"package variable " + name.Name + ": make it a constant, a field, a function or, if nothing changes it, an unexported array",
				})
			}
		}
	}
	return found
}

// writes returns the places in p that assign to one of the named package variables or take its address. It goes by the
// name alone: a local variable of the same name is hard on the reader, too.
func (t *tree) writes(p *pkg, names []string) (found []Violation) {
	for _, f := range p.all() {
		check := func(e ast.Expr) {
			if name := base(e); name != nil && slices.Contains(names, name.Name) {
				found = append(found, Violation{
					f.path, t.line(name.Pos()), "state",
					"package variable " + name.Name + " is written here, or its address taken: pass it as a value or a field",
				})
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					check(left)
				}
			case *ast.IncDecStmt:
				check(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					check(n.X)
				}
			}
			return true
		})
	}
	return found
}

// base returns x of x, x[i], x.f and (x), nil if there is no such name.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// embedded tells whether //go:embed fills the variable.
func embedded(d *ast.GenDecl, spec *ast.ValueSpec) bool {
	directive := regexp.MustCompile(`^//go:embed\s`)
	for _, doc := range []*ast.CommentGroup{d.Doc, spec.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return directive.MatchString(c.Text) }) {
			return true
		}
	}
	return false
}

// sentinel tells whether a variable is an error made once, named as one.
func sentinel(name *ast.Ident, value ast.Expr) bool {
	call, ok := value.(*ast.CallExpr)
	return ok && regexp.MustCompile(`^[Ee]rr[A-Z0-9]`).MatchString(name.Name) &&
		slices.Contains([]string{"errors.New", "fmt.Errorf"}, callee(call))
}

// constant tells whether an expression is an array literal or a call whose result nobody can change.
func constant(value ast.Expr) bool {
	fixed := []string{
		"regexp.MustCompile", "strings.NewReplacer", "template.Must", "netip.MustParseAddr", "netip.MustParsePrefix",
		"base32.NewEncoding", "base64.NewEncoding",
	}
	switch v := value.(type) {
	case *ast.CompositeLit:
		array, ok := v.Type.(*ast.ArrayType)
		return ok && array.Len != nil
	case *ast.CallExpr:
		return slices.Contains(fixed, callee(v))
	}
	return false
}

// callee returns the called function as package.name, "" for anything else.
func callee(call *ast.CallExpr) string {
	fn, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	from, ok := fn.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return from.Name + "." + fn.Sel.Name
}
