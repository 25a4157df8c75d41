package openapi

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// yamlEdits finds the operations of a file in YAML by the lines of their members.
func yamlEdits(file []byte, wanted func(method, path string) any) ([]edit, error) {
	tree, err := parser.ParseBytes(file, 0)
	if err != nil {
		return nil, fmt.Errorf("this is not YAML: %w", err)
	}
	f := &lined{file: string(file), starts: []int{0}}
	for i, c := range f.file {
		if c == '\n' {
			f.starts = append(f.starts, i+1)
		}
	}
	var edits []edit
	for _, top := range members(tree.Docs[0].Body) {
		if name(top) != "paths" {
			continue
		}
		for _, path := range members(top.Value) {
			for _, operation := range members(path.Value) {
				if !isMethod(name(operation)) {
					continue
				}
				policy := wanted(name(operation), name(path))
				if policy == nil {
					continue
				}
				e, err := f.edit(operation, policy)
				if err != nil {
					return nil, fmt.Errorf("line %d, %s %s: %w", operation.Key.GetToken().Position.Line, strings.ToUpper(name(operation)), name(path), err)
				}
				edits = append(edits, e)
			}
		}
	}
	return edits, nil
}

func members(node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	case *ast.AnchorNode:
		return members(n.Value)
	}
	return nil
}

func name(m *ast.MappingValueNode) string { return m.Key.GetToken().Value }

// lined is a file with the offsets at which its lines begin.
type lined struct {
	file   string
	starts []int
}

// edit puts the extension into an operation, or in place of the one there.
func (f *lined) edit(operation *ast.MappingValueNode, policy any) (edit, error) {
	inside := members(operation.Value)
	if m, ok := operation.Value.(*ast.MappingNode); ok && m.IsFlowStyle || len(inside) == 0 {
		return edit{}, fmt.Errorf("it is not written as lines below its method, so %s cannot be put there; write it as lines", Name)
	}
	if inside[0].Key.GetToken().Position.Line == operation.Key.GetToken().Position.Line {
		return edit{}, fmt.Errorf("it begins in the line of its method, so %s cannot be put there; write it as lines", Name)
	}
	at := inside[0].Key.GetToken().Position
	replace := false
	for _, m := range inside {
		if name(m) == Name {
			at, replace = m.Key.GetToken().Position, true
		}
	}
	begin := f.starts[at.Line-1]
	end := begin
	if replace {
		end = f.until(at.Line, at.Column-1)
	}
	block, err := Block(policy)
	if err != nil {
		return edit{}, err
	}
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(block, "\n"), "\n") {
		b.WriteString(strings.Repeat(" ", at.Column-1) + line + "\n")
	}
	return edit{begin, end, b.String()}, nil
}

// until gives where the member ends that begins in a line, indented by so much: at
// the next line that is not indented more, and that says something.
func (f *lined) until(line, indented int) int {
	last := line
	for n := line; n < len(f.starts); n++ {
		text := f.file[f.starts[n]:]
		if i := strings.IndexByte(text, '\n'); i >= 0 {
			text = text[:i]
		}
		rest := strings.TrimLeft(text, " ")
		if strings.TrimSpace(rest) == "" {
			continue
		}
		if len(text)-len(rest) <= indented {
			break
		}
		last = n + 1
	}
	if last == len(f.starts) {
		return len(f.file)
	}
	return f.starts[last]
}
