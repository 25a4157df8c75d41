package resolve_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/resolve"
	"github.com/semelhq/semel/store/memory"
)

// cut is a store whose connection can be cut.
type cut struct {
	semel.Store
	off atomic.Bool
}

func (s *cut) Unwrap() semel.Store { return s.Store }

func (s *cut) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if s.off.Load() {
		return semel.Reading{}, errLost
	}
	return s.Store.Get(ctx, d)
}

func (s *cut) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.off.Load() {
		return semel.Reading{}, errLost
	}
	return s.Store.CompareAndSwap(ctx, old, next)
}

// A process that dies while it asks leaves its key to the others, when its lease
// has ended.
func TestAKilledLeadersKeyIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dead := &cut{Store: w.store}
		first := w.policy("charge", func(ctx context.Context, _ semel.Unresolved) (semel.Settlement, error) {
			dead.off.Store(true) // from here on nothing of it reaches the store
			<-ctx.Done()
			return done("from beyond"), nil
		})
		w.doubt("k", first)
		g, err := semel.NewGuard(dead, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, stop := w.run(g, resolve.Options{Policies: []*semel.Policy{first}, Timeout: time.Hour})
		time.Sleep(time.Second)

		second := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("alive"), nil })
		_, stopSecond := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{second}})
		time.Sleep(3 * time.Second) // the lease of 5 s still runs
		if n := len(w.told(resolve.Settled)); n != 0 || w.called() != 1 {
			t.Errorf("%d settled by %d calls while the leader's lease runs", n, w.called())
		}
		time.Sleep(4 * time.Second)
		if a, ran, err := w.retry("k", second); ran || err != nil || string(a.Data) != "alive" {
			t.Errorf("got %q, ran %v, %v; want the second one's answer", a.Data, ran, err)
		}
		dead.off.Store(false)
		stop() // ends the first one's call, whose answer comes too late
		stopSecond()
		if a, _, err := w.retry("k", second); err != nil || string(a.Data) != "alive" {
			t.Errorf("changed to %q, %v", a.Data, err)
		}
	})
}

// While the resolver is asked, somebody else says "not done", the operation runs
// again and is in doubt again: what the resolver found out is about another attempt.
func TestAnAnswerAboutAnEarlierAttemptDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		calls := 0
		var p *semel.Policy
		p = w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) {
			if calls++; calls > 1 {
				return done("of the second attempt"), nil
			}
			g := w.guard()
			_, err := g.Resolve(t.Context(), g.Digest(ask("k", p).Key), semel.Settlement{State: semel.Released, Who: "anna", Why: "I looked"}, p)
			if err != nil {
				t.Error(err)
			}
			w.doubt("k", p) // it had its effect this time
			return semel.Settlement{State: semel.Released, Why: "not there"}, nil
		})
		w.doubt("k", p)
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Every: time.Hour}) // no search finds it
		defer stop()
		time.Sleep(time.Minute)
		if a, ran, err := w.retry("k", p); ran || err != nil || string(a.Data) != "of the second attempt" {
			t.Errorf("got %q, ran %v, %v; want the answer about the second attempt", a.Data, ran, err)
		}
		if calls != 2 {
			t.Errorf("%d calls, want 2", calls)
		}
	})
}

// A resolver that mixes up its keys, and says so by the version that it looked at.
func TestAnAnswerForAnotherKeyDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var asked []semel.Unresolved
		p := w.policy("charge", func(_ context.Context, u semel.Unresolved) (semel.Settlement, error) {
			asked = append(asked, u)
			s := done("of " + u.Record.Key.ID)
			s.Version = asked[0].Record.Version // that of the first key, for ever
			return s, nil
		})
		w.doubt("a", p)
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}})
		defer stop()
		time.Sleep(time.Second)
		w.doubt("b", p)
		time.Sleep(time.Minute)
		if a, ran, err := w.retry("a", p); ran || err != nil || string(a.Data) != "of a" {
			t.Errorf("a: got %q, ran %v, %v", a.Data, ran, err)
		}
		if a, ran, err := w.retry("b", p); ran || !errors.Is(err, semel.ErrInDoubt) {
			t.Errorf("b: got %q, ran %v, %v; want it in doubt still", a.Data, ran, err)
		}
		failed := w.told(resolve.Failed)
		if len(failed) < 2 || !strings.Contains(failed[0].Err.Error(), "another key's") || len(w.told(resolve.Settled)) != 1 {
			t.Errorf("told %+v, want failures that say why", w.all())
		}
	})
}

// slow is a store of which one write takes its time before it happens.
type slow struct {
	semel.Store
	delay atomic.Int64
}

func (s *slow) Unwrap() semel.Store { return s.Store }

func (s *slow) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	time.Sleep(time.Duration(s.delay.Swap(0)))
	return s.Store.CompareAndSwap(ctx, old, next)
}

