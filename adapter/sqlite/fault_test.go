package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// lock holds the write lock of the file until the function that it gives is
// called.
func lock(t *testing.T, path string) (release func()) {
	t.Helper()
	db := openSQL(t, path)
	execSQL(t, db, "BEGIN IMMEDIATE")
	return func() { execSQL(t, db, "ROLLBACK") }
}

func TestLockedByAnother(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{BusyTimeout: 50 * time.Millisecond})
	release := lock(t, path)
	_, err := s.CompareAndSwap(t.Context(), semel.Version{}, done(1))
	if err == nil || errors.Is(err, semel.ErrRejected) || !strings.Contains(err.Error(), "another process holds the write lock") {
		t.Errorf("swap: %v", err)
	}
	if s2, err := Open(path, Options{BusyTimeout: 50 * time.Millisecond}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opening: %v, %v", s2, err)
	}
	release()
	mustHold(t, s, mustSwap(t, s, semel.Version{}, done(1)))
}

// A duplicate is answered while another process holds the write lock: it waits
// for nobody and writes nothing.
func TestDuplicateTakesNoWriteLock(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{BusyTimeout: 30 * time.Second})
	held := mustSwap(t, s, semel.Version{}, done(1))
	release := lock(t, path)
	defer release()
	for _, learned := range []bool{true, false} {
		if !learned {
			s.file.known.Store(nil)
		}
		start := time.Now()
		r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1))
		if !errors.Is(err, semel.ErrConflict) || r.Record.Version != held.Version || string(r.Record.Result) != "receipt 1" {
			t.Errorf("with a filter %t: %+v, %v", learned, r.Record, err)
		}
		if time.Since(start) > 15*time.Second {
			t.Errorf("with a filter %t: it waited for the lock", learned)
		}
	}
	if history, err := s.History(t.Context(), held.Digest); err != nil || len(history) != 1 {
		t.Errorf("the journal: %v, %v", history, err)
	}
}

// A key that only another process knows of is found by the insert itself, and
// from then on is known here.
func TestDuplicateOfAnothersKey(t *testing.T) {
	s := openTest(t, newPath(t), Options{})
	held := mustSwap(t, s, semel.Version{}, done(1))
	s.file.known.Store(newKnown(0))
	for range 2 {
		r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1))
		if !errors.Is(err, semel.ErrConflict) || r.Record.Version != held.Version {
			t.Errorf("%+v, %v", r.Record, err)
		}
	}
	if !s.file.mayHold(&held.Digest) {
		t.Error("the key is not known after its conflict")
	}
	if history, err := s.History(t.Context(), held.Digest); err != nil || len(history) != 1 {
		t.Errorf("the journal: %v, %v", history, err)
	}
}

func TestFull(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	full(t, s, func() {
		if err := s.file.conn.run("PRAGMA max_page_count = 40"); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := s.file.conn.run("PRAGMA max_page_count = 1000000"); err != nil {
			t.Fatal(err)
		}
	})
}

// full lets the store run into a disk that is full, and checks what it says and
// keeps; then there is room again.
func full(t *testing.T, s *Store, fill, free func()) {
	t.Helper()
	fill()
	var kept []semel.Record
	var err error
	for i := range 2000 {
		next := done(i)
		next.Result = make([]byte, 10_000)
		r, e := s.CompareAndSwap(t.Context(), semel.Version{}, next)
		if e != nil {
			err = e
			break
		}
		kept = append(kept, r.Record)
	}
	if err == nil || errors.Is(err, semel.ErrRejected) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("after %d records: %v, want an error that says that the disk is full", len(kept), err)
	}
	if len(kept) == 0 {
		t.Fatal("nothing was stored before the disk was full")
	}
	for _, r := range kept {
		mustHold(t, s, r)
	}
	if _, err := s.CompareAndSwap(t.Context(), kept[0].Version, kept[0]); err == nil {
		t.Log("an update found room")
	}
	free()
	last := mustSwap(t, s, semel.Version{}, done(5000))
	if before := kept[len(kept)-1].Version; last.Version.Compare(before) <= 0 {
		t.Errorf("version %v after %v", last.Version, before)
	}
	for _, r := range append(kept[1:], last) {
		mustHold(t, s, r)
	}
}

