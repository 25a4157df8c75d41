package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

// counted is a store that counts its writes, and can be away, or lose its answers.
type counted struct {
	semel.Store
	swaps, lost atomic.Int64
	away        atomic.Bool
}

// CompareAndSwap is part of semel.Store.
func (c *counted) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	c.swaps.Add(1)
	if ctx.Err() != nil {
		return semel.Reading{}, ctx.Err()
	}
	if c.away.Load() {
		return semel.Reading{}, errors.New("the store is away")
	}
	r, err := c.Store.CompareAndSwap(ctx, old, next)
	if c.lost.Add(-1) >= 0 {
		return semel.Reading{}, errors.New("the answer was lost")
	}
	return r, err
}

// processes gives n quotas that share a store, as n processes have them.
func processes(t *testing.T, n int, o lifecycle.QuotaOptions) (*counted, []*lifecycle.Quota) {
	t.Helper()
	store := &counted{Store: memory.New(memory.Options{})}
	var quotas []*lifecycle.Quota
	for range n {
		guard, err := semel.NewGuard(store, semel.Options{Secret: []byte("the deployment's secret")})
		if err != nil {
			t.Fatal(err)
		}
		o.Shared = guard
		quotas = append(quotas, newQuota(t, o))
	}
	store.swaps.Store(0)
	return store, quotas
}

func TestQuotaSharedByProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, quotas := processes(t, 3, lifecycle.QuotaOptions{NewKeys: 1000, Per: time.Minute, Block: 10})
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		for window := range 3 {
			var in atomic.Int64
			var all sync.WaitGroup
			for i := range 3300 { // each process meets the end of it
				q := quotas[i%3]
				all.Go(func() { in.Add(int64(begun(t, q, "acme", 1))) })
			}
			all.Wait()
			if in.Load() != 1000 {
				t.Errorf("window %d: %d of 3,300 let in, want 1,000", window, in.Load())
			}
			swaps := store.swaps.Swap(0)
			if swaps > 250 { // a conflict for most blocks, since others were there meanwhile
				t.Errorf("window %d: %d writes for 1,500 new keys in blocks of 10", window, swaps)
			}
			for _, q := range quotas {
				begun(t, q, "acme", 1) // it may not have learnt yet that all is spent
			}
			store.swaps.Store(0)
			for _, q := range quotas {
				if wait, ok := q.Enter(t.Context(), "acme"); ok || wait != time.Minute {
					t.Errorf("over quota: let in %v, or wait %v, want the rest of the window, 1m", ok, wait)
				}
			}
			if n := store.swaps.Swap(0); n != 0 {
				t.Errorf("the store was written %d times for those over quota", n)
			}
			if in := begun(t, quotas[0], "other", 5); in != 5 {
				t.Errorf("%d of 5 of another tenant let in", in)
			}
			store.swaps.Store(0)
			time.Sleep(time.Minute)
		}
	})
}

// A duplicate gives back what it has borrowed, and not in another window.
func TestQuotaSharedDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, quotas := processes(t, 2, lifecycle.QuotaOptions{NewKeys: 10, Per: time.Minute, Block: 5})
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		enter := func(n int) (in int) {
			for i := range n {
				if _, ok := quotas[i%2].Enter(t.Context(), "acme"); ok {
					in++
				}
			}
			return in
		}
		leave := func(n int, fresh bool) {
			for i := range n {
				quotas[i%2].Leave("acme", fresh)
			}
		}
		for range 100 {
			if in := enter(10); in != 10 {
				t.Fatalf("%d of 10 duplicates let in", in)
			}
			leave(10, false)
		}
		if in := enter(20); in != 10 {
			t.Errorf("%d new keys let in, want 10", in)
		}
		leave(2, true)
		time.Sleep(time.Minute) // 8 are still in flight
		if in := enter(20); in != 10 {
			t.Errorf("%d new keys in the next window, want 10", in)
		}
		leave(8, false)
		if in := enter(20); in != 0 {
			t.Errorf("%d more, by what was borrowed in the window before", in)
		}
	})
}

