package tiered_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
	"github.com/semelhq/semel/store/tiered"
)

const has = storetest.Batches | storetest.Sweeps | storetest.Lists

// hard are options under which the caches are used whenever they may be.
func hard(now func() time.Time, caches ...tiered.Cache) tiered.Options {
	return tiered.Options{Caches: caches, Now: now, Margin: 1, CacheTimeout: 2 * time.Millisecond, CacheRest: time.Millisecond}
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{Has: has, Open: func(t testing.TB, at storetest.Place) semel.Store {
		o := hard(at.Now, &near{}, &shared{})
		o.CacheTimeout = time.Second
		s, err := tiered.New(memory.New(memory.Options{Now: at.Now}), o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
}

func TestStoreWithTheProcessClock(t *testing.T) {
	storetest.Run(t, storetest.Maker{Has: has, RealTime: true, Open: func(t testing.TB, _ storetest.Place) semel.Store {
		s, err := tiered.New(memory.New(memory.Options{}), hard(nil, &near{}, &shared{}))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
}

// TestStoreWithWickedCaches: whatever a cache does, the store does what a store
// does.
func TestStoreWithWickedCaches(t *testing.T) {
	var seed atomic.Uint64
	for name, caches := range map[string]func() []tiered.Cache{
		"near": func() []tiered.Cache { return []tiered.Cache{promptly{newWicked(seed.Add(1))}} },
		"far":  func() []tiered.Cache { return []tiered.Cache{newWicked(seed.Add(1))} },
		"both": func() []tiered.Cache {
			return []tiered.Cache{promptly{newWicked(seed.Add(1))}, newWicked(seed.Add(1)), &shared{}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Maker{
				Has: has,
				Open: func(t testing.TB, at storetest.Place) semel.Store {
					s, err := tiered.New(memory.New(memory.Options{Now: at.Now}), hard(at.Now, caches()...))
					if err != nil {
						t.Fatal(err)
					}
					return s
				},
			})
		})
	}
}

// TestStoreInFrontOfBatch: the usual stack, and one with group commit outside.
func TestStoreInFrontOfBatch(t *testing.T) {
	storetest.Run(t, storetest.Maker{Has: has, Open: func(t testing.TB, at storetest.Place) semel.Store {
		inner := batch.New(memory.New(memory.Options{Now: at.Now}), batch.Options{})
		s, err := tiered.New(inner, hard(at.Now, &near{}, &shared{}))
		if err != nil {
			t.Fatal(err)
		}
		outer := batch.New(s, batch.Options{})
		t.Cleanup(func() {
			for _, end := range []func() error{s.Close, inner.Close} {
				if err := end(); err != nil {
					t.Error(err)
				}
			}
		})
		return outer
	}})
}
