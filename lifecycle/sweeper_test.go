package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

// populate gives the store a record of every kind, and tells which are pending.
func populate(w *world) (pending []semel.Digest) {
	w.Helper()
	put := func(id string, r semel.Record) semel.Digest {
		r.Key = semel.Key{Scope: "shop", ID: id}
		r.Digest, r.Attempt, r.Nonce = r.Key.Digest(nil), 1, semel.Nonce([]byte(fmt.Sprintf("%-16s", id)[:16]))
		if _, err := w.CompareAndSwap(w.Context(), semel.Version{}, r); err != nil {
			w.Fatal(err)
		}
		return r.Digest
	}
	for c := semel.AtMostOnce; c <= semel.Transactional; c++ {
		for _, lease := range []time.Duration{1, time.Minute, 100 * time.Hour} {
			id := fmt.Sprintf("pending %v %v", c, lease)
			pending = append(pending, put(id, semel.Record{State: semel.Pending, Class: c, TTL: lease, Replay: 1, Result: []byte("memo of " + id)}))
		}
	}
	for i := range 40 {
		ttl := time.Duration(i+1) * time.Hour
		put(fmt.Sprint("done ", i), semel.Record{State: semel.Done, Code: 201, TTL: ttl, Replay: ttl / 3, Result: []byte("receipt")})
		put(fmt.Sprint("done without ", i), semel.Record{State: semel.Done, Code: 204, TTL: ttl})
		put(fmt.Sprint("released ", i), semel.Record{State: semel.Released, TTL: ttl})
	}
	return pending
}

// INVARIANTS X4: the sweeper touches only finished, expired records.
func TestX4OnlyWhatIsFinishedAndOverIsTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pending := populate(w)
		before := make(map[semel.Digest]semel.Record)
		for _, r := range w.dump(w) {
			before[r.Digest] = r
		}
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Batch: 7, Growth: -1}))
		defer stop()
		start := time.Now()
		w.sleep(90 * time.Second) // between two passes from here on
		for range 60 {
			w.sleep(time.Hour)
			held := make(map[semel.Digest]semel.Record)
			for _, r := range w.dump(w) {
				held[r.Digest] = r
			}
			for digest, was := range before {
				want := was
				age := time.Since(start)
				switch now, there := held[digest]; {
				case was.State == semel.Pending || age < was.TTL:
					if was.State == semel.Done && was.Replay > 0 && age > was.Replay {
						want = was.Tombstone()
					}
					if !there || !reflect.DeepEqual(now, want) {
						t.Fatalf("after %v %q is %+v (held: %v), want %+v", age, was.Key.ID, now, there, want)
					}
				case there:
					t.Fatalf("after %v %q of %v is still held", age, was.Key.ID, was.TTL)
				}
			}
		}
		for _, digest := range pending {
			if got, err := w.Get(t.Context(), digest); err != nil || !reflect.DeepEqual(got.Record, before[digest]) {
				t.Errorf("%q has become %+v, %v", before[digest].Key.ID, got.Record, err)
			}
		}
		if n := len(w.dump(w)); n != len(pending) {
			t.Errorf("%d records are left, want the %d pending ones", n, len(pending))
		}
		if failed := w.told(lifecycle.Failed); failed != nil {
			t.Errorf("failed: %+v", failed)
		}
	})
}

// final sweeps a store of known contents with sweep until it says that it is done,
// and gives what is left.
func final(t *testing.T, sweep func(t *testing.T, w *world)) (left []semel.Record) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		populate(w)
		w.sleep(20 * time.Hour)
		sweep(t, w)
		left = w.dump(w)
		for i := range left { // of a counter that all keys share
			left[i].Version, left[i].WrittenAt = semel.Version{}, time.Time{}
		}
	})
	return left
}