// While the store is away each process goes on with its own share, which is entered
// when the store is back.
func TestQuotaSharedStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, quotas := processes(t, 2, lifecycle.QuotaOptions{NewKeys: 100, Per: time.Minute, Block: 10})
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		store.away.Store(true)
		for i, q := range quotas {
			if in := begun(t, q, "acme", 50); in != 10 {
				t.Errorf("process %d: %d by itself, want a tenth of 100", i, in)
			}
			if wait, ok := q.Enter(t.Context(), "acme"); ok || wait > time.Second || wait <= 0 {
				t.Errorf("let in %v, or wait %v: want the time until the store is asked again", ok, wait)
			}
		}
		if n := store.swaps.Swap(0); n != 2 {
			t.Errorf("a store that is away was asked %d times in a second, want once by each", n)
		}
		store.away.Store(false)
		time.Sleep(time.Second)
		in := 0
		for range 200 {
			for _, q := range quotas {
				in += begun(t, q, "acme", 1)
			}
		}
		if in > 80 || in < 70 { // the second process learns late what the first one owed
			t.Errorf("%d more when the store was back, want 80, since 20 were let in meanwhile", in)
		}
	})
}

func TestQuotaSharedStoreAwayNoneAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, quotas := processes(t, 1, lifecycle.QuotaOptions{NewKeys: 100, Per: time.Minute, Alone: -1})
		store.away.Store(true)
		if in := begun(t, quotas[0], "acme", 50); in != 0 {
			t.Errorf("%d by itself, and Alone says none", in)
		}
	})
}

// A block whose answer was lost is lost, and never used twice.
func TestQuotaSharedLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, quotas := processes(t, 2, lifecycle.QuotaOptions{NewKeys: 100, Per: time.Hour, Block: 10, Alone: -1})
		in := 0
		for i := range 30 {
			if i%5 == 0 {
				store.lost.Store(1)
			}
			in += begun(t, quotas[i%2], "acme", 7)
			time.Sleep(2 * time.Second)
		}
		if in > 100 || in < 30 {
			t.Errorf("%d let in, want at most 100", in)
		}
	})
}

// A request that is broken off while it waits for another's answer of the store
// leaves, and the others get theirs.
func TestQuotaSharedContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &hanging{Store: memory.New(memory.Options{})}
		guard, err := semel.NewGuard(slow, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		q := newQuota(t, lifecycle.QuotaOptions{NewKeys: 10, Per: time.Hour, Shared: guard, Alone: 3, InFlight: 5})
		slow.hang.Store(true)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		var in, out atomic.Int64
		var all sync.WaitGroup
		for i := range 20 {
			ctx := t.Context()
			if i%2 == 1 {
				ctx = ended
			}
			all.Go(func() {
				if _, ok := q.Enter(ctx, "acme"); ok {
					in.Add(1)
				} else {
					out.Add(1)
				}
			})
		}
		start := time.Now()
		all.Wait()
		if n := slow.calls.Load(); n != 1 {
			t.Errorf("the store was asked %d times by requests that came together, want once", n)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("they waited %v for a store that hangs, want 500ms", took)
		}
		if in.Load() > 3 || in.Load() == 0 {
			t.Errorf("%d let in without the store, want at most 3", in.Load())
		}
		for range in.Load() {
			q.Leave("acme", true)
		}
		slow.hang.Store(false)
		if _, ok := q.Enter(ended, "other"); !ok {
			t.Error("what one request asks of the store is for others as well, and does not end with it")
		}
		time.Sleep(2 * time.Second)
		if more := begun(t, q, "acme", 50); more != 10-int(in.Load()) {
			t.Errorf("%d let in after %d, want 10 in all", more, in.Load())
		}
	})
}

// hanging is a store that does not answer while it hangs.
type hanging struct {
	semel.Store
	hang  atomic.Bool
	calls atomic.Int64 // while it hangs
}

// CompareAndSwap is part of semel.Store.
func (h *hanging) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if ctx.Err() != nil {
		return semel.Reading{}, ctx.Err()
	}
	if h.hang.Load() {
		h.calls.Add(1)
		<-ctx.Done()
		return semel.Reading{}, ctx.Err()
	}
	return h.Store.CompareAndSwap(ctx, old, next)
}

// What a quota keeps in the store is forgotten by the sweep once its window is over.
func TestQuotaSharedIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, quotas := processes(t, 1, lifecycle.QuotaOptions{NewKeys: 10, Per: time.Minute})
		sweeper, lister := store.Store.(semel.Sweeper), store.Store.(semel.Lister)
		for i := range 50 {
			begun(t, quotas[0], fmt.Sprint("tenant-", i), 1)
		}
		time.Sleep(10 * time.Minute)
		if _, err := sweeper.Sweep(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
		left, err := lister.List(t.Context(), semel.Filter{Limit: 1000})
		if err != nil || len(left) > 1 { // the mark of the secret stays
			t.Errorf("%d records are left, %v", len(left), err)
		}
	})
}
