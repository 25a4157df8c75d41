package lifecycle_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

// cut is what one process sees of a store: it can be cut off from it, and then its
// swaps fail, and its sweeps wait for their context.
type cut struct {
	*trail
	off         atomic.Bool
	unconfirmed atomic.Bool
	onSweep     func()
	onGet       func(digest semel.Digest)
}

func (s *cut) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if s.off.Load() {
		return semel.Reading{}, errBroken
	}
	r, err := s.trail.Get(ctx, d)
	r.Unconfirmed = s.unconfirmed.Load()
	if s.onGet != nil {
		s.onGet(d)
	}
	return r, err
}

func (s *cut) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.off.Load() {
		return semel.Reading{}, errBroken
	}
	r, err := s.trail.CompareAndSwap(ctx, old, next)
	r.Unconfirmed = s.unconfirmed.Load()
	return r, err
}

func (s *cut) Sweep(ctx context.Context, limit int) (int, error) {
	if s.onSweep != nil {
		s.onSweep()
	}
	if s.off.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.trail.Sweep(ctx, limit)
}

// expired gives the store n keys that are over.
func (w *world) expired(n int) {
	w.Helper()
	w.many(guardOf(w.T, w.trail), n, policy(w.T, semel.Policy{Replay: time.Minute, Remember: time.Minute}))
	w.sleep(2 * time.Minute)
}

// Two processes, and two sweepers in one of them: one works at a time, and together
// they make no more passes than one.
func TestOneProcessWorksAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.onSweep = func(int) { time.Sleep(700 * time.Millisecond) }
		shared := guardOf(t, w)
		for i := range 4 {
			g := shared
			if i < 2 {
				g = guardOf(t, &cut{trail: w.trail})
			}
			s, err := lifecycle.New(g, lifecycle.Options{Batch: 10, Observe: w.observe})
			if err != nil {
				t.Fatal(err)
			}
			defer w.run(s)()
		}
		w.many(guardOf(t, w), 500, policy(t, semel.Policy{Replay: 10 * time.Minute, Remember: 30 * time.Minute, Lease: time.Minute}))
		w.sleep(time.Hour)
		n := len(w.told(lifecycle.Swept))
		if w.overlaps != 0 || len(w.dump(w)) != 0 {
			t.Errorf("%d calls met another, %d records are left", w.overlaps, len(w.dump(w)))
		}
		if n < 45 || n > 62+10 { // those that found too much are followed by another at once
			t.Errorf("%d passes in an hour, want one a minute", n)
		}
		if failed := w.told(lifecycle.Failed); failed != nil {
			t.Errorf("failed: %v", failed[0].Err)
		}
	})
}

// Two processes see that it is time. The second comes when the first is through.
func TestTwoSeeThatItIsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := &cut{trail: w.trail}
		first, second := w.sweeper(w.trail, lifecycle.Options{}), w.sweeper(slow, lifecycle.Options{})
		var times atomic.Int32
		slow.onGet = func(semel.Digest) {
			if times.Add(1) == 1 {
				if _, err := first.Once(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		defer w.run(second)()
		w.sleep(30 * time.Second)
		if n := len(w.told(lifecycle.Swept)); n != 1 || times.Load() == 0 {
			t.Errorf("%d passes at one time", n)
		}
		w.sleep(time.Hour)
		if n := len(w.told(lifecycle.Swept)); n < 50 {
			t.Errorf("%d passes in an hour", n)
		}
	})
}

// A process dies in the middle of a pass. Another goes on when its lease has ended.
func TestAKilledLeadersSuccessorGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.expired(1000)
		dead := &cut{trail: w.trail}
		calls := 0
		dead.onSweep = func() {
			if calls++; calls == 5 {
				dead.off.Store(true) // from here on nothing of it reaches the store
			}
		}
		stop := w.run(w.sweeper(dead, lifecycle.Options{Batch: 100}))
		w.sleep(time.Second)
		left := len(w.dump(w))
		if calls != 5 || left < 500 || left == 1000 {
			t.Fatalf("the leader was to die in the middle: %d calls, %d left", calls, left)
		}
		stopSecond := w.run(w.sweeper(&cut{trail: w.trail}, lifecycle.Options{Batch: 100}))
		w.sleep(20 * time.Second)
		if n := len(w.dump(w)); n != left {
			t.Errorf("%d are left while the dead one's lease runs, want %d", n, left)
		}
		w.sleep(20 * time.Second)
		if n := len(w.dump(w)); n != 0 {
			t.Errorf("%d are left after the lease", n)
		}
		if lost := w.told(lifecycle.Lost); len(lost) != 1 {
			t.Errorf("the dead one tells of %d lost leads", len(lost))
		}
		w.expired(1000)
		dead.off.Store(false) // it comes back: nothing of its stops the others
		w.sleep(5 * time.Minute)
		if n := len(w.dump(w)); n != 0 || w.overlaps != 0 {
			t.Errorf("%d are left, %d calls met another", n, w.overlaps)
		}
		stop()
		stopSecond()
	})
}