func TestTooLargeIsRejectedAlone(t *testing.T) {
	s := openTest(t, newPath(t), Options{})
	s.file.maxRow = 10_000
	large := done(1)
	large.Result = make([]byte, 10_000)
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, large); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("got %v, want ErrRejected", err)
	}
	out := s.SwapMany(t.Context(), []semel.Swap{{Next: done(2)}, {Next: large}, {Next: done(3)}})
	if out[0].Err != nil || !errors.Is(out[1].Err, semel.ErrRejected) || out[2].Err != nil {
		t.Errorf("in a batch: %v, %v, %v", out[0].Err, out[1].Err, out[2].Err)
	}
	if r, err := s.Get(t.Context(), large.Digest); err != nil || r.Record.Held() {
		t.Errorf("it was written: %v", err)
	}
}

// Another process that opens the file, or writes, makes our next version stale
// before it is given out.
func TestVersionsOfTwoStoresNeverMeet(t *testing.T) {
	path := newPath(t)
	a := openTest(t, path, Options{})
	last := mustSwap(t, a, semel.Version{}, done(0))
	seen := map[semel.Version]bool{last.Version: true}
	check := func(r semel.Record) {
		t.Helper()
		if r.Version.Compare(last.Version) <= 0 || seen[r.Version] {
			t.Errorf("version %v after %v", r.Version, last.Version)
		}
		seen[r.Version], last = true, r
	}
	b := openTest(t, path, Options{})
	for i := 1; i < 20; i++ {
		s := a
		if i%3 == 0 {
			s = b
		}
		check(mustSwap(t, s, semel.Version{}, pending(i)))
		check(mustSwap(t, s, last.Version, done(i)))
		if i == 10 {
			b = openTest(t, path, Options{})
		}
		history, err := a.History(t.Context(), last.Digest)
		if err != nil || len(history) != 2 || history[1].Record.Version != last.Version {
			t.Errorf("key %d: journal %v, %v", i, history, err)
		}
	}
}

// A commit that fails must not be taken for done: neither by its callers nor by
// the version that comes next.
func TestFailedCommitIsUndone(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	first := mustSwap(t, s, semel.Version{}, pending(1))
	cause := errors.New("power cut")
	err := s.file.transact(func() (bool, error) {
		out := make([]semel.Swapped, 2)
		swaps := []semel.Swap{{Old: first.Version, Next: done(1)}, {Next: done(2)}}
		if wrote, err := s.file.swapAll(swaps, out); !wrote || err != nil {
			t.Errorf("swaps: %v", err)
		}
		return true, cause
	})
	if !errors.Is(err, cause) {
		t.Fatalf("got %v", err)
	}
	mustHold(t, s, first)
	second := mustSwap(t, s, first.Version, done(1))
	if second.Version.Counter != first.Version.Counter+1 {
		t.Errorf("version %v after %v: what was undone used one up", second.Version, first.Version)
	}
	history, err := s.History(t.Context(), first.Digest)
	if err != nil || len(history) != 2 {
		t.Errorf("journal: %v, %v", history, err)
	}
}

func TestWaitersOutnumberReaders(t *testing.T) {
	s := openTest(t, newPath(t), Options{Readers: 1})
	held := mustSwap(t, s, semel.Version{}, done(1))
	r, err := s.file.borrow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client left")
	got := make(chan error, 20)
	for i := range 20 {
		go func() {
			c := t.Context()
			if i%2 == 0 {
				c = ctx
			}
			_, err := s.Get(c, held.Digest)
			if i%2 == 0 && errors.Is(err, gone) {
				err = nil
			} else if i%2 == 0 {
				err = fmt.Errorf("got %w, want the cause of the context", err)
			}
			got <- err
		}()
	}
	cancel(gone)
	for range 10 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	s.file.giveBack(r)
	for range 10 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}
