package semel_test

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
	"github.com/semelhq/semel/store/memory"
)

func TestHerdRunsOnce(t *testing.T) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int64
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			a, err := guard.Do(t.Context(), semel.Ask{Key: semel.Key{Scope: "a", ID: "k"}}, func(context.Context) (semel.Result, error) {
				runs.Add(1)
				time.Sleep(50 * time.Millisecond)
				return semel.Result{Code: 201, Data: []byte("ok")}, nil
			})
			if err != nil || string(a.Data) != "ok" || a.Code != 201 {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("ran %d times, want 1", runs.Load())
	}
}

func TestLongRunKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := semel.Policy{Lease: time.Second, Wait: -1}.Filled()
		if err != nil {
			t.Fatal(err)
		}
		ask := semel.Ask{Key: semel.Key{Scope: "a", ID: "k"}, Policy: &p}
		c, _, err := guard.Begin(t.Context(), ask)
		if err != nil || c == nil {
			t.Fatal(c, err)
		}
		time.Sleep(time.Minute)
		if err := c.Context().Err(); err != nil {
			t.Fatal("context ended under a live lease:", err)
		}
		other, err := semel.NewGuard(guard.Store(), semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, v, err := other.Begin(t.Context(), ask); err != nil || v.Reason != semel.InProgress {
			t.Fatalf("got %+v, %v; want in progress", v, err)
		}
		if _, err := c.Complete(semel.Result{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if _, v, err := other.Begin(t.Context(), ask); err != nil || v.Action != semel.Replay {
			t.Fatalf("got %+v, %v; want a replay", v, err)
		}
		if err := guard.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// An ended claim gives back its room, so whoever still holds it must not reach
// what another request does there now.
func TestEndedClaimReachesNoOther(t *testing.T) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(id string) *semel.Claim {
		t.Helper()
		c, _, err := guard.Begin(t.Context(), semel.Ask{Key: semel.Key{Scope: "a", ID: id}})
		if err != nil || c == nil {
			t.Fatal(c, err)
		}
		return c
	}
	for i := range 100 {
		old := begin(fmt.Sprint("old ", i))
		version := old.Version()
		if _, err := old.Complete(semel.Result{Data: []byte("old")}); err != nil {
			t.Fatal(err)
		}
		next := begin(fmt.Sprint("next ", i))
		if _, err := old.Complete(semel.Result{Data: []byte("stolen")}); err == nil {
			t.Error("a claim was completed twice")
		}
		if err := old.Doubt(); err == nil {
			t.Error("a completed claim was put in doubt")
		}
		if old.Version() != version || old.Attempt() != 1 || old.Context().Err() == nil {
			t.Errorf("the ended claim changed: version %v, want %v; attempt %d, want 1; context %v", old.Version(), version, old.Attempt(), old.Context().Err())
		}
		if err := next.Context().Err(); err != nil {
			t.Error("the next claim's context ended with the old one:", err)
		}
		if r, err := next.Complete(semel.Result{Data: []byte("next")}); err != nil || string(r.Result) != "next" {
			t.Errorf("the next claim: %q, %v", r.Result, err)
		}
	}
}

// TestWaiterLeadsWithFreshTime: a request that waited longer than a lease, and
// than a claim may take, executes once the attempt before it did nothing.
func TestWaiterLeadsWithFreshTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		store := &faulty{Store: memory.New(memory.Options{})}
		g := newGuard(t, store)
		a := ask(t, semel.Policy{Lease: time.Second, Wait: 10 * time.Second, ClaimWithin: time.Second})
		first, _ := begin(t, g, a)
		var wg sync.WaitGroup
		wg.Go(func() {
			c, v, err := g.Begin(t.Context(), a)
			if err != nil || c == nil || c.Attempt() != 2 {
				t.Errorf("got %v, %v, %v; want the second attempt", c, v.Reason, err)
				return
			}
			_ = c.Release(semel.Result{})
		})
		time.Sleep(6 * time.Second)
		synctest.Wait()
		store.before = func(next *semel.Record) error {
			if next.State == semel.Pending {
				calls++
			}
			return nil
		}
		if err := first.Release(semel.Result{}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if calls != 2 { // the insert, which conflicts, and the claim over the release
			t.Errorf("%d claims were sent, want 2", calls)
		}
	})
}

func TestStorePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, when := range []semel.State{semel.Pending, semel.Done} {
			store := &faulty{Store: memory.New(memory.Options{})}
			g := newGuard(t, store)
			panics := 2
			store.after = func(next *semel.Record) error {
				if next.State == when && panics > 0 {
					panics--
					panic("index out of range")
				}
				return nil
			}
			runs := 0
			for range 2 {
				a, err := g.Do(t.Context(), ask(t, semel.Policy{}), func(context.Context) (semel.Result, error) {
					runs++
					return semel.Result{Data: []byte("r")}, nil
				})
				if err != nil || string(a.Data) != "r" {
					t.Errorf("panic at %v: got %+v, %v", when, a, err)
				}
			}
			if runs != 1 || panics != 0 {
				t.Errorf("panic at %v: %d runs, %d panics left", when, runs, panics)
			}
		}
	})
}

// away is a store that takes no claims for a while.
type away struct {
	semel.Store
	away atomic.Bool
}

func (s *away) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.away.Load() {
		return semel.Reading{}, errors.New("connection refused")
	}
	return s.Store.CompareAndSwap(ctx, old, next)
}

// A claim that may land yet is looked for behind the request. The request's own
// answer and event must not depend on how far that has come: the race detector
// tells.
func TestUnavailableIsToldBeforeTheClaimIsLookedFor(t *testing.T) {
	store := &away{Store: memory.New(memory.Options{})}
	told := make(chan semel.Event, 1)
	guard, err := semel.NewGuard(store, semel.Options{Observe: func(e semel.Event) { told <- e }})
	if err != nil {
		t.Fatal(err)
	}
	p, err := semel.Policy{Name: "p", Lease: 50 * time.Millisecond, ClaimWithin: time.Millisecond}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	store.away.Store(true)
	for i := range 20 {
		_, v, err := guard.Begin(t.Context(), semel.Ask{Key: semel.Key{Scope: "a", ID: fmt.Sprint(i)}, Policy: &p})
		if e := <-told; !errors.Is(err, semel.ErrUnavailable) || v.Action != semel.Refuse || e.Kind != semel.Unavailable || e.Policy != "p" || e.Err == nil {
			t.Fatalf("got %+v, %v; the event is %+v", v, err, e)
		}
	}
	if err := guard.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func ExampleGuard_Do() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := semel.Ask{
		Key:         semel.Key{Scope: semel.JoinScope("tenant-7", "charge"), ID: "order-42"},
		Fingerprint: semel.FingerprintOf([]byte("100 EUR")),
	}
	charge := func(context.Context) (semel.Result, error) {
		fmt.Println("charging")
		return semel.Result{Data: []byte("receipt 1")}, nil
	}
	for range 2 {
		answer, err := guard.Do(context.Background(), ask, charge)
		fmt.Println(string(answer.Data), answer.Replayed, err)
	}
	ask.Fingerprint = semel.FingerprintOf([]byte("900 EUR"))
	_, err = guard.Do(context.Background(), ask, charge)
	fmt.Println(errors.Is(err, semel.ErrMismatch))
	// Output:
	// charging
	// receipt 1 false <nil>
	// receipt 1 true <nil>
	// true
}

// telling is a store that tells at once whoever watches a key when it is
// written.
type telling struct {
	semel.Store
	mu       sync.Mutex
	watchers map[chan struct{}]semel.Digest
}

func (s *telling) Watch(d semel.Digest) (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{}, 1)
	s.watchers[c] = d
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, c)
	}
}

