package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// asSemel makes the test's own binary the command: the tests run it as a process.
const asSemel = "SEMEL_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asSemel) != "" {
		_ = os.Unsetenv(asSemel)
		main()
	}
	os.Exit(m.Run())
}

// command prepares the command in a directory, with nothing of ours in its
// environment.
func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, self, args...)
	c.Dir, c.Env = dir, []string{asSemel + "=1", "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	return c
}

// semelRun runs the command to its end.
func semelRun(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := command(t, dir, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("corrupt.db", strings.Repeat("this is no database\n", 500), 0o600)
	write("empty.secret", "\n", 0o600)
	write("short.secret", "hunter2\n", 0o600)
	write("bad.yaml", "lese: 3s\n", 0o600)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	up := "--upstream=http://127.0.0.1:1 --listen=127.0.0.1:0 "
	cases := []struct {
		args string
		code int
		want string // in what is printed
	}{
		{"", 0, "semel VERB"},
		{"--help", 0, "semel VERB"},
		{"gateway --help", 0, "semel gateway --upstream URL [flags]"},
		{"version", 0, "semel "},
		{"version --json", 0, `"go":"go1.`},
		{"gatewy", 2, `there is no verb "gatewy"; did you mean gateway?`},
		{"gateway", 2, "an upstream is required: --upstream http://127.0.0.1:3000"},
		{"gateway --nonsense", 2, "unknown flag: --nonsense"},
		{"gateway --upstream localhost:3000", 2, "write it with its scheme, as in http://localhost:3000"},
		{"gateway --upstream 127.0.0.1:3000", 2, "write it with its scheme, as in http://127.0.0.1:3000"},
		{"gateway --upstream ftp://x", 2, "must begin with http:// or https://"},
		{"gateway --upstream http://a:b@x", 2, "contains credentials"},
		{"gateway " + up + "--store mongodb://localhost", 2, "sqlite:PATH (durable, a file)"},
		{"gateway " + up + "--store redis://", 2, "names no host; write redis://HOST"},
		{"gateway " + up + "--cache disk:x", 2, "there are memory:SIZE (of this process), redis://HOST, and none"},
		{"migrate", 2, "has no schema to migrate"},
		{"share --listen :7443 --token-file t", 2, "a token must not travel in the clear"},
		{"share", 2, "who may use the store?"},
		{"gateway " + up + "--store semel.db", 2, "is no store; write sqlite:PATH"},
		{"gateway " + up + "--store sqlite:", 2, "needs the path of a file"},
		{"gateway " + up + "--class exactly-once", 2, "there are at-most-once, at-least-once and fenced"},
		{"gateway " + up + "--class transactional", 2, "a gateway cannot be transactional"},
		{"gateway " + up + "--scope Authorization", 2, "is no scope; write header:NAME"},
		{"gateway " + up + "--scope header:Host", 2, "does not tell one client from another"},
		{"gateway " + up + "--lease 10", 2, `--lease: "10" has no unit; write 10s`},
		{"gateway " + up + "--remember 1h", 2, "make remember at least 24h"},
		{"gateway " + up + "--require --derive-key", 2, "set one of them"},
		{"gateway " + up + "--config none.yaml", 2, "none.yaml: no such file"},
		{"gateway " + up + "--config bad.yaml", 2, `bad.yaml:1:1: there is no setting "lese" here; did you mean "lease"?`},
		{"gateway --upstream http://x --listen 8080", 2, "is no address to listen at; write HOST:PORT"},
		{"gateway --upstream http://x --listen " + taken.Addr().String(), 1, "another program does already, perhaps another gateway: stop it, or take another port with --listen"},
		{"gateway " + up + "--admin " + taken.Addr().String(), 1, "or take another port with --admin"},
		{"gateway --upstream http://x --listen 192.0.2.1:80", 1, "this machine does not have that address"},
		{"gateway " + up + "--secret-file none", 1, "none: no such file"},
		{"gateway " + up + "--secret-file empty.secret", 1, "has 0 bytes; at least 16 are needed"},
		{"gateway " + up + "--secret-file short.secret", 1, "has 7 bytes; at least 16 are needed"},
		{"gateway " + up + "--store sqlite:none/semel.db", 1, "its directory must exist and be writable"},
		{"gateway " + up + "--store sqlite:.", 1, "it is a directory; name a file in it"},
		{"gateway " + up + "--store sqlite:corrupt.db", 1, "this is no SQLite database"},
		{"gateway --validate --upstream http://127.0.0.1:1", 0, "The settings are valid."},
		{"get", 2, "which key? give one or more"},
		{"get k", 1, "there is no store at " + filepath.Join(dir, "semel.db")},
		{"get k --store memory:", 2, "is inside the gateway's process"},
		{"get k --store sqlite:corrupt.db", 1, "this is no SQLite database"},
		{"list", 1, "there is no store at " + filepath.Join(dir, "semel.db")},
		{"list --state lost", 2, "there are pending, done, released and in-doubt"},
		{"list --limit 0", 2, "take 1 to 100000"},
		{"list --after xyz", 2, "a digest has 64 hexadecimal digits"},
		{"list x", 2, "unknown command"},
	}
	for _, tc := range cases {
		t.Run(tc.args, func(t *testing.T) {
			code, stdout, stderr := semelRun(t, dir, strings.Fields(tc.args)...)
			if code != tc.code || !strings.Contains(stdout+stderr, tc.want) {
				t.Errorf("got %d and\n%s%swant %d and %q", code, stdout, stderr, tc.code, tc.want)
			}
			if code == exitUsage && !strings.Contains(stderr, "--help` shows how it is used") {
				t.Errorf("a mistake of usage does not point to help:\n%s", stderr)
			}
			if code != 0 && stdout != "" {
				t.Errorf("an error is printed to standard output:\n%s", stdout)
			}
		})
	}
	if made, _ := filepath.Glob(filepath.Join(dir, "semel.db*")); len(made) > 0 {
		t.Errorf("looking made a store: %v", made)
	}
}

// started is a gateway as a process.
type started struct {
	*exec.Cmd
	url   string
	admin string
	rest  chan string // what it writes after it listens, once it has ended
}

func startGateway(t *testing.T, dir string, args ...string) *started {
	t.Helper()
	s := &started{Cmd: command(t, dir, append([]string{"gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"}, args...)...), rest: make(chan string, 1)}
	out, err := s.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Process.Kill() })
	in := bufio.NewReader(out)
	for {
		text, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("the gateway did not start: %v %q", err, text)
		}
		var line struct{ Msg, Address, Admin string }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("not JSON: %q", text)
		}
		if line.Msg == "listening" {
			s.url, s.admin = "http://"+line.Address, "http://"+line.Admin
			break
		}
	}
	go func() {
		rest, _ := io.ReadAll(in)
		s.rest <- string(rest)
	}()
	return s
}

