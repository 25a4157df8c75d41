// Package docs builds the code that the documentation shows, so that a reader
// who copies it gets something that compiles, and follows the links from page to
// page, so that none leads nowhere. It holds tests only.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readme wraps the README's lines, which are statements, into a program.
const readme = `package main

import (
	"net/http"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/semelhttp"
)

func main() {
	mux := http.NewServeMux()
	CODE
	_, _ = err, client
}
`

func TestCodeInTheDocumentation(t *testing.T) {
	const root = "../../.."
	pages, err := filepath.Glob(root + "/docs/guides/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```")
	built := 0
	for _, page := range append(pages, root+"/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks.FindAllStringSubmatch(string(text), -1) {
			program := block[1]
			if !strings.HasPrefix(program, "package ") {
				program = strings.Replace(readme, "CODE", program, 1)
			}
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", page, err, out, program)
			}
			built++
		}
	}
	if built < 4 {
		t.Errorf("only %d blocks of code were found; is this the documentation?", built)
	}
}

func TestLinksOfTheDocumentationLead(t *testing.T) {
	const root = "../../.."
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), found[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", path, found[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