// A process that saw that it is time to ask, and got its turn after another had
// asked, does not ask at once once more.
func TestTwoSeeThatItIsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return semel.Settlement{}, nil })
		w.doubt("k", p)
		store := &slow{Store: w.store}
		late, err := semel.NewGuard(store, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store.delay.Store(int64(3 * time.Second))
		o := resolve.Options{Policies: []*semel.Policy{p}, Backoff: 20 * time.Second}
		_, stop := w.run(late, o)
		synctest.Wait() // it has read that nobody has asked yet
		_, stopOther := w.run(w.guard(), o)
		time.Sleep(10 * time.Second)
		if n := w.called(); n != 1 {
			t.Errorf("asked %d times within 10 s, want once", n)
		}
		time.Sleep(2 * time.Minute)
		if n := w.called(); n < 2 {
			t.Errorf("asked %d times in two minutes", n)
		}
		stop()
		stopOther()
	})
}

// An operation that ran again and is in doubt again does not have to wait as
// long as the one before it.
func TestANewDoubtBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return semel.Settlement{}, nil })
		w.doubt("k", p)
		c, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}})
		defer stop()
		time.Sleep(time.Hour)
		g := w.guard()
		digest := g.Digest(ask("k", p).Key)
		if _, err := g.Resolve(t.Context(), digest, semel.Settlement{State: semel.Released, Who: "anna", Why: "I looked"}, p); err != nil {
			t.Fatal(err)
		}
		w.doubt("k", p)
		before := w.called()
		c.Suspect(digest)
		time.Sleep(4 * time.Second)
		if n := w.called() - before; n != 2 {
			t.Errorf("asked %d times within 4 s, want at once and after about 2 s", n)
		}
	})
}

// A key that is suspected is looked at when its lease ends, without a search.
func TestSuspectsAreLookedAtSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
		c, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Every: time.Hour})
		defer stop()
		synctest.Wait() // the first search is over
		w.doubt("k", p)
		g := w.guard()
		c.Suspect(g.Digest(ask("k", p).Key))
		synctest.Wait()
		if len(w.told(resolve.Settled)) != 1 {
			t.Error("a key that is in doubt was not settled at once")
		}
		// One whose process is gone: its lease runs for a second.
		dead := &cut{Store: w.store}
		gone, err := semel.NewGuard(dead, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		claim, _, err := gone.Begin(t.Context(), ask("k2", p))
		if err != nil || claim == nil {
			t.Fatal(claim, err)
		}
		dead.off.Store(true)
		c.Suspect(claim.Digest())
		c.Suspect(g.Digest(ask("never used", p).Key))
		time.Sleep(900 * time.Millisecond)
		if n := len(w.told(resolve.Settled)); n != 1 {
			t.Errorf("%d settled while the lease runs", n)
		}
		time.Sleep(200 * time.Millisecond)
		if n := len(w.told(resolve.Settled)); n != 2 || len(w.all()) != 2 {
			t.Errorf("%d settled after the lease, events %+v", n, w.all())
		}
		time.Sleep(time.Minute)
	})
}

// dying is a store whose process dies when it has settled a key.
type dying struct {
	cut
}

func (s *dying) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.cut.CompareAndSwap(ctx, old, next)
	if next.State == semel.Done && strings.HasPrefix(next.Owner, "resolver ") {
		s.off.Store(true)
	}
	return r, err
}

// A process that dies after it has settled a key leaves nothing pending, which
// nobody would ever take over.
func TestNothingStaysPendingBesideASettledKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
		w.doubt("k", p)
		g, err := semel.NewGuard(&dying{cut{Store: w.store}}, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, stop := w.run(g, resolve.Options{Policies: []*semel.Policy{p}})
		time.Sleep(time.Second)
		stop()
		pending, err := w.store.(semel.Lister).List(t.Context(), semel.Filter{State: semel.Pending})
		if a, _, errRetry := w.retry("k", p); err != nil || len(pending) != 0 || errRetry != nil || string(a.Data) != "x" {
			t.Errorf("%d records stay pending, %v; the retry got %q, %v", len(pending), err, a.Data, errRetry)
		}
	})
}

// A request that was given up may still be on its way.
func TestTheResolverIsAskedAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
		w.doubt("k", p)
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, After: 3 * time.Second})
		defer stop()
		time.Sleep(2900 * time.Millisecond)
		if w.called() != 0 {
			t.Error("asked before 3 s were over")
		}
		time.Sleep(200 * time.Millisecond)
		if w.called() != 1 {
			t.Errorf("asked %d times after 3 s, want once", w.called())
		}
	})
}

// What ran under a policy that is not here is told once and left alone.
func TestOrphansAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		here := w.policy("here", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
		there := w.policy("there", func(context.Context, semel.Unresolved) (semel.Settlement, error) { panic("not asked") })
		bare, err := semel.Policy{}.Filled()
		if err != nil {
			t.Fatal(err)
		}
		w.doubt("k", there)
		silent := ask("bare", &bare)
		silent.Memo = nil
		if _, err := w.guard().Do(t.Context(), silent, func(context.Context) (semel.Result, error) { return semel.Result{}, errLost }); !errors.Is(err, errLost) {
			t.Fatal(err)
		}
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{here}})
		defer stop()
		time.Sleep(5 * time.Minute)
		orphans := w.told(resolve.Orphan)
		if len(orphans) != 2 || len(w.all()) != 2 || orphans[0].Policy+orphans[1].Policy != "there" {
			t.Errorf("told %+v, want one orphan of the policy there and one of none", w.all())
		}
	})
}

