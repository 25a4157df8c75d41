package semel_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// Settle's table: what is held, what is said, and what comes of it.
func TestSettle(t *testing.T) {
	now := time.Now()
	held := func(state semel.State, lease time.Duration) semel.Reading {
		return semel.Reading{Now: now, Record: semel.Record{
			State: state, Version: semel.Version{Epoch: 1, Counter: 7}, Attempt: 2, Owner: "host:1", WrittenAt: now.Add(-time.Minute),
			TTL: time.Minute + lease, Fingerprint: semel.Fingerprint{1}, Key: semel.Key{Scope: "s", ID: "k"}, Result: []byte("memo"),
		}}
	}
	policy, err := semel.Policy{Replay: time.Hour, Remember: 2 * time.Hour, MaxResult: 5}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	done := semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte("five!")}, Who: "anna", Why: "I looked"}
	with := func(set func(*semel.Settlement)) semel.Settlement { s := done; set(&s); return s }
	for _, tc := range []struct {
		name string
		held semel.Reading
		say  semel.Settlement
		err  error  // nil: see text
		text string // "" means that it is settled
	}{
		{"done", held(semel.Pending, 0), done, nil, ""},
		{"of the version held", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.Version = semel.Version{Epoch: 1, Counter: 7} }), nil, ""},
		{"of another version", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.Version = semel.Version{Epoch: 1, Counter: 6} }), semel.ErrSettled, "version 1.6 was looked at"},
		{"the lease runs", held(semel.Pending, 1), done, semel.ErrInProgress, "host:1"},
		{"done already", held(semel.Done, time.Hour), done, semel.ErrSettled, "done"},
		{"released already", held(semel.Released, time.Hour), done, semel.ErrSettled, "released"},
		{"nothing held", semel.Reading{Now: now}, done, semel.ErrNotHeld, "nothing"},
		{"still unknown", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.State = 0 }), nil, "says done or released"},
		{"pending", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.State = semel.Pending }), nil, "says done or released"},
		{"nobody", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.Who = "" }), nil, "Who and Why"},
		{"for no reason", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.Why = "" }), nil, "Who and Why"},
		{"a novel", held(semel.Pending, 0), with(func(s *semel.Settlement) { s.Why = strings.Repeat("x", 1100) }), nil, "at most 1024"},
	} {
		next, err := semel.Settle(tc.held, tc.say, &policy, semel.Nonce{9})
		switch {
		case tc.text == "" && err != nil, tc.text != "" && (err == nil || !strings.Contains(err.Error(), tc.text)), tc.err != nil && !errors.Is(err, tc.err):
			t.Errorf("%s: got %v, want %v %q", tc.name, err, tc.err, tc.text)
		case tc.text == "" && (next.State != semel.Done || next.Code != 201 || string(next.Result) != "five!" || next.Replay != time.Hour || next.TTL != 2*time.Hour ||
			next.Attempt != 2 || next.Nonce != semel.Nonce{9} || next.Owner != "anna: I looked" || next.Fingerprint != tc.held.Record.Fingerprint || next.Key != tc.held.Record.Key):
			t.Errorf("%s: got %+v", tc.name, next)
		}
	}
	long, err := semel.Settle(held(semel.Pending, 0), with(func(s *semel.Settlement) { s.Result.Data = []byte("longer") }), &policy, semel.Nonce{})
	if err != nil || long.State != semel.Done || long.Result != nil || long.Replay != 0 || long.Code != 201 {
		t.Errorf("an answer over the cap: %+v, %v; want it done, and nothing kept", long, err)
	}
	free, err := semel.Settle(held(semel.Pending, 0), with(func(s *semel.Settlement) { s.State = semel.Released }), &policy, semel.Nonce{})
	if err != nil || free.State != semel.Released || free.Result != nil || free.Code != 0 || free.Attempt != 2 {
		t.Errorf("not done: %+v, %v; want it free, with neither memo nor answer", free, err)
	}
}

// A settled key with a time of its own is remembered as long as it is accepted.
func TestSettledTimedKeysAreRemembered(t *testing.T) {
	policy, err := semel.Policy{}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	at, ok := semel.KeyTime("01a4a1a0-0000-7000-8000-000000000000")
	if !ok {
		t.Fatal("no time")
	}
	r := semel.Record{State: semel.Pending, Version: semel.Version{Epoch: 1, Counter: 1}, WrittenAt: at.Add(-time.Minute), Key: semel.Key{ID: "01a4a1a0-0000-7000-8000-000000000000"}}
	next, err := semel.Settle(semel.Reading{Record: r, Now: at}, semel.Settlement{State: semel.Released, Who: "a", Why: "b"}, &policy, semel.Nonce{})
	if want := policy.Remember + time.Minute; err != nil || next.TTL < want {
		t.Errorf("remembered for %v, want at least %v: a key ahead of the clock is accepted longer", next.TTL, want)
	}
}

