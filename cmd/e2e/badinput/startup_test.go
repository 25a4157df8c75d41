package badinput

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/internal/server"
)

// ended runs the command, which is to end by itself, and gives what it wrote.
func ended(t *testing.T, command *exec.Cmd) (code int, output string) {
	t.Helper()
	p, err := program.Start(command)
	if err != nil {
		t.Fatal(err)
	}
	code, err = p.Wait(patience)
	if err != nil {
		t.Errorf("%q started, and should not have: %v", command.Args, err)
	}
	return code, p.Output()
}

// refusal checks an exit code and that each of the texts was written, which name
// the cause and the way out.
func refusal(t *testing.T, name string, command *exec.Cmd, wantCode int, texts ...string) {
	t.Helper()
	bad.Add(1)
	code, output := ended(t, command)
	if code != wantCode {
		t.Errorf("%s: exit code %d, want %d; it wrote:\n%s", name, code, wantCode, output)
	}
	for _, text := range texts {
		if !strings.Contains(output, text) {
			t.Errorf("%s: it does not say %q, but:\n%s", name, text, output)
		}
	}
	for _, word := range []string{"panic", "goroutine", "password7", server.LoginPassword, "\x00", "\x1b"} {
		if strings.Contains(output, word) {
			t.Errorf("%s: it says %q:\n%s", name, word, output)
		}
	}
	if lines := strings.Count(output, "\n"); lines > 40 {
		t.Errorf("%s: the refusal has %d lines:\n%s", name, lines, output)
	}
}

// TestUsage: command lines that cannot be meant. Each is refused with exit code
// 2 before anything is opened, and says what to write instead.
func TestUsage(t *testing.T) {
	t.Parallel()
	semel := built(t)
	dir := t.TempDir()
	good := map[string]string{"--upstream": "http://127.0.0.1:1", "--listen": "127.0.0.1:0", "--store": "sqlite:" + filepath.Join(dir, "semel.db")}
	tests := []struct {
		name  string
		args  []string // in place of, or besides, the good ones
		texts []string
	}{
		{"no upstream", []string{"--upstream="}, []string{"an upstream is required", "--upstream http://"}},
		{"an upstream without scheme", []string{"--upstream=localhost:3000"}, []string{"http://localhost:3000"}},
		{"an upstream of another scheme", []string{"--upstream=ftp://x"}, []string{"http:// or https://"}},
		{"an upstream without host", []string{"--upstream=http://"}, []string{"upstream"}},
		{"an upstream that is no URL", []string{"--upstream=http://[::1"}, []string{"is no URL"}},
		{"an upstream with a password", []string{"--upstream=http://me:password7@x"}, []string{"credentials"}},
		{"an upstream with a query", []string{"--upstream=http://x?a=1"}, []string{"query"}},
		{"an unknown store", []string{"--store=mongodb://x"}, []string{`the store "mongodb:" is unknown`, "sqlite:PATH", "memory:"}},
		{"a store without scheme", []string{"--store=semel.db"}, []string{"sqlite:PATH"}},
		{"no store", []string{"--store="}, []string{"sqlite:PATH"}},
		{"a store without path", []string{"--store=sqlite:"}, []string{"sqlite:semel.db"}},
		{"a memory with a path", []string{"--store=memory:x"}, []string{"takes no path"}},
		{"a port that is none", []string{"--listen=127.0.0.1:x"}, []string{"127.0.0.1:8080"}},
		{"no port", []string{"--listen=127.0.0.1"}, []string{":PORT"}},
		{"a port too high", []string{"--listen=127.0.0.1:99999"}, []string{"99999"}},
		{"a URL to listen at", []string{"--listen=http://127.0.0.1:1"}, []string{"HOST:PORT"}},
		{"an admin address that is none", []string{"--admin=x"}, []string{"admin", "HOST:PORT"}},
		{"a lease without unit", []string{"--lease=30"}, []string{"--lease", "30s"}},
		{"a lease of nothing", []string{"--lease=0"}, []string{"--lease"}},
		{"a negative lease", []string{"--lease=-5s"}, []string{"negative"}},
		{"a lease that is none", []string{"--lease=soon"}, []string{"250ms, 30s"}},
		{"a lease that is too short", []string{"--lease=1ms"}, []string{"at least 50ms"}},
		{"a replay longer than the memory", []string{"--replay=10d", "--remember=1d"}, []string{"remember at least"}},
		{"a memory shorter than the lease", []string{"--replay=1s", "--remember=1s", "--lease=1m"}, []string{"remember at least"}},
		{"a body of nothing", []string{"--max-body=0"}, []string{"64KiB"}},
		{"a negative body", []string{"--max-body=-1"}, []string{"64KiB"}},
		{"a body in unknown units", []string{"--max-body=1XB"}, []string{"64KiB"}},
		{"a body of 10^30 bytes", []string{"--max-body=1" + strings.Repeat("0", 30)}, []string{"--max-body"}},
		{"a class that a gateway cannot keep", []string{"--class=transactional"}, []string{"at-most-once"}},
		{"an unknown class", []string{"--class=exactly-once"}, []string{"at-most-once, at-least-once"}},
		{"an unknown scope", []string{"--scope=cookie"}, []string{"header:NAME", "shared"}},
		{"a scope without header", []string{"--scope=header:"}, []string{"header name"}},
		{"a scope of a bad header", []string{"--scope=header:A B"}, []string{"no header name"}},
		{"a scope that tells nobody apart", []string{"--scope=header:Host"}, []string{"Authorization"}},
		{"a scope that is the key", []string{"--scope=header:Idempotency-Key"}, []string{"Authorization"}},
		{"required and derived keys", []string{"--require", "--derive-key"}, []string{"set one of them"}},
		{"a header of the connection", []string{"--keep-headers=Connection"}, []string{"Connection"}},
		{"success that did nothing", []string{"--not-done=200"}, []string{"400 to 599"}},
		{"no requests at all", []string{"--max-in-flight=0"}, []string{"--max-in-flight"}},
		{"an unknown level", []string{"--log-level=loud"}, []string{"debug, info, warn, error"}},
		{"an unknown format", []string{"--log-format=xml"}, []string{"auto, text, json"}},
		{"an unknown flag", []string{"--lese=5s"}, []string{"--lese"}},
		{"an argument", []string{"now"}, []string{"now"}},
		{"a flag without its value", []string{"--lease"}, []string{"--lease"}},
		{"a missing file", []string{"--config=" + filepath.Join(dir, "missing.yaml")}, []string{"cannot read the configuration", "missing.yaml"}},
		{"a directory as file", []string{"--config=" + dir}, []string{"cannot read the configuration"}},
	}
	for _, test := range tests {
		args := []string{"gateway"}
		for flag, value := range good {
			if !strings.HasPrefix(strings.Join(test.args, " "), flag+"=") {
				args = append(args, flag+"="+value)
			}
		}
		refusal(t, test.name, exec.Command(semel, append(args, test.args...)...), 2, append(test.texts, "--help")...)
	}
	verbs := [...][]string{{"gatewy"}, {"gateway", "serve"}, {"list", "--state", "odd"}, {"list", "--limit", "0"}, {"list", "--after", "x"}, {"get"}, {"list", "--store", "mongodb://x"}, {"version", "x"}, {"--nonsense"}}
	for _, args := range verbs {
		refusal(t, strings.Join(args, " "), exec.Command(semel, args...), 2)
	}
	variable := exec.Command(semel, "gateway", "--upstream=http://127.0.0.1:1")
	variable.Env = append(os.Environ(), "SEMEL_LEASE=soon")
	refusal(t, "a variable", variable, 2, "SEMEL_LEASE", "250ms, 30s")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("refused command lines have left %v, %v", left, err)
	}
	t.Logf("%d command lines", len(tests)+len(verbs)+1)
}

