package semel_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// Each test here is named after a bug that others shipped; docs/spec/fieldbugs.md
// lists them. It fails if the bug is put back.

// faulty is a store whose calls can be made to fail, before or after they took
// effect.
type faulty struct {
	semel.Store
	down          atomic.Bool
	before, after func(next *semel.Record) error
}

func (f *faulty) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if f.down.Load() {
		return semel.Reading{}, errLost
	}
	return f.Store.Get(ctx, d)
}

func (f *faulty) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if f.down.Load() {
		return semel.Reading{}, errLost
	}
	if f.before != nil {
		if err := f.before(&next); err != nil {
			return semel.Reading{}, err
		}
	}
	r, err := f.Store.CompareAndSwap(ctx, old, next)
	if f.after != nil {
		if lost := f.after(&next); lost != nil {
			return semel.Reading{}, lost
		}
	}
	return r, err
}

var errLost = errors.New("connection reset by peer")

func newGuard(t *testing.T, s semel.Store) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func ask(t *testing.T, p semel.Policy) semel.Ask {
	t.Helper()
	p, err := p.Filled()
	if err != nil {
		t.Fatal(err)
	}
	return semel.Ask{Key: semel.Key{Scope: "acme", ID: "k"}, Policy: &p}
}

func begin(t *testing.T, g *semel.Guard, a semel.Ask) (*semel.Claim, semel.Verdict) {
	t.Helper()
	c, v, err := g.Begin(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c, v
}

func TestFieldBug03_AnswerOfTheStoreIsLost(t *testing.T) {
	for name, lose := range map[string]semel.State{"claim": semel.Pending, "completion": semel.Done} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &faulty{Store: memory.New(memory.Options{})}
				g := newGuard(t, store)
				times := 0
				store.after = func(next *semel.Record) error {
					if next.State == lose && times < 2 {
						times++
						return errLost
					}
					return nil
				}
				runs := 0
				for range 3 {
					a, err := g.Do(t.Context(), ask(t, semel.Policy{}), func(context.Context) (semel.Result, error) {
						runs++
						return semel.Result{Data: []byte("r")}, nil
					})
					if err != nil || string(a.Data) != "r" {
						t.Errorf("got %+v, %v", a, err)
					}
				}
				if runs != 1 || times == 0 {
					t.Errorf("%d runs, %d answers lost", runs, times)
				}
			})
		})
	}
}

func TestFieldBug04_LeaseEndsWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Store: memory.New(memory.Options{})}
		a := ask(t, semel.Policy{Class: semel.AtLeastOnce, Lease: time.Second})
		first := newGuard(t, store)
		slow, _ := begin(t, first, a)
		// The first process cannot reach the store, so it cannot renew.
		store.down.Store(true)
		<-slow.Context().Done()
		if cause := context.Cause(slow.Context()); !errors.Is(cause, semel.ErrInDoubt) {
			t.Errorf("cause %v", cause)
		}
		store.down.Store(false)
		r, err := store.Get(t.Context(), first.Digest(a.Key))
		if err != nil || !r.Now.Before(r.Record.Expires()) {
			t.Errorf("the operation was stopped at %v, after its lease had ended at %v (%v)", r.Now, r.Record.Expires(), err)
		}
		time.Sleep(time.Second)
		heir, v := begin(t, newGuard(t, store), a)
		if heir == nil || heir.Attempt() != 2 || heir.Version().Compare(slow.Version()) <= 0 {
			t.Fatalf("no takeover: %+v", v)
		}
		if _, err := slow.Complete(semel.Result{Data: []byte("stale")}); !errors.Is(err, semel.ErrInDoubt) {
			t.Errorf("the stale completion gave %v", err)
		}
		if _, err := heir.Complete(semel.Result{Data: []byte("heir")}); err != nil {
			t.Error(err)
		}
		if _, v := begin(t, newGuard(t, store), a); string(v.Held.Result) != "heir" {
			t.Errorf("replayed %q", v.Held.Result)
		}
	})
}

