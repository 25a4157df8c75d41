package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/resolve"
	"github.com/semelhq/semel/store/memory"
)

// world is a store with operations in doubt, inside a synctest bubble.
type world struct {
	*testing.T
	store semel.Store

	mu     sync.Mutex
	events []resolve.Event
	calls  []call // of resolvers
}

type call struct {
	id string
	at time.Duration // since the first
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{T: t, store: memory.New(memory.Options{})}
}

func (w *world) guard() *semel.Guard {
	w.Helper()
	g, err := semel.NewGuard(w.store, semel.Options{})
	if err != nil {
		w.Fatal(err)
	}
	return g
}

// policy gives one whose resolver is noted, and then answers as answer does.
func (w *world) policy(name string, answer semel.Resolver) *semel.Policy {
	start := time.Now()
	p, err := semel.Policy{Name: name, Lease: time.Second, Wait: -1, Resolve: func(ctx context.Context, u semel.Unresolved) (semel.Settlement, error) {
		w.mu.Lock()
		w.calls = append(w.calls, call{u.Record.Key.ID, time.Since(start)})
		w.mu.Unlock()
		return answer(ctx, u)
	}}.Filled()
	if err != nil {
		w.Fatal(err)
	}
	return &p
}

func (w *world) asked(id string) (at []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c.id == id {
			at = append(at, c.at)
		}
	}
	return at
}

func (w *world) called() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

func (w *world) all() []resolve.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

func (w *world) told(kind resolve.Kind) (out []resolve.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func ask(id string, p *semel.Policy) semel.Ask {
	return semel.Ask{Key: semel.Key{Scope: "shop", ID: id}, Fingerprint: semel.FingerprintOf([]byte(id)), Memo: []byte("memo of " + id), Policy: p}
}

// doubt leaves an operation in doubt.
func (w *world) doubt(id string, p *semel.Policy) {
	w.Helper()
	_, err := w.guard().Do(w.Context(), ask(id, p), func(context.Context) (semel.Result, error) { return semel.Result{}, errLost })
	if !errors.Is(err, errLost) {
		w.Fatal(err)
	}
}

var errLost = errors.New("the connection was lost")

// run starts a completer, and gives what stops it.
func (w *world) run(g *semel.Guard, o resolve.Options) (c *resolve.Completer, stop func()) {
	w.Helper()
	o.Observe = func(e resolve.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}
	c, err := resolve.New(g, o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	}
}

// retry asks again, as a client would, and tells whether it was executed.
func (w *world) retry(id string, p *semel.Policy) (answer semel.Answer, ran bool, err error) {
	answer, err = w.guard().Do(w.Context(), ask(id, p), func(context.Context) (semel.Result, error) {
		ran = true
		return semel.Result{Code: 200, Data: []byte("run anew")}, nil
	})
	return answer, ran, err
}

func done(text string) semel.Settlement {
	return semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte(text)}, Why: "the provider has it"}
}

func TestDoneIsReplayedAndNotDoneRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(_ context.Context, u semel.Unresolved) (semel.Settlement, error) {
			if u.Policy != "charge" || string(u.Memo) != "memo of "+u.Record.Key.ID {
				t.Errorf("asked with %+v", u)
			}
			if u.Record.Key.ID == "absent" {
				return semel.Settlement{State: semel.Released, Why: "the provider never saw it"}, nil
			}
			return done("found by " + u.DerivedKey("charge")), nil
		})
		w.doubt("there", p)
		w.doubt("absent", p)
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Owner: "host:1"})
		defer stop()
		time.Sleep(time.Second)
		for range 2 {
			a, ran, err := w.retry("there", p)
			u := semel.Unresolved{Record: semel.Record{Digest: w.guard().Digest(ask("there", p).Key)}}
			if want := "found by " + u.DerivedKey("charge"); ran || err != nil || !a.Replayed || a.Code != 201 || string(a.Data) != want {
				t.Errorf("there: got %d %q, ran %v, %v; want %q", a.Code, a.Data, ran, err, want)
			}
		}
		for i := range 2 {
			a, ran, err := w.retry("absent", p)
			if ran != (i == 0) || err != nil || string(a.Data) != "run anew" || a.Attempt != 2 {
				t.Errorf("absent, retry %d: got %q of attempt %d, ran %v, %v", i, a.Data, a.Attempt, ran, err)
			}
		}
		held, err := w.store.Get(t.Context(), w.guard().Digest(ask("there", p).Key))
		if want := "resolver charge@host:1: the provider has it"; err != nil || held.Record.Owner != want {
			t.Errorf("the record says %q, want %q", held.Record.Owner, want)
		}
		if w.called() != 2 || len(w.told(resolve.Settled)) != 2 || len(w.all()) != 2 {
			t.Errorf("%d calls, events %+v; want one settlement of each", w.called(), w.all())
		}
	})
}

// Two processes, many keys: each is asked for once.
func TestOneProcessAtATimeAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) {
			time.Sleep(50 * time.Millisecond)
			return done("x"), nil
		})
		const keys = 350 // more than a page
		for i := range keys {
			w.doubt(fmt.Sprint(i), p)
		}
		for range 2 {
			_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}})
			defer stop()
		}
		time.Sleep(5 * time.Second) // the next search comes later
		if n := len(w.told(resolve.Settled)); n != keys || w.called() != keys {
			t.Errorf("%d keys settled by %d calls, want %d by %d", n, w.called(), keys, keys)
		}
	})
}

