package tiered_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

func TestADuplicateCostsTheDurableStoreNothing(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}}})
	want := finish(t, s, "k")
	before := database.count()
	for range 10 {
		if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending("k")); err == nil || r.Record.Nonce != want.Nonce || r.Unconfirmed {
			t.Fatalf("got %+v, %v", r, err)
		}
		if r, err := s.Get(t.Context(), want.Digest); err != nil || r.Record.Nonce != want.Nonce {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	if n := database.count() - before; n != 0 {
		t.Errorf("the durable store was asked %d times", n)
	}
	if hits := s.Stats().Tiers[0].Hits; hits != 20 {
		t.Errorf("%d hits, want 20", hits)
	}
}

func TestWhatAFartherTierHasIsPutIntoTheNearer(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	nearest, second, far := &near{}, &shared{}, &shared{}
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{nearest, second, far}})
	want := finish(t, s, "k")
	settled(t, "the record is in each cache", func() bool {
		return len(nearest.all()) == 1 && len(second.all()) == 1 && len(far.all()) == 1
	})
	nearest.flush()
	second.flush()
	_, farPuts := far.counts()
	before := database.count()
	if r, err := s.Get(t.Context(), want.Digest); err != nil || r.Record.Nonce != want.Nonce {
		t.Fatalf("got %+v, %v", r, err)
	}
	settled(t, "the nearer caches have it again", func() bool { return len(nearest.all()) == 1 && len(second.all()) == 1 })
	if _, puts := far.counts(); puts != farPuts {
		t.Errorf("it was put back into the cache that it came from")
	}
	if database.count() != before {
		t.Error("the durable store was asked")
	}
	far.flush()
	second.flush()
	nearest.flush()
	if _, err := s.Get(t.Context(), want.Digest); err != nil || database.count() != before+1 || len(nearest.all()) != 1 {
		t.Errorf("a record of the durable store was not put into the nearest (%v)", err)
	}
}

// hanging never answers until it is released, whatever its context says.
type hanging struct {
	release chan struct{}
	calls   atomic.Int64
}

func (h *hanging) Get(context.Context, semel.Digest) (semel.Record, bool, error) {
	h.calls.Add(1)
	<-h.release
	return semel.Record{}, false, nil
}

func (h *hanging) Put(context.Context, semel.Record, time.Duration) error {
	h.calls.Add(1)
	<-h.release
	return nil
}

func TestACacheThatHangsIsLeftAlone(t *testing.T) {
	database := memory.New(memory.Options{})
	h := &hanging{release: make(chan struct{})}
	s, err := tiered.New(database, tiered.Options{Caches: []tiered.Cache{h}, CacheTimeout: time.Millisecond, CacheRest: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	want := finish(t, s, "k")
	for range 1000 {
		if r, err := s.Get(t.Context(), want.Digest); err != nil || r.Record.Nonce != want.Nonce {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	// Three failures in a row, and what was under way meanwhile beside them.
	if n := h.calls.Load(); n > 3+9 {
		t.Errorf("a cache that hangs was called %d times", n)
	}
	if st := s.Stats().Tiers[0]; st.Errors < 3 || st.Skipped < 900 {
		t.Errorf("counted %+v", st)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "hang") {
		t.Errorf("Close told %v of calls that hang", err)
	}
	close(h.release)
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestACacheThatIsWellAgainIsUsedAgain(t *testing.T) {
	database := breakable(memory.New(memory.Options{}))
	inner := &shared{}
	var ill atomic.Bool
	var asked atomic.Int64
	c := switched{inner, func() bool { asked.Add(1); return ill.Load() }}
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{c}, CacheRest: 2 * time.Millisecond})
	want := finish(t, s, "k")
	settled(t, "the record is in the cache", func() bool { return len(inner.all()) == 1 })
	ill.Store(true)
	for range 100 {
		if _, err := s.Get(t.Context(), want.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if s.Stats().Tiers[0].Skipped == 0 {
		t.Error("the cache did not rest")
	}
	ill.Store(false)
	hits := s.Stats().Tiers[0].Hits
	settled(t, "the cache answers again", func() bool {
		if _, err := s.Get(t.Context(), want.Digest); err != nil {
			t.Fatal(err)
		}
		return s.Stats().Tiers[0].Hits > hits+10
	})
}

// switched fails while ill says so.
type switched struct {
	*shared
	ill func() bool
}

func (c switched) Get(ctx context.Context, d semel.Digest) (semel.Record, bool, error) {
	if c.ill() {
		return semel.Record{}, false, errCache
	}
	return c.shared.Get(ctx, d)
}

func (c switched) Put(ctx context.Context, r semel.Record, ttl time.Duration) error {
	if c.ill() {
		return errCache
	}
	return c.shared.Put(ctx, r, ttl)
}

func TestFillsAreBoundedAndCloseWaitsForThem(t *testing.T) {
	for name, o := range map[string]tiered.Options{"records": {FillQueue: 16}, "bytes": {FillBytes: 200}} {
		t.Run(name, func(t *testing.T) {
			h := &hanging{release: make(chan struct{})}
			o.Caches, o.CacheTimeout = []tiered.Cache{h}, time.Minute
			database := memory.New(memory.Options{})
			var keys []semel.Record
			for i := range 100 {
				keys = append(keys, finish(t, database, string(rune('A'+i))))
			}
			s, err := tiered.New(database, o)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range keys { // completed again over themselves: no read of the cache
				write(t, s, r.Version, done(r, "receipt"))
			}
			dropped := s.Stats().Tiers[0].Dropped
			if dropped < 60 || dropped == 100 {
				t.Errorf("%d of 100 fills were dropped", dropped)
			}
			close(h.release)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if st := s.Stats().Tiers[0]; st.Filled+st.Dropped != 100 {
				t.Errorf("after Close: %d filled and %d dropped of 100", st.Filled, st.Dropped)
			}
			write(t, s, semel.Version{}, done(pending("after"), "receipt"))
		})
	}
}

func TestTheRoomOfFillsIsUsedAgain(t *testing.T) {
	database, far := memory.New(memory.Options{}), &shared{}
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{far}, FillBytes: 100, CacheTimeout: time.Minute})
	for i := range 50 {
		finish(t, s, string(rune('A'+i))) // 12 bytes each
		settled(t, "the record is in the cache", func() bool { return len(far.all()) == i+1 })
	}
}

func TestABatchIsCachedToo(t *testing.T) {
	database, nearest := breakable(memory.New(memory.Options{})), &near{}
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{nearest}})
	claim := write(t, s, semel.Version{}, pending("k"))
	finished := finish(t, s, "finished")
	nearest.flush()
	out := s.SwapMany(t.Context(), []semel.Swap{{Old: claim.Version, Next: done(claim, "receipt")}, {Next: pending("finished")}})
	if out[0].Err != nil || !errors.Is(out[1].Err, semel.ErrConflict) || out[1].Reading.Record.Nonce != finished.Nonce {
		t.Fatalf("got %+v", out)
	}
	before := database.count()
	out = s.SwapMany(t.Context(), []semel.Swap{{Next: pending("k")}, {Next: pending("finished")}})
	if !errors.Is(out[0].Err, semel.ErrConflict) || !errors.Is(out[1].Err, semel.ErrConflict) || database.count() != before {
		t.Errorf("got %v and %v by %d calls of the durable store; want two conflicts by none", out[0].Err, out[1].Err, database.count()-before)
	}
}

// No copy's age can be told before the durable store has told its time.
func TestWithoutTheTimeTheDurableStoreIsAsked(t *testing.T) {
	database, far := breakable(memory.New(memory.Options{})), &shared{}
	want := finish(t, database, "k")
	if err := far.Put(t.Context(), want, time.Hour); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{far}})
	for i, calls := range []int{1, 0, 0} {
		before := database.count()
		if r, err := s.Get(t.Context(), want.Digest); err != nil || r.Record.Nonce != want.Nonce || database.count()-before != calls {
			t.Errorf("read %d: %v after %d calls of the durable store, want %d", i, err, database.count()-before, calls)
		}
	}
}

