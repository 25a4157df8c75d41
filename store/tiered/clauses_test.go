package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
	"github.com/semelhq/semel/store/tiered"
)

// Each test here is named after a line of INVARIANTS, "Tiered".

func TestC1_GrantsComeFromTheDurableStoreOnly(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	nearest, far := &near{}, &shared{}
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{nearest, far}})
	finish(t, s, "tells the time")
	for _, state := range []semel.State{0, semel.Pending, semel.Released, semel.Done, 77} {
		next := pending(fmt.Sprint("k", state))
		lie := next // as if it were free, in every way that a record can say so
		lie.State, lie.Version, lie.WrittenAt = state, semel.Version{Epoch: 1, Counter: 99}, time.Now()
		if state == semel.Done {
			lie.Version.Epoch = 0
		}
		for _, c := range []*shared{&nearest.shared, far} {
			if err := c.Put(t.Context(), lie, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		before := database.count()
		database.set(true)
		if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next); !errors.Is(err, errDown) || r.Record.Held() {
			t.Errorf("state %v in the caches, durable store down: got %+v, %v; want its error", state, r, err)
		}
		database.set(false)
		write(t, s, semel.Version{}, next)
		if n := database.count() - before; n != 2 {
			t.Errorf("state %v: the durable store was asked %d times for two inserts", state, n)
		}
	}
}

func TestC2_CachesHoldFinishedAndDurableRecordsOnly(t *testing.T) {
	database := memory.New(memory.Options{})
	lose := map[int]bool{}
	faulty := &storetest.Faulty{Store: database}
	faulty.Before = func(_ context.Context, c storetest.Call) error {
		if lose[c.Number] {
			return errDown
		}
		return nil
	}
	nearest := &near{}
	s := newStore(t, faulty, tiered.Options{Caches: []tiered.Cache{nearest}})
	holds := func(want int) {
		t.Helper()
		all := nearest.all()
		if len(all) != want {
			t.Fatalf("the cache holds %d records, want %d", len(all), want)
		}
		for _, r := range all {
			if stored, err := database.Get(t.Context(), r.Digest); err != nil || r.State != semel.Done || stored.Record.Nonce != r.Nonce {
				t.Fatalf("the cache holds %v of %v, durable is %v, %v", r.State, r.Key, stored.Record.State, err)
			}
		}
	}
	claim := write(t, s, semel.Version{}, pending("k")) // call 1
	holds(0)
	renewed := claim
	renewed.Nonce[7]++
	claim = write(t, s, claim.Version, renewed) // 2
	holds(0)
	lose[3] = true
	if _, err := s.CompareAndSwap(t.Context(), claim.Version, done(claim, "receipt")); err == nil {
		t.Fatal("the request was not lost")
	}
	holds(0)
	end := write(t, s, claim.Version, done(claim, "receipt")) // 4
	holds(1)

	free := write(t, s, semel.Version{}, pending("free"))
	free.State, free.TTL = semel.Released, time.Hour
	write(t, s, free.Version, free)
	holds(1)
	nearest.flush()
	if _, err := s.Get(t.Context(), free.Digest); err != nil {
		t.Fatal(err)
	}
	holds(0)
	if r, err := s.Get(t.Context(), end.Digest); err != nil || r.Record.Nonce != end.Nonce {
		t.Fatalf("got %+v, %v", r, err)
	}
	holds(1) // what the durable store returned is durable
}

func TestC3_AbsenceIsNeverCached(t *testing.T) {
	database := memory.New(memory.Options{})
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}, &shared{}}})
	finish(t, s, "tells the time")
	next := pending("k")
	for range 3 {
		if r, err := s.Get(t.Context(), next.Digest); err != nil || r.Record.Held() {
			t.Fatalf("got %+v, %v; want nothing", r, err)
		}
	}
	want := finish(t, database, "k") // by another process
	if r, err := s.Get(t.Context(), next.Digest); err != nil || r.Record.Nonce != want.Nonce {
		t.Fatalf("got %+v, %v; want what another process wrote", r, err)
	}
	if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next); !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != want.Nonce {
		t.Fatalf("got %+v, %v; want a conflict", r, err)
	}
}