func (s *telling) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, d := range s.watchers {
		if d == next.Digest {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	return r, err
}

// Another process waits for ours: the news wakes it, not its next poll, and it
// stops watching.
func TestNewsWakesAWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &telling{Store: memory.New(memory.Options{}), watchers: map[chan struct{}]semel.Digest{}}
		var guards [2]*semel.Guard
		for i := range guards {
			g, err := semel.NewGuard(store, semel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			guards[i] = g
		}
		ask := semel.Ask{Key: semel.Key{Scope: "s", ID: "k"}}
		claim, _, err := guards[0].Begin(t.Context(), ask)
		if err != nil || claim == nil {
			t.Fatal(claim, err)
		}
		start := time.Now()
		var took time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			_, v, err := guards[1].Begin(t.Context(), ask)
			took = time.Since(start)
			if err != nil || v.Action != semel.Replay {
				t.Errorf("the waiter got %+v, %v", v, err)
			}
		})
		// Polls come 5, 15, 35, 75 and 115 ms after the start: 80 is between two.
		time.Sleep(80 * time.Millisecond)
		if _, err := claim.Complete(semel.Result{Code: 200, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if took != 80*time.Millisecond {
			t.Errorf("the waiter was woken after %v, want 80ms", took)
		}
		if len(store.watchers) != 0 {
			t.Errorf("%d watches were not stopped", len(store.watchers))
		}
	})
}

// cutOff is a store whose every reading says that the authoritative store could
// not be asked.
type cutOff struct{ semel.Store }

func (s cutOff) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	r.Unconfirmed = true
	return r, err
}

// INVARIANTS S12: what goes on without the authoritative store says so.
func TestUnconfirmedIsTold(t *testing.T) {
	var events []semel.Event
	guard, err := semel.NewGuard(cutOff{memory.New(memory.Options{})}, semel.Options{
		Observe: func(e semel.Event) { events = append(events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := semel.Ask{Key: semel.Key{Scope: "s", ID: "k"}}
	claim, v, err := guard.Begin(t.Context(), ask)
	if err != nil || claim == nil || !v.Unconfirmed || !claim.Unconfirmed() {
		t.Fatalf("claim: %+v, %v", v, err)
	}
	if _, err := claim.Complete(semel.Result{Code: 200, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	answer, err := guard.Do(t.Context(), ask, func(context.Context) (semel.Result, error) { panic("a second run") })
	if err != nil || !answer.Replayed || !answer.Unconfirmed {
		t.Errorf("replay: %+v, %v", answer, err)
	}
	if len(events) != 3 {
		t.Errorf("%d events, want claimed, completed and replayed", len(events))
	}
	for _, e := range events {
		if !e.Unconfirmed {
			t.Errorf("%v does not say that it is unconfirmed", e.Kind)
		}
	}
}

func TestClaimIsInItsContext(t *testing.T) {
	guard := newGuard(t, memory.New(memory.Options{}))
	if _, ok := semel.ClaimFrom(t.Context()); ok {
		t.Error("a claim was found where nothing is claimed")
	}
	_, err := guard.Do(t.Context(), ask(t, semel.Policy{}), func(ctx context.Context) (semel.Result, error) {
		outer, ok := semel.ClaimFrom(ctx)
		if !ok {
			return semel.Result{}, errors.New("an operation does not find its claim")
		}
		if outer.Digest() != guard.Digest(ask(t, semel.Policy{}).Key) {
			return semel.Result{}, errors.New("a claim has another key's digest")
		}
		other := ask(t, semel.Policy{})
		other.Key.ID = "inner"
		ctx, cancel := context.WithCancel(ctx) // and where somebody waits for it
		defer cancel()
		_, err := guard.Do(ctx, other, func(ctx context.Context) (semel.Result, error) {
			if inner, ok := semel.ClaimFrom(ctx); !ok || inner == outer {
				return semel.Result{}, errors.New("an operation within another finds no claim, or the other's")
			}
			return semel.Result{Code: 200}, nil
		})
		return outer.Step(ctx, "step", func(ctx context.Context) (semel.Result, error) {
			if c, _ := semel.ClaimFrom(ctx); c != outer {
				return semel.Result{}, errors.New("a step does not find the operation's claim")
			}
			return semel.Result{Code: 201}, err
		})
	})
	if err != nil {
		t.Error(err)
	}
}