// A durable store whose answer binds one process alone gives nothing to keep.
// It tells that the authoritative store is down, and flags copies as well.
func TestWhatIsUnconfirmedIsNotCached(t *testing.T) {
	nearest := &near{}
	behind := &unconfirmed{Store: memory.New(memory.Options{})}
	s := newStore(t, behind, tiered.Options{Caches: []tiered.Cache{nearest}})
	want := finish(t, s, "confirmed")
	flagged := func() bool {
		t.Helper()
		r, err := s.Get(t.Context(), want.Digest)
		if err != nil || r.Record.Nonce != want.Nonce {
			t.Fatalf("got %+v, %v", r, err)
		}
		return r.Unconfirmed
	}
	if flagged() {
		t.Error("a copy is flagged while the store is up")
	}
	behind.down.Store(true)
	finish(t, s, "k")
	if n := len(nearest.all()); n != 1 {
		t.Errorf("%d records were cached, want the confirmed one", n)
	}
	if !flagged() {
		t.Error("a copy is not flagged while the store behind goes on by itself")
	}
}

type unconfirmed struct {
	semel.Store
	down atomic.Bool
}

func (u *unconfirmed) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := u.Store.CompareAndSwap(ctx, old, next)
	r.Unconfirmed = u.down.Load()
	return r, err
}

func (u *unconfirmed) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	r, err := u.Store.Get(ctx, d)
	r.Unconfirmed = u.down.Load()
	return r, err
}

func TestBadOptions(t *testing.T) {
	database, c := memory.New(memory.Options{}), &near{}
	for _, bad := range []struct {
		durable semel.Store
		options tiered.Options
		want    string
	}{
		{nil, tiered.Options{Caches: []tiered.Cache{c}}, "a durable store is needed"},
		{database, tiered.Options{}, "Options.Caches is empty"},
		{database, tiered.Options{Caches: []tiered.Cache{c, nil}}, "Options.Caches[1] is nil"},
		{database, tiered.Options{Caches: []tiered.Cache{c}, CacheTimeout: -1}, "Options.CacheTimeout is -1ns"},
		{database, tiered.Options{Caches: []tiered.Cache{c}, CacheRest: -time.Second}, "Options.CacheRest is -1s"},
		{database, tiered.Options{Caches: []tiered.Cache{c}, Margin: -time.Second}, "Options.Margin is -1s"},
		{database, tiered.Options{Caches: []tiered.Cache{c}, FillQueue: -1}, "FillQueue is -1"},
		{database, tiered.Options{Caches: []tiered.Cache{c}, FillBytes: -1}, "FillBytes -1"},
	} {
		if s, err := tiered.New(bad.durable, bad.options); err == nil || s != nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("New gave %v; want an error with %q", err, bad.want)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	s := newStore(b, memory.New(memory.Options{}), tiered.Options{Caches: []tiered.Cache{&near{}}})
	want := finish(b, s, "k")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), want.Digest); err != nil {
			b.Fatal(err)
		}
	}
}