// A pass ends at once when its lead is lost, and its calls do.
func TestALostLeadStopsThePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.expired(1000)
		half := &halfCut{trail: w.trail}
		w.trail.onSweep = func(int) { time.Sleep(100 * time.Millisecond) }
		stop := w.run(w.sweeper(half, lifecycle.Options{Batch: 10, Lease: 6 * time.Second, Every: 10 * time.Minute}))
		w.sleep(2500 * time.Millisecond) // 2 batches
		half.off.Store(true)             // renewals fail, and sweeping would go on
		w.sleep(6 * time.Second)
		if lost := w.told(lifecycle.Lost); len(lost) != 1 {
			t.Fatalf("lost: %+v", lost)
		}
		n := w.sweeps
		w.sleep(5 * time.Minute)
		if w.sweeps != n {
			t.Errorf("%d calls without the lead", w.sweeps-n)
		}
		half.off.Store(false)
		w.sleep(30 * time.Minute)
		if n := len(w.dump(w)); n != 0 {
			t.Errorf("%d are left", n)
		}
		stop()
	})
}

// halfCut is a store that takes no swaps, while all else goes on.
type halfCut struct {
	*trail
	off atomic.Bool
}

func (s *halfCut) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.off.Load() {
		return semel.Reading{}, errBroken
	}
	return s.trail.CompareAndSwap(ctx, old, next)
}

// A panic goes on to whoever called, and does not keep others waiting for the lease.
func TestAPanicGivesBackTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.expired(1000)
		bad := &cut{trail: w.trail}
		calls := 0
		bad.onSweep = func() {
			if calls++; calls == 3 {
				panic("the store is broken")
			}
		}
		s := w.sweeper(bad, lifecycle.Options{Batch: 100, Lease: time.Hour})
		func() {
			defer func() {
				if v := recover(); v != "the store is broken" {
					t.Errorf("recovered %v", v)
				}
			}()
			_ = s.Run(t.Context())
		}()
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Batch: 100}))
		defer stop()
		w.sleep(time.Minute)
		if n := len(w.dump(w)); n != 0 {
			t.Errorf("%d are left a minute after the panic", n)
		}
	})
}

func TestOnceWhileAnotherWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.expired(300)
		w.onSweep = func(int) { time.Sleep(time.Second) }
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Batch: 100, Growth: -1}))
		w.sleep(500 * time.Millisecond)
		s := w.sweeper(&cut{trail: w.trail}, lifecycle.Options{})
		if p, err := s.Once(t.Context()); !errors.Is(err, semel.ErrInProgress) || p != (lifecycle.Pass{}) || w.overlaps != 0 {
			t.Errorf("got %+v, %v", p, err)
		}
		w.sleep(time.Minute)
		stop()
		w.expired(300)
		if p, err := s.Once(t.Context()); err != nil || p.Swept < 300 || !p.Drained {
			t.Errorf("once nobody works, it gives %+v, %v", p, err)
		}
	})
}

// Who cannot ask the authoritative store does not know who works.
func TestAnUnconfirmedLeadIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.expired(10)
		away := &cut{trail: w.trail}
		s := w.sweeper(away, lifecycle.Options{Growth: -1})
		away.unconfirmed.Store(true)
		stop := w.run(s)
		defer stop()
		w.sleep(time.Hour)
		if _, err := s.Once(t.Context()); !errors.Is(err, semel.ErrUnavailable) || w.sweeps != 0 {
			t.Errorf("%v, and %d calls", err, w.sweeps)
		}
		away.unconfirmed.Store(false)
		w.sleep(time.Hour)
		if n := len(w.dump(w)); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// Run gives back the lead when it is stopped in the middle of a pass.
func TestStoppedInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.expired(1000)
		w.onSweep = func(int) { time.Sleep(time.Second) }
		s := w.sweeper(w.trail, lifecycle.Options{Batch: 10, Lease: time.Hour})
		stop := w.run(s)
		w.sleep(time.Minute)
		start := time.Now()
		stop()
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to stop", took)
		}
		if err := s.Run(t.Context()); err == nil {
			t.Error("it ran twice")
		}
		w.onSweep = nil
		if p, err := w.sweeper(w.trail, lifecycle.Options{Batch: 100}).Once(t.Context()); err != nil || !p.Drained {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