// INVARIANTS X7: sweeping twice, or crashing in it, changes nothing.
func TestX7SweepingTwiceOrCrashingInItChangesNothing(t *testing.T) {
	once := func(t *testing.T, w *world) {
		if p, err := w.sweeper(w.trail, lifecycle.Options{Batch: 7, Growth: -1}).Once(t.Context()); err != nil || !p.Drained {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	want := final(t, once)
	if len(want) != 12+20*3 { // pending; past 20 h only those of more than that are left
		t.Fatalf("one sweep left %d records", len(want))
	}
	same := func(name string, sweep func(t *testing.T, w *world)) {
		t.Run(name, func(t *testing.T) {
			got := final(t, sweep)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("it left %d records, and one sweep %d; or others:\n%+v\n%+v", len(got), len(want), got, want)
			}
		})
	}
	same("twice", func(t *testing.T, w *world) { once(t, w); once(t, w) })
	same("two without a leader", func(t *testing.T, w *world) {
		done := make(chan bool)
		for range 2 {
			go func() {
				for n := 1; n > 0; {
					n, _ = w.Sweep(t.Context(), 3)
				}
				done <- true
			}()
		}
		once(t, w)
		<-done
		<-done
	})
	for call := 1; call <= 10; call++ {
		for _, after := range []bool{false, true} {
			same(fmt.Sprintf("panic at call %d, after it: %v", call, after), func(t *testing.T, w *world) {
				w.at(call, after, func() { panic("crash") })
				func() {
					defer func() {
						if recover() == nil {
							t.Error("no call panicked")
						}
					}()
					once(t, w)
				}()
				once(t, w)
			})
			same(fmt.Sprintf("cut off at call %d, after it: %v", call, after), func(t *testing.T, w *world) {
				ctx, cancel := context.WithCancel(t.Context())
				w.at(call, after, cancel)
				if p, err := w.sweeper(w.trail, lifecycle.Options{Batch: 7, Growth: -1}).Once(ctx); !errors.Is(err, context.Canceled) {
					t.Fatalf("%+v, %v", p, err)
				}
				once(t, w)
			})
		}
	}
}

// at has do called at a call of Sweep, before or after the store has done its part.
func (w *world) at(call int, after bool, do func()) {
	hook := func(n int) {
		if n == call {
			do()
		}
	}
	if after {
		w.onSwept = hook
	} else {
		w.onSweep = hook
	}
}

// The share of the time is kept, and the rests are longer while the store is slow.
func TestItRests(t *testing.T) {
	for _, share := range []float64{0.02, 0.1, 0.5} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.many(guardOf(t, w), 2000, policy(t, semel.Policy{Replay: time.Hour, Remember: time.Hour, Lease: time.Minute}))
			w.sleep(time.Hour)
			took := 5 * time.Millisecond
			w.onSweep = func(int) { time.Sleep(took) }
			s := w.sweeper(w.trail, lifecycle.Options{Batch: 100, Share: share, Growth: -1})
			p, err := s.Once(t.Context())
			if err != nil || p.Swept < 2000 || p.Busy != time.Duration(p.Batches)*took {
				t.Fatalf("%+v, %v", p, err)
			}
			got := p.Busy.Seconds() / (p.Took + took).Seconds()
			if got > share*1.1 || got < share*0.9 { // the rest of the last call is outside
				t.Errorf("a share of %v was asked for, and %.3f was taken: %+v", share, got, p)
			}
			w.many(guardOf(t, w), 2000, policy(t, semel.Policy{Replay: time.Hour, Remember: time.Hour, Lease: time.Minute}))
			w.sleep(time.Hour)
			took = 15 * time.Millisecond
			slow, err := s.Once(t.Context())
			if err != nil || slow.Swept < 2000 {
				t.Fatalf("%+v, %v", slow, err)
			}
			if busy := slow.Busy.Seconds() / slow.Took.Seconds(); busy > share/1.5 {
				t.Errorf("three times as slow, and still %.3f of the time is spent: %+v", busy, slow)
			}
		})
	}
}

// More expires than can be swept in the time between two passes: it goes on, and
// what else there is to do has its turn.
func TestALongBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.many(guardOf(t, w), 3000, policy(t, semel.Policy{Replay: time.Hour, Remember: time.Hour, Lease: time.Minute}))
		w.sleep(2 * time.Hour)
		w.onSweep = func(int) { time.Sleep(100 * time.Millisecond) }
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Batch: 10, Every: 10 * time.Second}))
		defer stop()
		w.sleep(15 * time.Second)
		if s := w.told(lifecycle.Swept); len(s) != 1 || s[0].Pass.Drained || len(w.told(lifecycle.Measured)) != 1 {
			t.Errorf("after 15 s: %+v", s)
		}
		w.sleep(5*time.Minute + 30*time.Second) // 300 batches at 1 s
		if n := len(w.dump(w)); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// A store that is slow has longer rests, but not where it would never be done.
func TestNoLongerRestWhileItIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := policy(t, semel.Policy{Replay: time.Hour, Remember: time.Hour, Lease: time.Minute})
		w.many(guardOf(t, w), 6000, p)
		w.sleep(2 * time.Hour)
		w.onSweep = func(call int) { time.Sleep(10 * time.Millisecond << min(call/10, 2)) }
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Batch: 10, Every: 30 * time.Second, Growth: -1}))
		defer stop()
		w.sleep(3 * time.Minute)
		passes := w.told(lifecycle.Swept)
		first, second := passes[0].Pass, passes[1].Pass
		if first.Drained || second.Drained || first.Busy*20 > first.Took || second.Busy*11 < second.Took {
			t.Errorf("%+v\n%+v", first, second)
		}
	})
}

func TestErrorsAreToldAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.many(guardOf(t, w), 100, policy(t, semel.Policy{Replay: time.Hour, Remember: time.Hour}))
		w.sleep(2 * time.Hour)
		w.failing = func(int) bool { return true }
		shelf := newShelf()
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Journal: 72 * time.Hour, Archive: shelf}))
		defer stop()
		w.sleep(5 * 24 * time.Hour)
		if len(shelf.names()) == 0 || len(w.told(lifecycle.Measured)) == 0 {
			t.Error("what cannot be swept keeps the journal and the measuring from being done")
		}
		failed := w.told(lifecycle.Failed)
		if len(failed) == 0 || len(failed) != w.sweeps || !errors.Is(failed[0].Err, errBroken) {
			t.Errorf("%d calls failed, %d were told: %+v", w.sweeps, len(failed), failed)
		}
		if most := 5 * 24 * 60 / 16 * 4 * 2; w.sweeps > most || w.sweeps < most/8 {
			t.Errorf("%d calls in 5 days of failure, want at most %d", w.sweeps, most)
		}
		w.set(func() { w.failing = nil })
		w.sleep(20 * time.Minute)
		if n := len(w.dump(w)); n != 0 {
			t.Errorf("%d are left after it is mended", n)
		}
	})
}

// A call now and then that fails does not end a pass.
func TestAFailureNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.many(guardOf(t, w), 100, policy(t, semel.Policy{Replay: time.Hour, Remember: time.Hour}))
		w.sleep(2 * time.Hour)
		w.failing = func(call int) bool { return call%3 != 0 }
		p, err := w.sweeper(w.trail, lifecycle.Options{Batch: 10, Growth: -1}).Once(t.Context())
		if err != nil || !p.Drained || p.Swept < 100 || len(w.dump(w)) != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// plain is a store that can do nothing but what every store can.
type plain struct{ semel.Store }

func TestRefusedOptions(t *testing.T) {
	month := policy(t, semel.Policy{Name: "money", Remember: 30 * 24 * time.Hour})
	shelf := newShelf()
	bare := plain{newTrail(nil)}
	for _, c := range []struct {
		name  string
		store semel.Store
		o     lifecycle.Options
		want  string // in the error; "" is fine
	}{
		{"nothing set", nil, lifecycle.Options{}, ""},
		{"a journal", nil, lifecycle.Options{Journal: 72 * time.Hour}, ""},
		{"a journal with an archive", nil, lifecycle.Options{Journal: 720 * time.Hour, Archive: shelf, Policies: []*semel.Policy{month}}, ""},
		{"a journal that ends before the default policy's keys", nil, lifecycle.Options{Journal: 71 * time.Hour}, "make the journal at least 72h"},
		{"a journal that ends before its keys", nil, lifecycle.Options{Journal: 719 * time.Hour, Policies: []*semel.Policy{{}, month}}, `policy "money" remembers keys for 720h`},
		{"an archive and no journal", nil, lifecycle.Options{Archive: shelf}, "set Journal"},
		{"a negative journal", nil, lifecycle.Options{Journal: -1}, "negative"},
		{"a policy that is none", nil, lifecycle.Options{Policies: []*semel.Policy{nil}}, "nil"},
		{"a policy that is wrong", nil, lifecycle.Options{Policies: []*semel.Policy{{Replay: -1}}}, "replay"},
		{"no share", nil, lifecycle.Options{Share: -0.1}, "share"},
		{"more than everything", nil, lifecycle.Options{Share: 1.1}, "share"},
		{"a negative pause", nil, lifecycle.Options{Every: -1}, "every"},
		{"a negative batch", nil, lifecycle.Options{Batch: -1}, "batch"},
		{"a short lease", nil, lifecycle.Options{Lease: time.Millisecond}, "lease"},
		{"a journal in a store without days", bare, lifecycle.Options{Journal: 72 * time.Hour}, "no journal by days"},
		{"nothing to do", bare, lifecycle.Options{}, "nothing to sweep"},
	} {
		store := c.store
		if store == nil {
			store = newTrail(nil)
		}
		_, err := lifecycle.New(guardOf(t, store), c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := lifecycle.New(nil, lifecycle.Options{}); err == nil {
		t.Error("a sweeper without a guard")
	}
}
