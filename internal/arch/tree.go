package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// maxTextBytes is the size above which a file that is not Go is taken for data and not searched.
const maxTextBytes = 1 << 20

// A tree is the repository as the rules see it.
type tree struct {
	fset     *token.FileSet
	files    []*file     // Go files, testdata excluded, by path
	texts    []text      // every readable file, Go or not, by path
	packages []*pkg      // by directory
	broken   []Violation // files that do not parse
}

// A file is one parsed Go file.
type file struct {
	path  string
	dir   string // "." for the root of the repository
	test  bool
	lines int
	ast   *ast.File
}

// A pkg is one directory with Go files. An external test package counts to its directory.
type pkg struct {
	dir        string
	name       string // without _test
	production []*file
	tests      []*file
}

// A text is one file as it lies on disk.
type text struct {
	path string
	data []byte
}

// all returns the package's files, production first.
func (p *pkg) all() []*file {
	return slices.Concat(p.production, p.tests)
}

// skipped tells which directories are not of the repository, or not written by its authors.
func skipped(dir string) bool {
	switch path.Base(dir) {
	case ".git", "node_modules", "dist", "pb_data":
		return true
	}
	return false
}

// load reads and parses everything below the root of fsys.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(name) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			info, err := d.Info()
			if err != nil || info.Size() > maxTextBytes {
				return err
			}
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		t.add(name, data)
		return nil
	})
	t.group()
	return t, err
}

// add takes one file in. Binary data is left out.
func (t *tree) add(name string, data []byte) {
	if bytes.IndexByte(data, 0) >= 0 {
		return
	}
	t.texts = append(t.texts, text{name, data})
	if !strings.HasSuffix(name, ".go") || slices.Contains(strings.Split(name, "/"), "testdata") {
		return
	}
	parsed, err := parser.ParseFile(t.fset, name, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.broken = append(t.broken, Violation{name, 0, "syntax", err.Error()})
		return
	}
	t.files = append(t.files, &file{
		path:  name,
		dir:   path.Dir(name),
		test:  strings.HasSuffix(name, "_test.go"),
		lines: bytes.Count(data, []byte("\n")),
		ast:   parsed,
	})
}

// group collects the files into packages.
func (t *tree) group() {
	byDir := map[string]*pkg{}
	for _, f := range t.files {
		p := byDir[f.dir]
		if p == nil {
			p = &pkg{dir: f.dir, name: strings.TrimSuffix(f.ast.Name.Name, "_test")}
			byDir[f.dir] = p
			t.packages = append(t.packages, p)
		}
		if f.test {
			p.tests = append(p.tests, f)
		} else {
			p.production = append(p.production, f)
		}
	}
}

// line returns the line of a position.
func (t *tree) line(pos token.Pos) int {
	return t.fset.Position(pos).Line
}
