package available_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

// kept is a cache of this process.
type kept struct{ m sync.Map }

func (c *kept) Get(_ context.Context, d semel.Digest) (semel.Record, bool, error) {
	r, ok := c.m.Load(d)
	if !ok {
		return semel.Record{}, false, nil
	}
	return r.(semel.Record), true, nil
}

func (c *kept) Put(_ context.Context, r semel.Record, _ time.Duration) error {
	c.m.Store(r.Digest, r)
	return nil
}

func (*kept) Prompt() {}

// TestBehindACache: in an outage, finished keys are replayed from the cache and
// do not run again; new keys run locally; both are flagged, and neither is
// afterwards.
func TestBehindACache(t *testing.T) {
	p := newProcess(t, memory.New(memory.Options{}), available.Options{})
	s, err := tiered.New(p.Store, tiered.Options{Caches: []tiered.Cache{new(kept)}})
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, s)
	runs := map[string]int{}
	do := func(id string) semel.Answer {
		t.Helper()
		a, err := g.Do(t.Context(), ask(t, id), func(context.Context) (semel.Result, error) {
			runs[id]++
			return semel.Result{Code: 201, Data: []byte("receipt of " + id)}, nil
		})
		if err != nil || string(a.Data) != "receipt of "+id {
			t.Fatalf("%s: %+v, %v", id, a, err)
		}
		return a
	}
	do("old")
	p.way.set(true)
	for _, id := range []string{"a", "b", "c", "d"} { // until the main store is taken to be down
		if a := do(id); !a.Unconfirmed || a.Replayed {
			t.Errorf("a new key: %+v", a)
		}
		if a := do("old"); !a.Unconfirmed || !a.Replayed {
			t.Errorf("a finished key: %+v", a)
		}
		if a := do(id); !a.Unconfirmed || !a.Replayed {
			t.Errorf("a duplicate: %+v", a)
		}
	}
	p.way.set(false)
	p.reconciled(t)
	for _, id := range []string{"a", "old"} {
		settled(t, id+" is not flagged any more", func() bool { return !do(id).Unconfirmed })
	}
	for id, n := range runs {
		if n != 1 {
			t.Errorf("%s ran %d times", id, n)
		}
	}
	if len(p.told()) != 0 {
		t.Errorf("conflicts: %+v", p.told())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkInsert(b *testing.B) {
	for name, wrap := range map[string]func(s semel.Store) semel.Store{
		"bare": func(s semel.Store) semel.Store { return s },
		"available": func(s semel.Store) semel.Store {
			p, err := available.New(s, available.Options{Local: memory.New(memory.Options{})})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = p.Close(context.Background()) })
			return p
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := wrap(memory.New(memory.Options{}))
			var n nonces
			next := n.pending("k")
			write(b, s, semel.Version{}, next)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.CompareAndSwap(b.Context(), semel.Version{}, next); err == nil {
					b.Fatal("no conflict")
				}
			}
		})
	}
}
