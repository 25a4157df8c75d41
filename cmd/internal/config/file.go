package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/printer"
	"github.com/goccy/go-yaml/token"
)

// file is a YAML file under examination. Its problems are collected, so that all
// of them can be told at once.
type file struct {
	path     string
	top      *ast.MappingNode // nil for an empty file
	problems []problem
}

// problem is one mistake and its place.
type problem struct {
	at   *token.Token // nil if it has no place
	text string
}

// maxFile is the largest file in bytes that is read.
const maxFile = 1 << 20

// open reads and parses a file. What is wrong with its syntax is in the
// problems; the error is for a file that cannot be read.
func open(path string) (*file, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	f := &file{path: path}
	tree, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	var located yaml.Error
	switch {
	case errors.As(err, &located):
		f.refuse(located.GetToken(), "this is not YAML: %s", located.GetMessage())
		return f, nil
	case err != nil:
		f.refuse(nil, "this is not YAML: %v", err)
		return f, nil
	case len(tree.Docs) > 1 && tree.Docs[1].Body != nil:
		f.refuse(tree.Docs[1].Body.GetToken(), "one document is wanted, and this begins a second")
	}
	if len(tree.Docs) > 0 && tree.Docs[0].Body != nil {
		f.top = f.mapping(tree.Docs[0].Body, "settings, such as `upstream: http://127.0.0.1:3000`")
	}
	return f, nil
}

// readFile reads a file of text, and of one that has no end not more than that.
// What is not text is refused here: messages show lines of it, on terminals.
func readFile(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	control := func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\r", r) || r == 0x7f }
	if !utf8.Valid(data) || bytes.IndexFunc(data, control) >= 0 {
		return nil, fmt.Errorf("%s is not text: it has bytes that are no UTF-8, or control characters", path)
	}
	return data, nil
}

func (f *file) refuse(at *token.Token, format string, args ...any) {
	f.problems = append(f.problems, problem{at, fmt.Sprintf(format, args...)})
}

// Error gives every problem: file, line and column, what is wrong, and the lines
// around it with a mark below the place.
func (f *file) Error() string {
	slices.SortStableFunc(f.problems, func(a, b problem) int { return cmp.Compare(line(a.at), line(b.at)) })
	var b strings.Builder
	for i, p := range f.problems {
		if i > 0 {
			b.WriteString("\n")
		}
		if p.at == nil || p.at.Position == nil {
			fmt.Fprintf(&b, "%s: %s\n", f.path, p.text)
			continue
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s\n", f.path, p.at.Position.Line, p.at.Position.Column, p.text)
		var lines printer.Printer
		for excerpt := range strings.SplitSeq(strings.Trim(lines.PrintErrorToken(p.at, false), "\n"), "\n") {
			b.WriteString(strings.TrimRight(excerpt, " ") + "\n")
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func line(t *token.Token) int {
	if t == nil || t.Position == nil {
		return 0
	}
	return t.Position.Line
}

// mapping gives node as a mapping, or nil with a problem.
func (f *file) mapping(node ast.Node, want string) *ast.MappingNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n
	case *ast.MappingValueNode:
		return ast.Mapping(n.Start, false, n)
	case *ast.CommentGroupNode:
		return nil
	}
	f.refuse(node.GetToken(), "here belong %s", want)
	return nil
}

// entry is one name and its value in a mapping.
type entry struct {
	name  string
	at    *token.Token
	value ast.Node
}

// entries gives the entries of a mapping, without those that come twice.
func (f *file) entries(m *ast.MappingNode) []entry {
	if m == nil {
		return nil
	}
	var out []entry
	seen := make(map[string]int)
	for _, v := range m.Values {
		at := v.Key.GetToken()
		name := at.Value
		if _, plain := v.Key.(ast.ScalarNode); !plain || v.Key.IsMergeKey() {
			f.refuse(at, "a name of a setting belongs here; settings at the top level hold for every route, so anchors are not needed")
			continue
		}
		if first, twice := seen[name]; twice {
			f.refuse(at, "%q was set in line %d already", name, first)
			continue
		}
		seen[name] = line(at)
		out = append(out, entry{name, at, v.Value})
	}
	return out
}

// scalar gives the text of a single value.
func (f *file) scalar(e entry) (string, *token.Token, bool) {
	switch n := e.value.(type) {
	case *ast.NullNode:
		f.refuse(e.at, "%q has no value", e.name)
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		at := n.GetToken()
		return at.Value, at, true
	default:
		f.refuse(place(e), "%q takes a single value", e.name)
	}
	return "", nil, false
}

func place(e entry) *token.Token {
	if t := e.value.GetToken(); t != nil {
		return t
	}
	return e.at
}

// apply sets one field of s or r to what the file says.
func (f *file) apply(field Field, s *Settings, r *Route, e entry) {
	items := []entry{e}
	if sequence, ok := e.value.(*ast.SequenceNode); ok && field.List {
		items = items[:0]
		for _, v := range sequence.Values {
			items = append(items, entry{e.name, v.GetToken(), v})
		}
	}
	var texts []string
	for _, item := range items {
		text, at, ok := f.scalar(item)
		if !ok {
			continue
		}
		if err := field.set(s, r, text); err != nil { // each by itself, so that the mark is below the wrong one
			f.refuse(at, "%s: %v", e.name, err)
			continue
		}
		texts = append(texts, text)
	}
	if len(texts) != 1 && field.List {
		if err := field.set(s, r, strings.Join(texts, ",")); err != nil {
			f.refuse(e.at, "%s: %v", e.name, err)
		}
	}
	if r != nil {
		r.at[field.Name] = place(e)
	}
}

// unknown refuses a name, and says which one may have been meant.
func (f *file) unknown(e entry, where string, names []string) {
	best, distance := "", 3
	for _, name := range names {
		if d := editDistance(e.name, name); d < distance {
			best, distance = name, d
		}
	}
	switch {
	case best != "":
		f.refuse(e.at, "there is no setting %q %s; did you mean %q?", e.name, where, best)
	default:
		f.refuse(e.at, "there is no setting %q %s; there are %s", e.name, where, strings.Join(names, ", "))
	}
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}