func TestFieldBug06_StaleHolderTouchesItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(*semel.Claim) error{
			"complete": func(c *semel.Claim) error { _, err := c.Complete(semel.Result{Data: []byte("stale")}); return err },
			"release":  func(c *semel.Claim) error { return c.Release(semel.Result{}) },
			"doubt":    func(c *semel.Claim) error { return c.Doubt() },
		} {
			store := &faulty{Store: memory.New(memory.Options{})}
			a := ask(t, semel.Policy{Class: semel.AtLeastOnce, Lease: time.Second})
			stale, _ := begin(t, newGuard(t, store), a)
			store.down.Store(true) // no renewals
			time.Sleep(2 * time.Second)
			store.down.Store(false)
			guard := newGuard(t, store)
			heir, _ := begin(t, guard, a)
			if err := end(stale); err == nil {
				t.Errorf("%s: the stale holder was told that it ended the claim", name)
			}
			r, err := store.Get(t.Context(), guard.Digest(a.Key))
			if err != nil || r.Record.State != semel.Pending || r.Record.Version != heir.Version() {
				t.Errorf("%s: the successor's record is now %+v (%v)", name, r.Record, err)
			}
			if _, err := heir.Complete(semel.Result{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestFieldBug09_PrunedKeyIsTakenForNew(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	store := memory.New(memory.Options{Now: func() time.Time { return now }})
	g := newGuard(t, store)
	a := ask(t, semel.Policy{Replay: time.Hour, Remember: 24 * time.Hour})
	a.Key.ID = "019b76da-a800-7000-8000-000000000000" // of that very time
	if at, ok := semel.KeyTime(a.Key.ID); !ok || !at.Equal(now) {
		t.Fatal(at, ok)
	}
	c, v := begin(t, g, a)
	if c == nil {
		t.Fatalf("refused: %+v", v)
	}
	if _, err := c.Complete(semel.Result{Code: 201, Data: []byte("r")}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		age  time.Duration
		want semel.Reason
	}{{59 * time.Minute, semel.Finished}, {time.Hour, semel.Gone}, {23 * time.Hour, semel.Gone}, {26 * time.Hour, semel.Gone}} {
		now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(step.age)
		c, v := begin(t, newGuard(t, store), a)
		if c != nil || v.Reason != step.want && !(step.age > 24*time.Hour && v.Reason == semel.Expired) {
			t.Errorf("after %v: got %v, want %v", step.age, v.Reason, step.want)
		}
	}
	if n, err := store.Sweep(t.Context(), 100); err != nil || n == 0 {
		t.Fatal("nothing was pruned:", n, err)
	}
	if c, v := begin(t, newGuard(t, store), a); c != nil || v.Reason != semel.Expired {
		t.Errorf("pruned: got %v, want the key refused by its own time", v.Reason)
	}
}

func TestFieldBug10_WaiterDoesNotReadTheResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		a := ask(t, semel.Policy{})
		one, two := newGuard(t, store), newGuard(t, store)
		c, _ := begin(t, one, a)
		var wg sync.WaitGroup
		for _, g := range []*semel.Guard{one, two} { // in this process, and in another
			wg.Go(func() {
				c, v := begin(t, g, a)
				if c != nil || v.Action != semel.Replay || string(v.Held.Result) != "r" {
					t.Errorf("the waiter got claim %v, %v %q", c, v.Reason, v.Held.Result)
				}
			})
		}
		synctest.Wait()
		time.Sleep(3 * time.Second)
		if _, err := c.Complete(semel.Result{Data: []byte("r")}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	})
}

func TestFieldBug11_StoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Store: memory.New(memory.Options{})}
		g := newGuard(t, store)
		store.down.Store(true)
		_, err := g.Do(t.Context(), ask(t, semel.Policy{}), func(context.Context) (semel.Result, error) {
			t.Error("ran without a claim")
			return semel.Result{}, nil
		})
		if !errors.Is(err, semel.ErrUnavailable) || !errors.Is(err, errLost) {
			t.Errorf("got %v", err)
		}
		store.down.Store(false)
		time.Sleep(time.Minute) // the guard gives up looking for the claim that never landed
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestFieldBug12_CrashBlocksTheKeyForItsRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for class, want := range map[semel.Class]semel.Reason{semel.AtMostOnce: semel.InDoubt, semel.AtLeastOnce: semel.TakenOver} {
			store := &faulty{Store: memory.New(memory.Options{})}
			a := ask(t, semel.Policy{Class: class, Lease: 2 * time.Second, Wait: -1})
			begin(t, newGuard(t, store), a)
			store.down.Store(true) // crashed: it renews nothing
			time.Sleep(1900 * time.Millisecond)
			store.down.Store(false)
			if _, v := begin(t, newGuard(t, store), a); v.Reason != semel.InProgress {
				t.Errorf("%v: within the lease got %v", class, v.Reason)
			}
			time.Sleep(200 * time.Millisecond)
			c, v := begin(t, newGuard(t, store), a)
			if v.Reason != want {
				t.Errorf("%v: after the lease got %v, want %v", class, v.Reason, want)
			}
			if c != nil {
				_ = c.Release(semel.Result{})
			}
		}
	})
}