// end waits for the process and gives its exit code and the rest of its log.
func (s *started) end() (int, string) {
	rest := <-s.rest
	_ = s.Wait()
	return s.ProcessState.ExitCode(), rest
}

func post(t *testing.T, url, key, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", key)
	r.Header.Set("Authorization", "Bearer secret-token")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

func TestGatewayProcess(t *testing.T) {
	runs := 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		if r.URL.Path == "/break" {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", runs)
	}))
	defer service.Close()
	dir := t.TempDir()
	g := startGateway(t, dir, "--upstream", service.URL)
	for range 2 {
		if status, body := post(t, g.url+"/orders", "order-17", "coffee"); status != 201 || body != "order 1" {
			t.Errorf("got %d %q, want 201 and order 1", status, body)
		}
	}
	if status, body := post(t, g.url+"/break", "broken-1", "tea"); status != 409 || !strings.Contains(body, "outcome-unknown") {
		t.Errorf("got %d %q, want 409 outcome-unknown", status, body)
	}

	// Looking while it runs.
	code, out, errs := semelRun(t, dir, "get", "order-17")
	for _, want := range []string{"order-17  done: it ran once", "POST /orders", "status 201", "claimed", "finished"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("get: got %d and\n%s%swant %q", code, out, errs, want)
		}
	}
	if _, out, _ = semelRun(t, dir, "get", "broken-1"); !strings.Contains(out, "in doubt: it was started and nobody knows whether it ran") || !strings.Contains(out, "Look in the upstream") {
		t.Errorf("get of a key in doubt:\n%s", out)
	}
	code, out, _ = semelRun(t, dir, "list", "--state", "in-doubt", "--json")
	var list struct{ Records []recordJSON }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Records) != 1 || list.Records[0].Key != "broken-1" || list.Records[0].State != "in-doubt" {
		t.Errorf("list --state in-doubt: got %d %v\n%s", code, err, out)
	}
	if code, _, errs = semelRun(t, dir, "get", "nothing"); code != 1 || !strings.Contains(errs, "nothing is remembered of the key nothing") {
		t.Errorf("get of an unknown key: got %d %s", code, errs)
	}

	_ = g.Process.Signal(syscall.SIGTERM)
	code, rest := g.end()
	if code != 0 || !strings.Contains(rest, "stopped; everything that was accepted is finished") {
		t.Errorf("after SIGTERM: got %d and\n%s", code, rest)
	}
	if strings.Contains(rest, "secret-token") || strings.Contains(rest, "broken-1") || strings.Contains(rest, "coffee") {
		t.Errorf("the log tells a secret:\n%s", rest)
	}

	// It remembers.
	g = startGateway(t, dir, "--upstream", service.URL)
	if status, body := post(t, g.url+"/orders", "order-17", "coffee"); status != 201 || body != "order 1" {
		t.Errorf("after a restart: got %d %q, want 201 and order 1", status, body)
	}
	_ = g.Process.Signal(os.Interrupt)
	if code, rest := g.end(); code != 0 {
		t.Errorf("after SIGINT: got %d and\n%s", code, rest)
	}
}

