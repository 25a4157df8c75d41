package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/internal/child"
)

// build compiles the example.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "river.exe") // the suffix harms nobody
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// address gives a free one of the loopback interface.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the example as a process until the test ends, and waits until it
// listens. An empty warehouse leaves it to its own.
func start(t *testing.T, binary, database, at, warehouse string) *child.Process {
	t.Helper()
	var output strings.Builder // read once the process has ended
	command := exec.Command(binary, "--postgres", database, "--listen", at, "--warehouse", warehouse)
	command.Stdout, command.Stderr = &output, &output
	p, err := child.Start(command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", at); err == nil {
			_ = c.Close()
			return p
		}
		if time.Now().After(end) {
			t.Fatal("it does not listen")
		}
	}
}

// TestKilledBetweenOrderAndJob holds the process between the two, and kills it there.
func TestKilledBetweenOrderAndJob(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	binary, at := build(t), address(t)
	process := start(t, binary, url, at, f.URL)
	blocker, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Rollback(context.WithoutCancel(t.Context()))
	if _, err := blocker.Exec(t.Context(), "LOCK TABLE river_job IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	first := make(chan answer, 1)
	go func() { first <- send(context.WithoutCancel(t.Context()), "http://"+at, "one") }()
	watch := connect(t, url)
	await(t, watch.Conn, `SELECT EXISTS (SELECT FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO%river_job%')`)
	process.Kill()
	if got := <-first; got != (answer{}) {
		t.Errorf("a process that was killed answered %+v", got)
	}
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, watch.Conn, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity
		WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid())`)
	check(t, watch.Conn, f, 0, 0, 0)

	start(t, binary, url, at, f.URL)
	if got := send(t.Context(), "http://"+at, "one"); got.status != http.StatusCreated || got.replayed {
		t.Errorf("%+v; want a fresh 201", got)
	}
	shipped(t, watch.Conn)
	check(t, watch.Conn, f, 1, 1, 1)
}

// TestKilledAfterTheCall: the warehouse has sent the parcel, and nobody has
// recorded it.
func TestKilledAfterTheCall(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	f.hold = make(chan struct{})
	binary, at := build(t), address(t)
	process := start(t, binary, url, at, f.URL)
	if got := send(t.Context(), "http://"+at, "one"); got.status != http.StatusCreated {
		t.Fatalf("%+v", got)
	}
	f.await(t, 1)
	process.Kill()
	f.mu.Lock()
	close(f.hold)
	f.hold = nil
	f.mu.Unlock()
	check(t, db, f, 1, 1, 1)

	// What River itself does with the job of a dead worker, after an hour.
	conn{db, t}.exec("UPDATE river_job SET state = 'available' WHERE state = 'running'")
	start(t, binary, url, at, f.URL)
	shipped(t, db)
	check(t, db, f, 1, 1, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) != 2 || f.calls[0] != f.calls[1] || f.calls[0] == "" {
		t.Errorf("the warehouse was called with the keys %q; want one key, twice", f.calls)
	}
}

func TestRunsByItself(t *testing.T) {
	url, db := database(t)
	at := address(t)
	process := start(t, build(t), url, at, "")
	if got := send(t.Context(), "http://"+at, "one"); got.status != http.StatusCreated {
		t.Errorf("%+v", got)
	}
	shipped(t, db)
	p, err := os.FindProcess(process.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := process.Err(); err != nil {
		t.Errorf("it was told to end: %v", err)
	}
}

func TestWithoutADatabase(t *testing.T) {
	binary := build(t)
	for _, test := range []struct {
		arguments []string
		code      int
		says      string
	}{
		{nil, 2, "--postgres postgres://"},
		{[]string{"--postgres", "postgres://postgres@" + address(t) + "/postgres"}, 1, "connection refused"},
	} {
		command := exec.Command(binary, test.arguments...)
		out, _ := command.CombinedOutput()
		if code := command.ProcessState.ExitCode(); code != test.code || !strings.Contains(string(out), test.says) {
			t.Errorf("%q ended with code %d and said\n%s\nwant code %d and %q", test.arguments, code, out, test.code, test.says)
		}
	}
}