func TestFieldBug14_WaitersHoldAllConnections(t *testing.T) {
	pool := make(chan struct{}, 1) // a pool of one connection
	store := &faulty{Store: memory.New(memory.Options{})}
	g := newGuard(t, store)
	store.before = func(*semel.Record) error {
		select {
		case pool <- struct{}{}:
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("no connection is free")
		}
	}
	store.after = func(*semel.Record) error { <-pool; return nil }
	var runs atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			_, err := g.Do(t.Context(), ask(t, semel.Policy{}), func(context.Context) (semel.Result, error) {
				runs.Add(1)
				pool <- struct{}{} // the operation itself needs a connection
				<-pool
				return semel.Result{}, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

func TestFieldBug15_NoTimeLeftIsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{-1, 1, 5 * time.Millisecond, time.Second} {
			store := memory.New(memory.Options{})
			a := ask(t, semel.Policy{Wait: wait})
			c, _ := begin(t, newGuard(t, store), a)
			start := time.Now()
			if _, v := begin(t, newGuard(t, store), a); v.Reason != semel.InProgress || time.Since(start) > max(wait, 0) {
				t.Errorf("wait %v: got %v after %v", wait, v.Reason, time.Since(start))
			}
			_ = c.Release(semel.Result{})
		}
	})
}

func TestFieldBug20_DuplicateIsReportedAsAnOutage(t *testing.T) {
	store := &faulty{Store: memory.New(memory.Options{})}
	a := ask(t, semel.Policy{})
	c, _ := begin(t, newGuard(t, store), a)
	if _, err := c.Complete(semel.Result{Data: []byte("r")}); err != nil {
		t.Fatal(err)
	}
	g := newGuard(t, store)
	calls := 0
	store.before = func(*semel.Record) error { calls++; return nil }
	if _, v := begin(t, g, a); v.Reason != semel.Finished || calls != 1 {
		t.Errorf("the duplicate got %v after %d writes were tried; want the result after 1", v.Reason, calls)
	}
}

func TestFieldBug21_InProgressIsToldOfFinishedWork(t *testing.T) {
	store := memory.New(memory.Options{})
	a := ask(t, semel.Policy{Wait: -1})
	one, two := newGuard(t, store), newGuard(t, store)
	c, _ := begin(t, one, a)
	for _, g := range []*semel.Guard{one, two} {
		if _, v := begin(t, g, a); v.Reason != semel.InProgress {
			t.Errorf("got %v, want in progress", v.Reason)
		}
	}
	if _, err := c.Complete(semel.Result{}); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*semel.Guard{one, two} {
		if _, v := begin(t, g, a); v.Reason == semel.InProgress {
			t.Error("finished work is told as in progress")
		}
	}
}

// forgetful is a store whose reads look under another key than its writes.
type forgetful struct{ semel.Store }

func (f forgetful) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	next.Digest[0] ^= next.Nonce[0] | 1
	return f.Store.CompareAndSwap(ctx, old, next)
}