func TestC3_WhateverFailsIsAMiss(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	want := finish(t, database, "k")
	for name, get := range map[string]func(context.Context) (semel.Record, bool, error){
		"error":             func(context.Context) (semel.Record, bool, error) { return want, true, errCache },
		"timeout":           func(ctx context.Context) (semel.Record, bool, error) { <-ctx.Done(); return want, true, nil },
		"panic":             func(context.Context) (semel.Record, bool, error) { panic("nil map") },
		"another's record":  func(context.Context) (semel.Record, bool, error) { r := want; r.Digest[0]++; return r, true, nil },
		"the zero record":   func(context.Context) (semel.Record, bool, error) { return semel.Record{}, true, nil },
		"a record to come":  func(context.Context) (semel.Record, bool, error) { return later(want), true, nil },
		"a record long ago": func(context.Context) (semel.Record, bool, error) { return earlier(want), true, nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{getter(get)}})
			if _, err := s.Get(t.Context(), semel.Digest{}); err != nil { // tells the time
				t.Fatal(err)
			}
			before := database.count()
			r, err := s.Get(t.Context(), want.Digest)
			if err != nil || r.Record.Nonce != want.Nonce || !r.Record.WrittenAt.Equal(want.WrittenAt) || database.count() != before+1 {
				t.Errorf("got %+v, %v after %d calls of the durable store; want its record by one call", r, err, database.count()-before)
			}
		})
	}
}

func later(r semel.Record) semel.Record {
	r.WrittenAt = r.WrittenAt.Add(time.Hour)
	return r
}

func earlier(r semel.Record) semel.Record {
	r.WrittenAt = r.WrittenAt.Add(-25 * time.Hour)
	return r
}

// getter is a cache that only gives.
type getter func(context.Context) (semel.Record, bool, error)

func (g getter) Get(ctx context.Context, _ semel.Digest) (semel.Record, bool, error) { return g(ctx) }

func (getter) Put(context.Context, semel.Record, time.Duration) error { return nil }

func TestC4_ACopyEndsNoLaterThanTheRecord(t *testing.T) {
	for _, c := range []struct {
		name             string
		ttl, replay, end time.Duration
	}{
		{"the replay ends first", 72 * time.Hour, 24 * time.Hour, 24 * time.Hour},
		{"the retention ends first", time.Hour, 24 * time.Hour, time.Hour},
		{"no result is kept", 72 * time.Hour, 0, 72 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := newClock()
			database := breakable(memory.New(memory.Options{Now: at.now}))
			nearest := &near{}
			s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{nearest}, Now: at.now, Margin: time.Second})
			claim := write(t, s, semel.Version{}, pending("k"))
			next := done(claim, "receipt")
			next.TTL, next.Replay = c.ttl, c.replay
			want := write(t, s, claim.Version, next)
			if got := nearest.ttls[0]; got > c.end || got < c.end-2*time.Second {
				t.Errorf("put for %v, want %v less the margin", got, c.end)
			}
			asked := func(after time.Duration) int {
				before := database.count()
				at.move(want.WrittenAt.Add(after).Sub(at.now()))
				r, err := s.Get(t.Context(), want.Digest)
				if err != nil || r.Record.Nonce != want.Nonce || r.Now.After(at.now()) {
					t.Fatalf("got %+v, %v", r, err)
				}
				return database.count() - before
			}
			// The clock was last read long ago, so the slack has grown by a thousandth.
			if n := asked(c.end - c.end/900 - 2*time.Second); n != 0 {
				t.Errorf("the durable store was asked %d times before the copy's end", n)
			}
			for _, after := range []time.Duration{c.end - time.Second - c.end/2000, c.end - time.Second, c.end, c.end + time.Hour} {
				if n := asked(after); n != 1 {
					t.Errorf("%v before the end: asked %d times, want once", c.end-after, n)
				}
			}
		})
	}
}