// While the store is away nobody is asked, and it goes on when it is back.
func TestTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
		w.doubt("k", p)
		store := &cut{Store: w.store}
		g, err := semel.NewGuard(store, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store.off.Store(true) // the search still works: it is not the store's arbiter
		_, stop := w.run(g, resolve.Options{Policies: []*semel.Policy{p}})
		defer stop()
		time.Sleep(time.Minute)
		if failed := w.told(resolve.Failed); w.called() != 0 || len(failed) == 0 || !errors.Is(failed[0].Err, errLost) || failed[0].Next == 0 {
			t.Errorf("%d calls, told %+v; want none and the store's error", w.called(), failed)
		}
		store.off.Store(false)
		time.Sleep(2 * time.Minute)
		if len(w.told(resolve.Settled)) != 1 {
			t.Errorf("not settled when the store was back: %+v", w.all())
		}
	})
}

func TestRefusedOptions(t *testing.T) {
	w := newWorld(t)
	none := func(context.Context, semel.Unresolved) (semel.Settlement, error) { return semel.Settlement{}, nil }
	p := w.policy("charge", none)
	twice, bare, unnamed, fenced := *p, *p, *p, *p
	bare.Resolve, unnamed.Name, fenced.Class = nil, "", semel.Fenced
	for _, tc := range []struct {
		policies []*semel.Policy
		o        resolve.Options
		want     string
	}{
		{nil, resolve.Options{}, "Options.Policies is empty"},
		{[]*semel.Policy{nil}, resolve.Options{}, "a policy is nil"},
		{[]*semel.Policy{p, &twice}, resolve.Options{}, `two policies are named "charge"`},
		{[]*semel.Policy{&bare}, resolve.Options{}, `policy "charge" has no resolver`},
		{[]*semel.Policy{&unnamed}, resolve.Options{}, "give it one"},
		{[]*semel.Policy{&fenced}, resolve.Options{}, "its resolver would never be asked"},
		{[]*semel.Policy{p}, resolve.Options{Timeout: -1}, "negative"},
		{[]*semel.Policy{p}, resolve.Options{Backoff: time.Hour, BackoffCap: time.Minute}, "longer than its cap"},
		{[]*semel.Policy{p}, resolve.Options{Lease: time.Millisecond}, "too short to be renewed"},
	} {
		tc.o.Policies = tc.policies
		if _, err := resolve.New(w.guard(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
	if _, err := resolve.New(nil, resolve.Options{}); err == nil {
		t.Error("a completer without a guard")
	}
	mute, err := semel.NewGuard(struct{ semel.Store }{memory.New(memory.Options{})}, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resolve.New(mute, resolve.Options{Policies: []*semel.Policy{p}}); err == nil || !strings.Contains(err.Error(), "cannot list") {
		t.Errorf("a store that cannot list: %v", err)
	}
	c, err := resolve.New(w.guard(), resolve.Options{Policies: []*semel.Policy{p}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Run(ctx); err == nil {
		t.Error("a completer ran twice")
	}
}

// slowList is a store in which a search takes long.
type slowList struct {
	semel.Store
	takes time.Duration
	lists atomic.Int32
}

func (s *slowList) Unwrap() semel.Store { return s.Store }

func (s *slowList) List(ctx context.Context, _ semel.Filter) ([]semel.Record, error) {
	s.lists.Add(1)
	select {
	case <-time.After(s.takes):
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A search that takes long is followed by a long rest, and one that does not is made
// Every so often; hints are followed meanwhile.
func TestALongSearchIsFollowedByALongRest(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		want  int32 // searches in an hour
	}{
		{0, 360},
		{100 * time.Millisecond, 360},
		{time.Second, 3600/21 + 1},
		{4 * time.Second, 3600/84 + 1},
		{time.Hour, 3600/105 + 1}, // cut off after 5 s
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			slow := &slowList{Store: w.store, takes: c.takes}
			g, err := semel.NewGuard(slow, semel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
			completer, stop := w.run(g, resolve.Options{Policies: []*semel.Policy{p}})
			defer stop()
			time.Sleep(time.Hour - time.Millisecond)
			if got := slow.lists.Load(); got < c.want-1 || got > c.want {
				t.Errorf("a search takes %v: %d searches in an hour, want %d", c.takes, got, c.want)
			}
			w.doubt("k", p)
			completer.Suspect(g.Digest(ask("k", p).Key))
			time.Sleep(min(6*time.Second, c.takes+time.Second))
			if len(w.told(resolve.Settled)) != 1 {
				t.Errorf("a search takes %v: a hint was not followed meanwhile", c.takes)
			}
		})
	}
}