func TestFieldBug24_ReplayNeverEngages(t *testing.T) {
	_, err := semel.NewGuard(forgetful{memory.New(memory.Options{})}, semel.Options{})
	if err == nil || !strings.Contains(err.Error(), "a duplicate was not recognised") {
		t.Errorf("the self-test says %v", err)
	}
}

func TestFieldBug25_KeysThatLookAlike(t *testing.T) {
	seen := make(map[semel.Digest]semel.Key)
	keys := []semel.Key{{Scope: "a|b", ID: "c"}, {Scope: "a", ID: "b|c"}, {Scope: "", ID: "ac"}, {Scope: "ac", ID: ""}}
	for _, id := range []string{"abc", "ABC", "abc ", "ábc", "a\u0301bc", "abc\x00", strings.Repeat("x", 40), strings.Repeat("x", 48)} {
		keys = append(keys, semel.Key{Scope: "a", ID: id}, semel.Key{Scope: "A", ID: id})
	}
	for _, k := range keys {
		for _, secret := range [][]byte{nil, []byte("s1"), []byte("s2")} {
			d := k.Digest(secret)
			if other, dup := seen[d]; dup {
				t.Errorf("%q and %q have one digest", k, other)
			}
			seen[d] = k
		}
	}
	if semel.JoinScope("a|b", "c") == semel.JoinScope("a", "b|c") || semel.JoinScope(`a\`, "b") == semel.JoinScope("a", `\b`) {
		t.Error("two lists of parts give one scope")
	}
}

func TestFieldBug32_VersionRestartsAfterDeletion(t *testing.T) {
	var now atomic.Int64
	clock := func() time.Time { return time.Unix(0, now.Load()) }
	store := &faulty{Store: memory.New(memory.Options{Now: clock})}
	a := ask(t, semel.Policy{Class: semel.AtLeastOnce})
	dead, _ := begin(t, newGuard(t, store), a)
	// Another process takes the key over, ends it, and the record is deleted.
	now.Add(int64(time.Hour))
	other, _ := begin(t, newGuard(t, store), a)
	if err := other.Release(semel.Result{}); err != nil {
		t.Fatal(err)
	}
	now.Add(int64(1000 * time.Hour))
	if n, err := store.Store.(*memory.Store).Sweep(t.Context(), 100); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	g := newGuard(t, store)
	heir, _ := begin(t, g, a)
	if heir.Version().Compare(dead.Version()) <= 0 {
		t.Errorf("the heir's version %v is not above %v", heir.Version(), dead.Version())
	}
	if _, err := dead.Complete(semel.Result{Data: []byte("dead")}); !errors.Is(err, semel.ErrInDoubt) {
		t.Errorf("the dead owner completed its heir's claim: %v", err)
	}
	if _, err := heir.Complete(semel.Result{Data: []byte("heir")}); err != nil {
		t.Error(err)
	}
}

func TestFieldBug38_ApplicationClocksDecideNothing(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		// The store's clock is off from this process' by an hour, and moves with it.
		var moved atomic.Int64
		store := memory.New(memory.Options{Now: func() time.Time { return time.Now().Add(skew + time.Duration(moved.Load())) }})
		a := ask(t, semel.Policy{Wait: -1, Replay: 24 * time.Hour})
		c, _ := begin(t, newGuard(t, store), a)
		if _, v := begin(t, newGuard(t, store), a); v.Reason != semel.InProgress {
			t.Errorf("skew %v: got %v for a running claim", skew, v.Reason)
		}
		if _, err := c.Complete(semel.Result{Data: []byte(strconv.Itoa(1))}); err != nil {
			t.Fatal(err)
		}
		moved.Store(int64(24*time.Hour - time.Minute))
		if _, v := begin(t, newGuard(t, store), a); v.Reason != semel.Finished {
			t.Errorf("skew %v: got %v a minute before the end of replay", skew, v.Reason)
		}
		moved.Store(int64(24*time.Hour + time.Minute))
		if _, v := begin(t, newGuard(t, store), a); v.Reason != semel.Gone {
			t.Errorf("skew %v: got %v a minute after the end of replay", skew, v.Reason)
		}
	}
}
