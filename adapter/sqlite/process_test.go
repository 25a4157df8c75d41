package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// childFile names the environment variable that turns this test binary into a
// process that writes, and dies by the hand of its parent.
const childFile = "SEMEL_SQLITE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		if err := child(path, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if path := os.Getenv(orderFile); path != "" {
		if err := orderChild(path, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// writers is how many goroutines a child writes with.
const writers = 8

// child writes until it is killed or its output is closed, and prints each swap
// after it was acknowledged. Each writer claims and completes new keys, and then
// counts up a key that all share.
func child(path string, out io.Writer) error {
	s, err := Open(path, Options{BusyTimeout: time.Minute})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	print := func(n int, r semel.Record) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintln(out, n, r.Version.Epoch, r.Version.Counter, r.State, r.Attempt)
		return err
	}
	errs := make(chan error, writers)
	base := 1 + rand.IntN(1<<40)
	for w := range writers {
		go func() {
			for n := base + w; ; n += writers {
				if err := life(s, n, print); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

func life(s *Store, n int, print func(n int, r semel.Record) error) error {
	ctx := context.Background()
	claim, err := s.CompareAndSwap(ctx, semel.Version{}, pending(n))
	if err != nil {
		return err
	}
	if err := print(n, claim.Record); err != nil {
		return err
	}
	end, err := s.CompareAndSwap(ctx, claim.Record.Version, done(n))
	if err != nil {
		return err
	}
	if err := print(n, end.Record); err != nil {
		return err
	}
	shared, err := countUp(s)
	if err != nil {
		return err
	}
	return print(0, shared)
}

// countUp adds one to the Attempt of key 0.
func countUp(s *Store) (semel.Record, error) {
	ctx := context.Background()
	held, err := s.Get(ctx, pending(0).Digest)
	for err == nil {
		next := pending(0)
		next.Attempt = held.Record.Attempt + 1
		if held, err = s.CompareAndSwap(ctx, held.Record.Version, next); err == nil {
			return held.Record, nil
		}
		if errors.Is(err, semel.ErrConflict) {
			err = nil
		}
	}
	return semel.Record{}, err
}

// ledger is what a parent knows of what its children were told.
type ledger struct {
	last  map[int]semel.Record
	given map[semel.Version]int // whom a version was given to
	swaps int
}

// follow starts a child, takes down what it prints, and kills it after some
// lines.
func (l *ledger) follow(t *testing.T, path string, lines int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childFile+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(out)
	for i := 0; scan.Scan(); i++ {
		l.take(t, scan.Text())
		if i == lines {
			// What is in the pipe already was acknowledged, too: read on to its end.
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
}

func (l *ledger) take(t *testing.T, line string) {
	t.Helper()
	var n int
	var state string
	var r semel.Record
	if _, err := fmt.Sscan(line, &n, &r.Version.Epoch, &r.Version.Counter, &state, &r.Attempt); err != nil {
		return // the last line, cut off by the kill
	}
	if owner, used := l.given[r.Version]; used {
		t.Errorf("version %v was given to key %d and to key %d", r.Version, owner, n)
	}
	l.given[r.Version] = n
	l.swaps++
	// The lines of one process are in the order of its writers' printing: only the
	// shared key's may overtake each other.
	if old, ok := l.last[n]; !ok || r.Version.Compare(old.Version) > 0 {
		l.last[n] = r
	} else if n != 0 {
		t.Errorf("key %d: version %v after %v", n, r.Version, old.Version)
	}
}

// verify compares the file with the ledger.
func (l *ledger) verify(t *testing.T, path string) {
	t.Helper()
	s := openTest(t, path, Options{})
	defer s.Close()
	for n, want := range l.last {
		r, err := s.Get(t.Context(), pending(n).Digest)
		if err != nil || r.Record.Version.Compare(want.Version) < 0 || r.Record.Attempt < want.Attempt {
			t.Errorf("key %d: held %v (attempt %d), %v; acknowledged was %v (attempt %d)",
				n, r.Record.Version, r.Record.Attempt, err, want.Version, want.Attempt)
		}
		if r.Record.State == semel.Done && string(r.Record.Result) != fmt.Sprint("receipt ", n) {
			t.Errorf("key %d: result %q", n, r.Record.Result)
		}
	}
	history, err := s.History(t.Context(), pending(0).Digest)
	if err != nil {
		t.Error(err)
	}
	in := map[semel.Version]bool{}
	for i, e := range history {
		in[e.Record.Version] = true
		if i > 0 && (e.Record.Version.Compare(history[i-1].Record.Version) <= 0 || e.Record.Attempt != history[i-1].Record.Attempt+1) {
			t.Errorf("the shared key's journal: %v (attempt %d) after %v (attempt %d)", e.Record.Version, e.Record.Attempt,
				history[i-1].Record.Version, history[i-1].Record.Attempt)
		}
	}
	for v, n := range l.given {
		if n == 0 && !in[v] {
			t.Errorf("the journal lacks version %v of the shared key, which was acknowledged", v)
		}
	}
}

func newLedger() *ledger {
	return &ledger{last: map[int]semel.Record{}, given: map[semel.Version]int{}}
}

func TestKilledWhileWriting(t *testing.T) {
	path := newPath(t)
	l := newLedger()
	kills := 20
	if testing.Short() {
		kills = 5
	}
	for range kills {
		l.follow(t, path, 20+rand.IntN(200))
		l.verify(t, path)
		if t.Failed() {
			return
		}
	}
	s := openTest(t, path, Options{})
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d acknowledged swaps of %d keys: none lost", kills, l.swaps, len(l.last))
}

// Two processes write the same file at once, a third one reads it, and both
// writers are killed.
func TestTwoProcesses(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{BusyTimeout: time.Minute})
	l := newLedger()
	stop := make(chan struct{})
	mine := make(chan []semel.Record)
	go func() {
		var all []semel.Record
		defer func() { mine <- all }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := countUp(s)
			if err != nil {
				t.Error(err)
				return
			}
			if len(all) > 0 && r.Version.Compare(all[len(all)-1].Version) <= 0 {
				t.Errorf("version %v after %v", r.Version, all[len(all)-1].Version)
			}
			all = append(all, r)
		}
	}()
	for range 3 {
		l.follow(t, path, 300)
		reader := openTest(t, path, Options{ReadOnly: true})
		if list, err := reader.List(t.Context(), semel.Filter{State: semel.Pending}); err != nil || len(list) == 0 {
			t.Errorf("list: %v, %v", list, err)
		}
	}
	close(stop)
	ours := <-mine
	for _, r := range ours {
		if n, used := l.given[r.Version]; used {
			t.Errorf("version %v was given to us and, for key %d, to the other process", r.Version, n)
		}
		l.given[r.Version] = 0
	}
	if len(ours) == 0 {
		t.Error("the other process kept this one from writing at all")
	}
	l.verify(t, path)
	t.Logf("%d swaps here, %d there", len(ours), l.swaps)
}