func TestC4_TheDurableStoresClockDecides(t *testing.T) {
	at := newClock() // years from ours
	database := breakable(memory.New(memory.Options{Now: at.now}))
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}}})
	want := finish(t, s, "k")
	before := database.count()
	if r, err := s.Get(t.Context(), want.Digest); err != nil || r.Now.Sub(at.now()).Abs() > time.Minute || database.count() != before {
		t.Fatalf("Now %v, %v after %d calls; want the store's %v and no call", r.Now, err, database.count()-before, at.now())
	}
	at.move(48 * time.Hour) // another machine took over
	if _, err := s.Get(t.Context(), semel.Digest{}); err != nil {
		t.Fatal(err)
	}
	before = database.count()
	if _, err := s.Get(t.Context(), want.Digest); err != nil || database.count() != before+1 {
		t.Fatalf("the copy is used after its end by the durable store's clock (%v)", err)
	}
}

// A store may have looked at its clock long before its answer came.
func TestC4_ASlowAnswerTellsAnOldTime(t *testing.T) {
	for _, verb := range []string{"get", "swap"} {
		at := newClock()
		database := breakable(memory.New(memory.Options{Now: at.now}))
		slow := false
		database.After = func(context.Context, storetest.Call) error {
			if slow {
				at.move(25 * time.Hour)
			}
			return nil
		}
		s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}}, Now: at.now})
		want := finish(t, s, "k")
		slow = true
		if verb == "swap" {
			write(t, s, semel.Version{}, pending("other"))
		} else if _, err := s.Get(t.Context(), semel.Digest{}); err != nil {
			t.Fatal(err)
		}
		slow = false
		before := database.count()
		if _, err := s.Get(t.Context(), want.Digest); err != nil || database.count() != before+1 {
			t.Errorf("%s: the copy is used after its end (%v)", verb, err)
		}
	}
}

func TestC6_DurableStoreDown(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}, &shared{}}})
	g, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := semel.Policy{Wait: time.Millisecond, ClaimWithin: 20 * time.Millisecond}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	do := func(id string) (semel.Answer, error) {
		ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: id}, Policy: &p}
		return g.Do(t.Context(), ask, func(context.Context) (semel.Result, error) {
			runs++
			return semel.Result{Code: 201, Data: []byte("receipt of " + id)}, nil
		})
	}
	if a, err := do("old"); err != nil || a.Unconfirmed {
		t.Fatalf("got %+v, %v", a, err)
	}
	database.set(true)
	if a, err := do("new"); !errors.Is(err, semel.ErrUnavailable) {
		t.Fatalf("a new key while the durable store is down: %+v, %v; want ErrUnavailable, HTTP 503", a, err)
	}
	for range 5 {
		a, err := do("old")
		if err != nil || !a.Replayed || !a.Unconfirmed || string(a.Data) != "receipt of old" {
			t.Fatalf("a finished key while the durable store is down: %+v, %v; want its replay, flagged", a, err)
		}
	}
	database.set(false)
	// All further answers come from the cache, and the flag goes all the same.
	settled(t, "the flag is gone", func() bool {
		a, err := do("old")
		if err != nil || !a.Replayed {
			t.Fatalf("got %+v, %v", a, err)
		}
		return !a.Unconfirmed
	})
	if a, err := do("new"); err != nil || a.Replayed {
		t.Fatalf("a new key after the outage: %+v, %v", a, err)
	}
	if runs != 2 {
		t.Errorf("%d runs for two keys", runs)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Nobody asks for anything but what is cached, and the flag goes all the same.
func TestC6_TheFlagGoesWhenTheDurableStoreIsBack(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}}})
	want := finish(t, s, "k")
	database.set(true)
	if _, err := s.Get(t.Context(), semel.Digest{}); !errors.Is(err, errDown) {
		t.Fatalf("got %v", err)
	}
	get := func() semel.Reading {
		r, err := s.Get(t.Context(), want.Digest)
		if err != nil || r.Record.Nonce != want.Nonce {
			t.Fatalf("got %+v, %v", r, err)
		}
		return r
	}
	if !get().Unconfirmed || !s.Stats().Down {
		t.Fatal("not flagged")
	}
	database.set(false)
	settled(t, "the flag is gone", func() bool { return !get().Unconfirmed })
}
