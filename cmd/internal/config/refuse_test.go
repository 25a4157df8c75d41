package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFilesThatAreNoText are refused before any of their bytes can reach a
// terminal.
func TestFilesThatAreNoText(t *testing.T) {
	for text, want := range map[string]string{
		"upstream: http://x\n\x00":        "not text",
		"upstream: \x1b[31mred":           "not text",
		"upstream: caf\xe9":               "not text",
		"# caf\u00e9\r\nlog-level: debug": "",
		strings.Repeat("#", 2<<20):        "larger than 1 MiB",
	} {
		path := filepath.Join(t.TempDir(), "semel.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(Sources{File: path, Lookup: nothing})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
}

func TestPorts(t *testing.T) {
	for address, ok := range map[string]bool{"127.0.0.1:0": true, ":65535": true, ":65536": false, "127.0.0.1:99999": false, "[::1]:1": true} {
		_, err := Load(Sources{Flags: map[string]string{"listen": address}, Lookup: nothing})
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want accepted %v", address, err, ok)
		}
	}
}
