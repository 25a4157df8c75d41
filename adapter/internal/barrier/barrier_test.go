package barrier_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel/adapter/internal/barrier"
)

// runs counts runs of a second each, on a bubble's clock.
type runs struct {
	mu sync.Mutex
	n  int
}

func (r *runs) run() (int, error) {
	r.mu.Lock()
	r.n++
	n := r.n
	r.mu.Unlock()
	time.Sleep(time.Second)
	return n, nil
}

// TestRunBeginsAfterTheCall: a run that is under way is nobody's who comes later,
// and all of those share the next.
func TestRunBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b barrier.Barrier[int]
		var r runs
		var wg sync.WaitGroup
		start := time.Now()
		wait := func(want int, after time.Duration) {
			wg.Go(func() {
				n, err := b.Wait(t.Context(), r.run)
				if took := time.Since(start); n != want || err != nil || took != after {
					t.Errorf("got run %d, %v after %v; want run %d after %v", n, err, took, want, after)
				}
			})
			synctest.Wait()
		}
		wait(1, time.Second)
		for range 100 {
			wait(2, 2*time.Second)
		}
		time.Sleep(1500 * time.Millisecond) // the second is under way
		for range 100 {
			wait(3, 3*time.Second)
		}
		wg.Wait()
		if r.n != 3 {
			t.Errorf("%d runs for three groups of callers", r.n)
		}
	})
}

// TestIdleKeepsNothing: one caller after the other has a run each, and no
// goroutine is left when nobody waits (the bubble would not end).
func TestIdleKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b barrier.Barrier[int]
		var r runs
		for want := 1; want <= 3; want++ {
			if n, err := b.Wait(t.Context(), r.run); n != want || err != nil {
				t.Errorf("got run %d, %v; want %d", n, err, want)
			}
		}
	})
}

// TestErrorIsItsOwn: all who share a run have its error, and nobody else.
func TestErrorIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b barrier.Barrier[int]
		var r runs
		broken := errors.New("broken")
		fails := func() (int, error) {
			_, _ = r.run()
			return 0, broken
		}
		var wg sync.WaitGroup
		wait := func(run func() (int, error), want error) {
			wg.Go(func() {
				if _, err := b.Wait(t.Context(), run); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
			synctest.Wait()
		}
		wait(fails, broken)
		wait(r.run, nil)
		wait(r.run, nil)
		time.Sleep(1500 * time.Millisecond)
		wait(fails, broken)
		wait(fails, broken)
		time.Sleep(time.Second)
		wait(r.run, nil)
		wg.Wait()
	})
}

// TestLeaving: who leaves hears why, and cuts nothing off.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b barrier.Barrier[int]
		var r runs
		var wg sync.WaitGroup
		gone := errors.New("gone")
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second/2, gone)
			defer cancel()
			start := time.Now()
			if _, err := b.Wait(ctx, r.run); !errors.Is(err, gone) || time.Since(start) != time.Second/2 {
				t.Errorf("left after %v with %v, want %v", time.Since(start), err, gone)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if n, err := b.Wait(t.Context(), r.run); n != 2 || err != nil {
				t.Errorf("who stayed got run %d, %v; want 2", n, err)
			}
		})
		wg.Wait()
	})
}