// TestConfiguration: files that cannot be meant. The refusal names line and
// column, and shows the line.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	semel := built(t)
	tests := []struct{ name, file, place, text string }{
		{"no YAML", "upstream: [", ":1:", "not YAML"},
		{"noise", "\x00\x01\x02\xff", "", "is not text"},
		{"a colour", "upstream: \x1b[31mred", "", "is not text"},
		{"a list", "- upstream: x", ":1:", "upstream: http"},
		{"an unknown setting", "upstream: http://x\nleese: 5s", ":2:1", "lease"},
		{"a setting twice", "lease: 5s\nlease: 6s", ":2:1", "lease"},
		{"a wrong type", "lease: [5s]", ":1:", "lease"},
		{"a number without unit", "lease: 30", ":1:8", "30s"},
		{"an unknown class", "class: exactly-once", ":1:8", "at-most-once"},
		{"a short lease", "lease: 1ms", ":1:", "at least 50ms"},
		{"two documents", "lease: 5s\n---\nlease: 6s", ":3:", "one document"},
		{"an alias bomb", "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c]", ":1:1", `"a"`},
		{"a route without match", "routes:\n  - lease: 5s", ":2:", "match"},
		{"a match that is none", "routes:\n  - match: charges", ":2:", "must begin with /"},
		{"a method in lower case", "routes:\n  - match: post /x", ":2:", "POST"},
		{"a tunnel", "routes:\n  - match: CONNECT /x", ":2:", "CONNECT"},
		{"a setting of the process in a route", "routes:\n  - match: /x\n    store: \"memory:\"", ":3:", "whole gateway"},
		{"an unknown fingerprint", "fingerprint: {yaml: true}", ":1:", "json"},
		{"two fingerprints", "fingerprint: {json: true, form: true}", ":1:", "set one of them"},
		{"a pointer that is none", "fingerprint: {json: true, exclude: [sentAt]}", ":1:", "/sentAt"},
		{"routes that are no list", "routes: /x", ":1:", "match"},
	}
	for i, test := range tests {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.Command(semel, "gateway", "--config", path, "--upstream=http://127.0.0.1:1", "--store=memory:", "--listen=127.0.0.1:0")
		refusal(t, test.name, command, 2, path+test.place, test.text)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	refusal(t, "a large file", exec.Command(semel, "gateway", "--config", large), 2, "larger than 1 MiB")
	t.Logf("%d files", len(tests)+1)
}

// TestAddresses: addresses that cannot be listened at. The command line may well
// be right, so the exit code is 1.
func TestAddresses(t *testing.T) {
	t.Parallel()
	semel := built(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	start := func(args ...string) *exec.Cmd {
		return exec.Command(semel, append([]string{"gateway", "--upstream=http://127.0.0.1:1", "--store=sqlite:" + filepath.Join(dir, "semel.db")}, args...)...)
	}
	taken := l.Addr().String()
	refusal(t, "a port in use", start("--listen="+taken), 1, taken, "another program", "--listen")
	refusal(t, "an admin port in use", start("--listen=127.0.0.1:0", "--admin="+taken), 1, taken, "another program", "--admin")
	refusal(t, "another machine's address", start("--listen=192.0.2.1:0"), 1, "192.0.2.1", "--listen")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("a gateway that could not listen has left %v, %v", left, err)
	}
}