// TestSecondSignal ends a gateway that waits for a request which does not end.
func TestSecondSignal(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-leave
	}))
	defer service.Close()
	defer close(leave)
	g := startGateway(t, t.TempDir(), "--upstream", service.URL, "--store", "memory:")
	go func() {
		r, err := http.NewRequest("POST", g.url, strings.NewReader("x"))
		if err == nil {
			if resp, err := http.DefaultTransport.RoundTrip(r); err == nil {
				_ = resp.Body.Close()
			}
		}
	}()
	<-entered
	_ = g.Process.Signal(syscall.SIGTERM)
	for { // until it has noticed
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(httptest.NewRequest("GET", g.admin+"/readyz", nil))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			break
		}
	}
	_ = g.Process.Signal(syscall.SIGTERM)
	if code, rest := g.end(); code != 1 || !strings.Contains(rest, "stopped at once") {
		t.Errorf("got %d and\n%s", code, rest)
	}
}

// TestListPages walks through more keys than fit on a page, some of which would
// write to the terminal what they like.
func TestListPages(t *testing.T) {
	dir := t.TempDir()
	store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for i := range 7 {
		key := semel.Key{Scope: "me", ID: fmt.Sprintf("k%d\x1b[2J\r\n\u202e", i)}
		next := semel.Record{Digest: key.Digest(nil), State: semel.Pending, Attempt: 1, TTL: time.Hour, Key: key}
		if _, err := store.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil {
			t.Fatal(err)
		}
	}
	seen, after, pages := make(map[string]bool), "", 0
	for {
		args := []string{"list", "--limit", "3", "--json"}
		if after != "" {
			args = append(args, "--after", after)
		}
		code, out, errs := semelRun(t, dir, args...)
		var page struct {
			Records []recordJSON
			Next    string
		}
		if err := json.Unmarshal([]byte(out), &page); err != nil || code != 0 {
			t.Fatalf("got %d %v\n%s%s", code, err, out, errs)
		}
		for _, r := range page.Records {
			seen[r.Key] = true
		}
		pages++
		if after = page.Next; after == "" {
			break
		}
	}
	if len(seen) != 7 || pages != 3 {
		t.Errorf("%d keys on %d pages, want 7 on 3", len(seen), pages)
	}
	_, out, errs := semelRun(t, dir, "list", "--limit", "3")
	if strings.ContainsAny(out, "\x1b\r\u202e") || !strings.Contains(out, `"k`) || strings.Count(out, "\n") != 4 {
		t.Errorf("keys are not made harmless:\n%q", out)
	}
	if !strings.Contains(errs, "3 shown, and there are more: --limit N, or --after ") {
		t.Errorf("got %q, want that there are more", errs)
	}
}
