package otter_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
	"github.com/semelhq/semel/store/tiered"
)

func newCache(t testing.TB, maxBytes int) *otter.Cache {
	t.Helper()
	c, err := otter.New(otter.Options{MaxBytes: maxBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has: storetest.Batches | storetest.Sweeps | storetest.Lists,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			s, err := tiered.New(memory.New(memory.Options{Now: at.Now}), tiered.Options{
				Caches: []tiered.Cache{newCache(t, 2<<20)}, Now: at.Now, Margin: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	})
}

func record(n uint64, result []byte) semel.Record {
	r := semel.Record{
		State: semel.Done, Version: semel.Version{Epoch: 1, Counter: n}, Attempt: 1, Code: 201, Result: result,
		WrittenAt: time.Now(), TTL: 72 * time.Hour, Replay: 24 * time.Hour, Owner: "host-1:4711",
	}
	binary.BigEndian.PutUint64(r.Digest[:], n*0x9E3779B97F4A7C15)
	return r
}

func put(t testing.TB, c *otter.Cache, r semel.Record, ttl time.Duration) {
	t.Helper()
	if err := c.Put(context.Background(), r, ttl); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, c *otter.Cache, d semel.Digest) (semel.Record, bool) {
	t.Helper()
	r, ok, err := c.Get(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	return r, ok
}

func TestWhatWasPutIsThereAtOnce(t *testing.T) {
	c := newCache(t, 64<<20)
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(5000) {
				r := record(w<<32+i, []byte("receipt"))
				put(t, c, r, time.Hour)
				if got, ok := get(t, c, r.Digest); !ok || got.Version != r.Version || &got.Result[0] != &r.Result[0] {
					t.Errorf("record %d of writer %d was not there, or was copied", i, w)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestARecordTakesThePlaceOfAnOlderOne(t *testing.T) {
	c := newCache(t, 8<<20)
	older, newer := record(1, []byte("older")), record(1, []byte("newer"))
	newer.Version.Counter = 2
	put(t, c, older, time.Hour)
	put(t, c, newer, time.Hour)
	if got, ok := get(t, c, older.Digest); !ok || got.Version != newer.Version {
		t.Errorf("got %v, %t; want the newer", got.Version, ok)
	}
	newer.Result = make([]byte, 2<<20) // too large for this cache
	put(t, c, newer, time.Hour)
	if got, ok := get(t, c, older.Digest); ok {
		t.Errorf("got version %v after one that is too large; want nothing", got.Version)
	}
}

func TestARecordEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := otter.New(otter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		short, long := record(1, nil), record(2, nil)
		put(t, c, short, time.Minute)
		put(t, c, long, time.Hour)
		time.Sleep(time.Minute - time.Second)
		if _, ok := get(t, c, short.Digest); !ok {
			t.Error("gone before its time")
		}
		time.Sleep(2 * time.Second)
		if _, ok := get(t, c, short.Digest); ok {
			t.Error("there after its time")
		}
		if _, ok := get(t, c, long.Digest); !ok {
			t.Error("another record's time ended it")
		}
		put(t, c, long, 0)
		if _, ok := get(t, c, long.Digest); ok {
			t.Error("there for no time")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestTheBoundHolds puts a million records, of results that are small, large
// and cut out of larger arrays, and measures the memory that is in use.
func TestTheBoundHolds(t *testing.T) {
	const maxBytes = 32 << 20
	puts := uint64(1_000_000)
	if testing.Short() {
		puts /= 10
	}
	before := inUse()
	c := newCache(t, maxBytes)
	for i := range puts {
		size := 150
		if i%100 == 0 {
			size = 32 << 10
		}
		put(t, c, record(i, make([]byte, size, size+size/2)), time.Hour)
	}
	var used uint64
	for end := time.Now().Add(10 * time.Second); ; { // the cache's housekeeping may still be freeing
		after := inUse()
		if used = after - min(before, after); used <= maxBytes || time.Now().After(end) {
			break
		}
	}
	records, bytes := c.Size()
	t.Logf("%d puts: %d records, %d MiB by weight, %.1f MiB of memory; the bound is %d MiB",
		puts, records, bytes>>20, float64(used)/(1<<20), maxBytes>>20)
	if used > maxBytes {
		t.Errorf("%d bytes of memory are in use, and %d are allowed", used, maxBytes)
	}
	if bytes > maxBytes || records < 1000 {
		t.Errorf("%d records of %d bytes; the bound is %d", records, bytes, maxBytes)
	}
	last := record(puts, []byte("receipt"))
	put(t, c, last, time.Hour)
	if _, ok := get(t, c, last.Digest); !ok {
		t.Error("a full cache does not take what comes new")
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // a second one, for what the first only cleared the way to
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestBadOptions(t *testing.T) {
	for _, n := range []int{-1, 1, 1<<20 - 1} {
		if c, err := otter.New(otter.Options{MaxBytes: n}); err == nil || c != nil || !strings.Contains(err.Error(), fmt.Sprintf("MaxBytes is %d", n)) {
			t.Errorf("MaxBytes %d: %v; want an error that names it", n, err)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	c := newCache(b, 0)
	r := record(1, []byte("receipt"))
	put(b, c, r, time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := c.Get(b.Context(), r.Digest); !ok {
			b.Fatal("a miss")
		}
	}
}

// BenchmarkReplay is a duplicate through a guard, its answer in the cache or
// in a store in memory.
func BenchmarkReplay(b *testing.B) {
	for _, cached := range []bool{true, false} {
		b.Run(fmt.Sprint("cached=", cached), func(b *testing.B) {
			var s semel.Store = memory.New(memory.Options{})
			if cached {
				t, err := tiered.New(s, tiered.Options{Caches: []tiered.Cache{newCache(b, 0)}})
				if err != nil {
					b.Fatal(err)
				}
				s = t
			}
			g, err := semel.NewGuard(s, semel.Options{})
			if err != nil {
				b.Fatal(err)
			}
			ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: "k"}}
			run := func(context.Context) (semel.Result, error) {
				return semel.Result{Code: 201, Data: []byte("receipt")}, nil
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Do(b.Context(), ask, run); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
