package batch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
)

// target is a memory store whose commits take a second, and which writes down
// how many swaps came together.
type target struct {
	*memory.Store
	before func(ctx context.Context, swaps []semel.Swap) []semel.Swapped // nil: go on

	mu    sync.Mutex
	calls []string
}

func newTarget() *target { return &target{Store: memory.New(memory.Options{})} }

func (s *target) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *target) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	s.note("alone")
	time.Sleep(time.Second)
	return s.Store.CompareAndSwap(ctx, old, next)
}

func (s *target) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	s.note(fmt.Sprint(len(swaps)))
	if s.before != nil {
		if out := s.before(ctx, swaps); out != nil {
			return out
		}
	}
	time.Sleep(time.Second)
	return s.Store.SwapMany(ctx, swaps)
}

func (s *target) want(t *testing.T, calls string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.calls, " "); got != calls {
		t.Errorf("commits: got %q, want %q", got, calls)
	}
}

func record(n int) semel.Record {
	return semel.Record{Digest: semel.Digest{byte(n), byte(n >> 8), 1}, State: semel.Done, Attempt: n}
}

// bubble runs fn with a batch over a target, on a fake clock. The end of the
// bubble waits for every goroutine, so a worker that is left over fails the test.
func bubble(t *testing.T, o batch.Options, fn func(t *testing.T, inner *target, s *batch.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		inner := newTarget()
		s := batch.New(inner, o)
		fn(t, inner, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// occupy begins a commit of one and returns while it is under way.
func occupy(t *testing.T, s *batch.Store, wg *sync.WaitGroup) {
	t.Helper()
	wg.Go(func() {
		if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(9999)); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

func TestLoneCallerGoesAtOnceAndAlone(t *testing.T) {
	bubble(t, batch.Options{}, func(t *testing.T, inner *target, s *batch.Store) {
		start := time.Now()
		for i := range 3 {
			if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(i)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("three commits of 1s took %v", took)
		}
		inner.want(t, "alone alone alone")
	})
}

func TestArrivalsShareTheNextCommit(t *testing.T) {
	for _, c := range []struct {
		o     batch.Options
		bytes int
		calls string
	}{
		{batch.Options{}, 0, "alone 10"},
		{batch.Options{MaxBatch: 4}, 0, "alone 4 4 2"},
		{batch.Options{MaxBytes: 25}, 10, "alone 2 2 2 2 2"},
		{batch.Options{MaxBytes: 5}, 10, "alone" + strings.Repeat(" 1", 10)},
	} {
		bubble(t, c.o, func(t *testing.T, inner *target, s *batch.Store) {
			var wg sync.WaitGroup
			occupy(t, s, &wg)
			for i := range 10 {
				wg.Go(func() {
					next := record(i)
					next.Result = make([]byte, c.bytes)
					r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
					if err != nil || r.Record.Attempt != i {
						t.Errorf("swap %d got the answer of %d, %v", i, r.Record.Attempt, err)
					}
				})
			}
			wg.Wait()
			inner.want(t, c.calls)
		})
	}
}

func TestSeveralWorkersCommitAtOnce(t *testing.T) {
	bubble(t, batch.Options{Workers: 2, MaxBatch: 5}, func(t *testing.T, inner *target, s *batch.Store) {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(i)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v, want two commits one after the other, two at a time", took)
		}
		inner.want(t, "alone alone 5 5")
	})
}

func TestLeavingTheQueueWritesNothing(t *testing.T) {
	bubble(t, batch.Options{}, func(t *testing.T, inner *target, s *batch.Store) {
		var wg sync.WaitGroup
		occupy(t, s, &wg)
		for i := range 3 {
			wg.Go(func() {
				ctx := t.Context()
				if i == 1 {
					c, cancel := context.WithTimeout(ctx, time.Second/2)
					defer cancel()
					ctx = c
				}
				start := time.Now()
				_, err := s.CompareAndSwap(ctx, semel.Version{}, record(i))
				switch {
				case i != 1 && err != nil:
					t.Error(err)
				case i == 1 && (!errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second/2):
					t.Errorf("after %v: %v", time.Since(start), err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		inner.want(t, "alone 2")
		if r, err := s.Get(t.Context(), record(1).Digest); err != nil || r.Record.Held() {
			t.Errorf("the swap that left was written: %+v, %v", r.Record, err)
		}
	})
}

func TestLeavingACommitLetsItGoOn(t *testing.T) {
	bubble(t, batch.Options{Timeout: 7 * time.Second}, func(t *testing.T, inner *target, s *batch.Store) {
		inner.before = func(ctx context.Context, _ []semel.Swap) []semel.Swapped {
			end, ok := ctx.Deadline()
			if in := time.Until(end); !ok || in != 7*time.Second {
				t.Errorf("the commit has a deadline in %v, want its own, in 7s", in)
			}
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				t.Error("a caller that left cancelled the commit of the others")
			}
			return nil
		}
		var wg sync.WaitGroup
		occupy(t, s, &wg)
		for i := range 2 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(3-2*i)*1200*time.Millisecond)
				defer cancel()
				_, err := s.CompareAndSwap(ctx, semel.Version{}, record(i))
				if i == 0 && err != nil || i == 1 && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("swap %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if r, err := s.Get(t.Context(), record(1).Digest); err != nil || !r.Record.Held() {
			t.Errorf("the swap that was under way was not written: %v", err)
		}
	})
}

func TestFaultsReachEverySwap(t *testing.T) {
	broken := errors.New("the disk is on fire")
	for _, c := range []struct {
		name, says string
		before     func(ctx context.Context, swaps []semel.Swap) []semel.Swapped
	}{
		{"panic", "panicked", func(context.Context, []semel.Swap) []semel.Swapped { panic("boom") }},
		{"error", broken.Error(), func(_ context.Context, swaps []semel.Swap) []semel.Swapped {
			out := make([]semel.Swapped, len(swaps))
			for i := range out {
				out[i].Err = broken
			}
			return out
		}},
		{"too few answers", "2 answers to 3", func(_ context.Context, swaps []semel.Swap) []semel.Swapped { return make([]semel.Swapped, 2) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, batch.Options{}, func(t *testing.T, inner *target, s *batch.Store) {
				inner.before = c.before
				var wg sync.WaitGroup
				occupy(t, s, &wg)
				for i := range 3 {
					wg.Go(func() {
						_, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(i))
						if err == nil || !strings.Contains(err.Error(), c.says) {
							t.Errorf("got %v, want an error that says %q", err, c.says)
						}
					})
				}
				wg.Wait()
				inner.before = nil
				if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(5)); err != nil {
					t.Errorf("the next swap: %v", err)
				}
			})
		})
	}
}

func TestOneKeySeveralTimesInOneCommit(t *testing.T) {
	bubble(t, batch.Options{}, func(t *testing.T, inner *target, s *batch.Store) {
		var wg sync.WaitGroup
		occupy(t, s, &wg)
		won := 0
		var mu sync.Mutex
		for i := range 20 {
			wg.Go(func() {
				next := record(1)
				next.Attempt = i
				r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !errors.Is(err, semel.ErrConflict) || !r.Record.Held() {
					t.Errorf("a loser got %+v, %v", r.Record, err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d inserts of one key succeeded", won)
		}
		inner.want(t, "alone 20")
	})
}

func TestCloseSendsWhatIsQueuedAndRefusesTheRest(t *testing.T) {
	bubble(t, batch.Options{}, func(t *testing.T, inner *target, s *batch.Store) {
		var wg sync.WaitGroup
		occupy(t, s, &wg)
		for i := range 3 {
			wg.Go(func() {
				if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(i)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("closing took %v, want 2s: both commits", took)
		}
		wg.Wait()
		if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, record(7)); err == nil {
			t.Error("a closed store takes swaps")
		}
		inner.want(t, "alone 3")
	})
}

func TestLoneSwapAllocatesNothing(t *testing.T) {
	inner := memory.New(memory.Options{})
	s := batch.New(inner, batch.Options{})
	defer s.Close()
	r := record(1)
	held, err := s.CompareAndSwap(t.Context(), semel.Version{}, r)
	if err != nil {
		t.Fatal(err)
	}
	swap := func(store semel.Store) float64 {
		return testing.AllocsPerRun(100, func() {
			if held, err = store.CompareAndSwap(t.Context(), held.Record.Version, r); err != nil {
				t.Fatal(err)
			}
		})
	}
	if plain, batched := swap(inner), swap(s); batched > plain {
		t.Errorf("%v allocations, the store alone makes %v", batched, plain)
	}
}

func BenchmarkCompareAndSwap(b *testing.B) {
	inner := memory.New(memory.Options{})
	front := batch.New(inner, batch.Options{})
	defer front.Close()
	for _, c := range []struct {
		name  string
		store semel.Store
	}{{"plain", inner}, {"batch", front}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var held semel.Reading
			r := record(1)
			r.Digest[5] = c.name[0]
			r.Nonce[0] = byte(b.N)
			if h, err := c.store.Get(b.Context(), r.Digest); err == nil {
				held = h
			}
			for range b.N {
				var err error
				if held, err = c.store.CompareAndSwap(b.Context(), held.Record.Version, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