// What stays unknown is asked for less and less often, by all processes together.
func TestUnknownBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) {
			return semel.Settlement{Why: "it does not answer"}, nil
		})
		w.doubt("k", p)
		o := resolve.Options{Policies: []*semel.Policy{p}, Backoff: 4 * time.Second, BackoffCap: time.Minute}
		var stops []func()
		for range 3 {
			_, stop := w.run(w.guard(), o)
			stops = append(stops, stop)
			time.Sleep(time.Second) // so that they do not look at the same instant
		}
		time.Sleep(10 * time.Minute)
		for _, stop := range stops { // the pauses are in the store, and outlive the processes
			stop()
		}
		_, stop := w.run(w.guard(), o)
		time.Sleep(10 * time.Minute)
		stop()
		at := w.asked("k")
		want := 4 * time.Second
		for i := 1; i < len(at); i++ {
			if pause := at[i] - at[i-1]; pause < want*3/4 || pause > want*5/4+o.Backoff/4 {
				t.Errorf("pause %d is %v, want about %v", i, pause, want)
			}
			want = min(2*want, time.Minute)
		}
		if len(at) < 18 || len(at) > 30 {
			t.Errorf("asked %d times in 20 minutes, want about 22", len(at))
		}
		unknown := w.told(resolve.Unknown)
		if len(unknown) != len(at) || len(w.all()) != len(at) {
			t.Fatalf("%d events for %d calls", len(w.all()), len(at))
		}
		if e := unknown[3]; e.Looks != 4 || e.Why != "it does not answer" || e.Next < 24*time.Second || e.Next > 40*time.Second || e.Err != nil {
			t.Errorf("the fourth event: %+v", e)
		}
		if _, ran, err := w.retry("k", p); ran || !errors.Is(err, semel.ErrInDoubt) {
			t.Errorf("the retry: ran %v, %v; want in doubt", ran, err)
		}
	})
}

// badly is a resolver that fails in the way that a key's name says, until it is
// mended.
func badly(mend <-chan struct{}, mended *atomic.Bool) semel.Resolver {
	return func(ctx context.Context, u semel.Unresolved) (semel.Settlement, error) {
		if mended.Load() {
			return done("late"), nil
		}
		switch id := u.Record.Key.ID; {
		case id[:3] == "err":
			return done("not to be believed"), errLost
		case id[:3] == "pan":
			panic("index out of range")
		case id[:3] == "sta":
			return semel.Settlement{State: semel.Pending}, nil
		case id[:3] == "obe": // it hangs and heeds its context
			<-ctx.Done()
			return semel.Settlement{}, ctx.Err()
		case id[:3] == "han":
			<-mend
			return done("of the call that was given up"), nil
		}
		return done("good"), nil
	}
}

// Resolvers that err, hang or panic have the other keys settled meanwhile, and
// are asked again.
func TestBadResolversBlockNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		mend := make(chan struct{})
		var mended atomic.Bool
		p := w.policy("charge", badly(mend, &mended))
		kinds := []string{"err", "pan", "sta", "obe", "han"}
		for i := range 6 {
			for _, kind := range kinds {
				w.doubt(fmt.Sprint(kind, i), p)
			}
		}
		const good = 40
		for i := range good {
			w.doubt(fmt.Sprint("good", i), p)
		}
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Timeout: 2 * time.Second})
		time.Sleep(15 * time.Second)
		if n := len(w.told(resolve.Settled)); n != good {
			t.Errorf("%d keys settled after 15 s, want the %d whose resolver answers", n, good)
		}
		for _, kind := range kinds {
			if kind != "han" && len(w.asked(kind+"0")) < 2 {
				t.Errorf("%s: asked %d times, want again", kind, len(w.asked(kind+"0")))
			}
		}
		if n := len(w.asked("han0")); n != 1 {
			t.Errorf("a resolver that hangs was called %d times for one key", n)
		}
		mended.Store(true)
		close(mend)
		time.Sleep(20 * time.Minute)
		if n := len(w.told(resolve.Settled)); n != good+6*len(kinds) {
			t.Errorf("%d keys settled in the end, want all %d", n, good+6*len(kinds))
		}
		for _, id := range []string{"err0", "pan0", "sta0", "obe0", "han0"} {
			if a, ran, err := w.retry(id, p); ran || err != nil || string(a.Data) != "late" {
				t.Errorf("%s: got %q, ran %v, %v", id, a.Data, ran, err)
			}
		}
		stop()
	})
}

// The processes of one policy do not wait for another's.
func TestPoliciesDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := w.policy("slow", func(ctx context.Context, _ semel.Unresolved) (semel.Settlement, error) {
			<-ctx.Done()
			return semel.Settlement{}, ctx.Err()
		})
		quick := w.policy("quick", func(context.Context, semel.Unresolved) (semel.Settlement, error) { return done("x"), nil })
		for i := range 20 {
			w.doubt(fmt.Sprint("slow", i), slow)
			w.doubt(fmt.Sprint("quick", i), quick)
		}
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{slow, quick}})
		time.Sleep(time.Second)
		if n := len(w.told(resolve.Settled)); n != 20 {
			t.Errorf("%d settled within a second, want the 20 of the quick one", n)
		}
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Run took %v to end", took)
		}
	})
}
