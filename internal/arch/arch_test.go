package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestRepository checks the repository that this package lies in, all modules of it.
func TestRepository(t *testing.T) {
	top, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "go.work")); err != nil {
		t.Fatalf("%s is not the root of the repository: %v", top, err)
	}
	repository := os.DirFS(top)
	for _, known := range []string{"go.mod", "adapter/go.mod", "cmd/go.mod", "internal/arch/check.go"} {
		if _, err := fs.Stat(repository, known); err != nil {
			t.Errorf("the check would not see %s: %v", known, err)
		}
	}
	found, err := Check(repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}