// A memo stays with a pending record over its renewals, and goes with the answer.
func TestAMemoIsKeptWhilePending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		g := newGuard(t, store)
		a := ask(t, semel.Policy{Name: "charge", Lease: time.Second, Resolve: func(context.Context, semel.Unresolved) (semel.Settlement, error) { return semel.Settlement{}, nil }})
		a.Memo = []byte("GET /charges/7")
		claim, _ := begin(t, g, a)
		for range 3 {
			held, err := store.Get(t.Context(), claim.Digest())
			if u := held.Record.Unresolved(); err != nil || u.Policy != "charge" || string(u.Memo) != "GET /charges/7" {
				t.Fatalf("the record tells %q %q, %v", u.Policy, u.Memo, err)
			}
			version := claim.Version()
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			if claim.Version() == version {
				t.Fatal("not renewed")
			}
		}
		if err := claim.Doubt(); err != nil {
			t.Fatal(err)
		}
		held, _ := store.Get(t.Context(), claim.Digest())
		if u := held.Record.Unresolved(); u.Policy != "charge" || string(u.Memo) != "GET /charges/7" {
			t.Errorf("in doubt the record tells %q %q", u.Policy, u.Memo)
		}
		_, err := g.Resolve(t.Context(), claim.Digest(), semel.Settlement{State: semel.Released, Who: "a", Why: "b"}, a.Policy)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := begin(t, g, a)
		if again == nil || again.Attempt() != 2 {
			t.Fatal("a key that was settled as not done was not free")
		}
		record, err := again.Complete(semel.Result{Data: []byte("r")})
		if err != nil || string(record.Result) != "r" {
			t.Errorf("%q, %v", record.Result, err)
		}
	})
}

// Bytes that are no memo give neither a policy nor a panic.
func FuzzUnresolved(f *testing.F) {
	for _, b := range [][]byte{nil, {}, {0}, {5, 'a'}, {1, 'a', 'm'}, {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := semel.Record{Result: slices.Clone(b)}
		if u := r.Unresolved(); len(u.Policy)+len(u.Memo) > len(b) {
			t.Errorf("%v gave %q and %q", b, u.Policy, u.Memo)
		}
	})
}

// Resolve recognises its own write after a lost answer, and tells who was quicker.
func TestResolveAfterLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, lost := range []string{"answers", "requests"} {
			store := &faulty{Store: memory.New(memory.Options{})}
			g := newGuard(t, store)
			a := ask(t, semel.Policy{})
			claim, _ := begin(t, g, a)
			if err := claim.Doubt(); err != nil {
				t.Fatal(err)
			}
			left := 3
			lose := func(*semel.Record) error {
				if left--; left >= 0 {
					return errLost
				}
				return nil
			}
			if lost == "answers" {
				store.after = lose
			} else {
				store.before = lose
			}
			s := semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte("r")}, Who: "anna", Why: "I looked"}
			record, err := g.Resolve(t.Context(), claim.Digest(), s, nil)
			if err != nil || record.State != semel.Done || string(record.Result) != "r" || left >= 0 {
				t.Errorf("%s lost: %v %q, %v", lost, record.State, record.Result, err)
			}
			s.Who = "bo"
			record, err = g.Resolve(t.Context(), claim.Digest(), s, nil)
			if !errors.Is(err, semel.ErrSettled) || record.Owner != "anna: I looked" {
				t.Errorf("the second one: %q, %v", record.Owner, err)
			}
		}
	})
}

// Two settle at the same moment: the later one is told so, with the other's word.
func TestResolveMeetsAnother(t *testing.T) {
	store := &faulty{Store: memory.New(memory.Options{})}
	g := newGuard(t, store)
	claim, _ := begin(t, g, ask(t, semel.Policy{}))
	if err := claim.Doubt(); err != nil {
		t.Fatal(err)
	}
	s := semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte("r")}, Who: "anna", Why: "I looked"}
	store.before = func(*semel.Record) error { // another has looked at the same version
		store.before = nil
		_, err := g.Resolve(t.Context(), claim.Digest(), semel.Settlement{State: semel.Released, Who: "bo", Why: "so did I"}, nil)
		return err
	}
	record, err := g.Resolve(t.Context(), claim.Digest(), s, nil)
	if !errors.Is(err, semel.ErrSettled) || record.State != semel.Released || record.Owner != "bo: so did I" {
		t.Errorf("the later one: %v of %q, %v; want ErrSettled and the earlier one's word", record.State, record.Owner, err)
	}
}
