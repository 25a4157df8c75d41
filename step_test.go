package semel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// attempts is an operation whose process dies again and again: each attempt is
// a guard of its own over one store, and a claim that nobody renews or ends.
type attempts struct {
	t     *testing.T
	store semel.Store
	ask   semel.Ask
	// ran has the steps that were executed with their derived keys, in order.
	ran []string
}

func newAttempts(t *testing.T, p semel.Policy) *attempts {
	t.Helper()
	return &attempts{t: t, store: memory.New(memory.Options{}), ask: ask(t, p)}
}

// claim gives the next attempt, whose predecessor's lease has ended.
func (a *attempts) claim() *semel.Claim {
	a.t.Helper()
	c, v := begin(a.t, newGuard(a.t, a.store), a.ask)
	if c == nil {
		a.t.Fatalf("no claim: %v %v", v.Action, v.Reason)
	}
	return c
}

// dies ends the attempt without an outcome, as its lease would.
func (a *attempts) dies(c *semel.Claim) {
	a.t.Helper()
	if err := c.Doubt(); err != nil {
		a.t.Fatal(err)
	}
}

// step runs a step that answers with its name, and notes it.
func (a *attempts) step(c *semel.Claim, name string) (semel.Result, error) {
	return c.Step(c.Context(), name, func(ctx context.Context) (semel.Result, error) {
		key, ok := semel.DerivedKey(ctx)
		if !ok {
			a.t.Errorf("step %q has no derived key in its context", name)
		}
		a.ran = append(a.ran, name+" "+key)
		return semel.Result{Code: 200 + len(name), Data: []byte("did " + name)}, nil
	})
}

func (a *attempts) mustStep(c *semel.Claim, name string) {
	a.t.Helper()
	r, err := a.step(c, name)
	if err != nil || r.Code != 200+len(name) || string(r.Data) != "did "+name {
		a.t.Errorf("step %q of attempt %d: %d %q, %v", name, c.Attempt(), r.Code, r.Data, err)
	}
}

func takeOver() semel.Policy {
	return semel.Policy{Class: semel.Fenced, Lease: time.Second}
}

func TestO1_AFinishedStepIsNotRunAgain(t *testing.T) {
	a := newAttempts(t, takeOver())
	first := a.claim()
	a.mustStep(first, "charge")
	a.mustStep(first, "mail")
	a.dies(first)
	second := a.claim()
	if second.Attempt() != 2 {
		t.Fatalf("attempt %d, want 2", second.Attempt())
	}
	a.mustStep(second, "charge")
	a.mustStep(second, "mail")
	a.mustStep(second, "ledger")
	if _, err := second.Complete(semel.Result{Data: []byte("done")}); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(a.ran))
	for i, ran := range a.ran {
		names[i], _, _ = strings.Cut(ran, " ")
	}
	if want := []string{"charge", "mail", "ledger"}; !slices.Equal(names, want) {
		t.Errorf("ran %q, want %q", names, want)
	}
}

// The interrupted step is the only one that runs again, under the same key.
func TestO2_AnInterruptedStepRunsAgainUnderTheSameKey(t *testing.T) {
	a := newAttempts(t, takeOver())
	for range 3 {
		c := a.claim()
		a.mustStep(c, "charge")
		_, err := c.Step(c.Context(), "ship", func(ctx context.Context) (semel.Result, error) {
			key, _ := semel.DerivedKey(ctx)
			a.ran = append(a.ran, "ship "+key)
			return semel.Result{}, errLost
		})
		if !errors.Is(err, errLost) {
			t.Errorf("got %v, want the step's own error", err)
		}
		a.dies(c)
	}
	if len(a.ran) != 4 || a.ran[1] != a.ran[2] || a.ran[2] != a.ran[3] {
		t.Errorf("ran %q: want charge once, and ship three times under one key", a.ran)
	}
	charge, ship := strings.Fields(a.ran[0])[1], strings.Fields(a.ran[1])[1]
	if charge == ship || len(ship) != 36 || ship[14] != '8' {
		t.Errorf("derived keys %s and %s: want two UUIDs of version 8", charge, ship)
	}
	held, err := a.store.Get(t.Context(), a.ask.Key.Digest(nil))
	if u := held.Record.Unresolved(); err != nil || u.DerivedKey("ship") != ship {
		t.Errorf("the resolver derives %s, the step %s", u.DerivedKey("ship"), ship)
	}
}

// Keys of other operations, and of other steps, are others; the time and the
// process that ask make no difference.
func TestO2_DerivedKeysDependOnOperationAndStepAlone(t *testing.T) {
	seen := make(map[string]string)
	for _, id := range []string{"k", "k2"} {
		for _, secret := range []string{"", "0123456789abcdef"} {
			g, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{Secret: []byte(secret)})
			if err != nil {
				t.Fatal(err)
			}
			c, _ := begin(t, g, semel.Ask{Key: semel.Key{Scope: "s", ID: id}})
			for _, name := range []string{"a", "b", "ab"} {
				_, err := c.Step(c.Context(), name, func(ctx context.Context) (semel.Result, error) {
					key, _ := semel.DerivedKey(ctx)
					what := fmt.Sprint(id, secret, name)
					if other, ok := seen[key]; ok {
						t.Errorf("%s and %s have one key", other, what)
					}
					seen[key] = what
					return semel.Result{}, nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, ok := semel.DerivedKey(t.Context()); ok {
		t.Error("a context that is no step's has a derived key")
	}
}

func TestO3_AnotherOrderIsRefusedAndNamesBoth(t *testing.T) {
	a := newAttempts(t, takeOver())
	first := a.claim()
	a.mustStep(first, "charge")
	a.mustStep(first, "mail")
	a.dies(first)
	second := a.claim()
	_, err := a.step(second, "mail")
	if !errors.Is(err, semel.ErrStep) || !strings.Contains(err.Error(), `"charge"`) || !strings.Contains(err.Error(), `"mail"`) {
		t.Errorf("got %v, want ErrStep that names charge and mail", err)
	}
	if len(a.ran) != 2 {
		t.Errorf("ran %q, want nothing of the second attempt", a.ran)
	}
	a.dies(second)

	// A name that was put between two others.
	third := a.claim()
	a.mustStep(third, "charge")
	_, err = a.step(third, "audit")
	if !errors.Is(err, semel.ErrStep) || !strings.Contains(err.Error(), `"audit"`) || !strings.Contains(err.Error(), `"mail"`) {
		t.Errorf("got %v, want ErrStep that names audit and mail", err)
	}
	if len(a.ran) != 2 {
		t.Errorf("ran %q, want nothing more", a.ran)
	}
}

func TestO3_ANameUsedTwice(t *testing.T) {
	a := newAttempts(t, semel.Policy{})
	c := a.claim()
	a.mustStep(c, "charge")
	if _, err := a.step(c, "charge"); !errors.Is(err, semel.ErrStep) || !strings.Contains(err.Error(), `"charge" was used twice`) {
		t.Errorf("got %v, want ErrStep that names it", err)
	}
	if _, err := a.step(c, ""); !errors.Is(err, semel.ErrStep) {
		t.Errorf("without a name: got %v", err)
	}
	a.mustStep(c, "mail") // the claim goes on
	if len(a.ran) != 2 {
		t.Errorf("ran %q, want charge and mail", a.ran)
	}
	if _, err := c.Complete(semel.Result{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.step(c, "late"); err == nil || len(a.ran) != 2 {
		t.Errorf("a step of a claim that has ended: %v, ran %q", err, a.ran)
	}
}

// A process that was taken for dead ends its step after its heir: both are told
// the result that was recorded first.
func TestO1_AZombiesStepEndsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := takeOver()
		p.FinishWithin = time.Second
		a := newAttempts(t, p)
		hung := &faulty{Store: a.store}
		zombie, _ := begin(t, newGuard(t, hung), a.ask)
		r, err := zombie.Step(zombie.Context(), "charge", func(context.Context) (semel.Result, error) {
			hung.down.Store(true)
			time.Sleep(2 * time.Second) // the lease ends
			heir := a.claim()
			a.mustStep(heir, "charge")
			a.mustStep(heir, "mail")
			hung.down.Store(false)
			if _, err := heir.Complete(semel.Result{Data: []byte("heir's")}); err != nil {
				t.Error(err)
			}
			return semel.Result{Code: 1, Data: []byte("zombie's")}, nil
		})
		if err != nil || r.Code != 206 || string(r.Data) != "did charge" {
			t.Errorf("the zombie's step: %d %q, %v; want the heir's result", r.Code, r.Data, err)
		}
		if _, err := a.step(zombie, "mail"); !errors.Is(err, semel.ErrInDoubt) || len(a.ran) != 2 {
			t.Errorf("the zombie's next step: %v; ran %q, want nothing but what the heir ran", err, a.ran)
		}
		record, err := zombie.Complete(semel.Result{Data: []byte("zombie's")})
		if !errors.Is(err, semel.ErrSettled) || string(record.Result) != "heir's" {
			t.Errorf("the zombie completed: %q, %v", record.Result, err)
		}
	})
}

func TestO1_AResultOverTheCap(t *testing.T) {
	p := takeOver()
	p.MaxResult = 10
	a := newAttempts(t, p)
	runs := 0
	long := func(c *semel.Claim, n int) (semel.Result, error) {
		return c.Step(c.Context(), fmt.Sprint("step of ", n), func(context.Context) (semel.Result, error) {
			runs++
			return semel.Result{Data: bytes.Repeat([]byte("x"), n)}, nil
		})
	}
	first := a.claim()
	if r, err := long(first, 10); err != nil || len(r.Data) != 10 {
		t.Errorf("a result as long as the cap: %d bytes, %v", len(r.Data), err)
	}
	if _, err := long(first, 11); err == nil || !strings.Contains(err.Error(), "MaxResult") {
		t.Errorf("a result over the cap: got %v, want an error that says what to do", err)
	}
	a.dies(first)
	second := a.claim()
	if r, err := long(second, 10); err != nil || len(r.Data) != 10 {
		t.Errorf("replayed: %d bytes, %v", len(r.Data), err)
	}
	if _, err := long(second, 11); !errors.Is(err, semel.ErrGone) {
		t.Errorf("the step whose result was not kept: got %v, want ErrGone", err)
	}
	if runs != 2 {
		t.Errorf("%d runs, want 2", runs)
	}
}

// Without the store no step starts, and one whose record is lost is in doubt.
func TestO1_TheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := takeOver()
		p.ClaimWithin, p.FinishWithin, p.Lease = time.Second, time.Second, time.Minute
		a := newAttempts(t, p)
		a.dies(a.claim())
		store := &faulty{Store: a.store}
		c, _ := begin(t, newGuard(t, store), a.ask)
		store.down.Store(true)
		if _, err := a.step(c, "charge"); !errors.Is(err, semel.ErrUnavailable) || len(a.ran) != 0 {
			t.Errorf("got %v and ran %q, want ErrUnavailable and nothing", err, a.ran)
		}
		store.down.Store(false)
		_, err := c.Step(c.Context(), "mail", func(context.Context) (semel.Result, error) {
			store.down.Store(true)
			return semel.Result{Data: []byte("sent")}, nil
		})
		if !errors.Is(err, semel.ErrInDoubt) {
			t.Errorf("got %v, want ErrInDoubt: it happened and was not recorded", err)
		}
	})
}

// A claim whose key was settled by somebody meanwhile starts no step, although
// its lease would still run.
func TestO1_NoStepOfALostClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := takeOver()
		p.Lease = 30 * time.Second
		a := newAttempts(t, p)
		c := a.claim()
		held, err := a.store.Get(t.Context(), c.Digest())
		if err != nil {
			t.Fatal(err)
		}
		other := held.Record
		other.Nonce, other.Owner = semel.Nonce{9}, "another"
		if _, err := a.store.CompareAndSwap(t.Context(), held.Record.Version, other); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second) // a renewal finds it
		synctest.Wait()
		if _, err := a.step(c, "charge"); !errors.Is(err, semel.ErrInDoubt) || len(a.ran) != 0 {
			t.Errorf("got %v and ran %q, want ErrInDoubt and nothing", err, a.ran)
		}
		if _, err := c.Complete(semel.Result{}); !errors.Is(err, semel.ErrInDoubt) {
			t.Errorf("completed: %v", err)
		}
	})
}

// A store that refuses a step's record for good: the caller learns that the step
// has happened, and why nobody will know of it.
func TestO1_AStepThatIsNotRecorded(t *testing.T) {
	a := newAttempts(t, takeOver())
	var full atomic.Bool
	store := &faulty{Store: a.store, before: func(*semel.Record) error {
		if full.Load() {
			return fmt.Errorf("%w: the disk is full", semel.ErrRejected)
		}
		return nil
	}}
	c, _ := begin(t, newGuard(t, store), a.ask)
	_, err := c.Step(c.Context(), "charge", func(context.Context) (semel.Result, error) {
		full.Store(true)
		return semel.Result{Data: []byte("ch_1")}, nil
	})
	full.Store(false)
	defer func() { _ = c.Doubt() }()
	if !errors.Is(err, semel.ErrInDoubt) || !errors.Is(err, semel.ErrRejected) || !strings.Contains(err.Error(), `"charge" happened and was not recorded`) {
		t.Errorf("got %v, want ErrInDoubt that says what happened and why", err)
	}
}

// A panic of a step goes through, and leaves the claim in order.
func TestO1_AStepPanics(t *testing.T) {
	a := newAttempts(t, takeOver())
	c := a.claim()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not go on")
			}
		}()
		_, _ = c.Step(c.Context(), "charge", func(context.Context) (semel.Result, error) { panic("no") })
	}()
	a.dies(c)
	next := a.claim()
	a.mustStep(next, "charge")
	if len(a.ran) != 1 {
		t.Errorf("ran %q, want charge once", a.ran)
	}
}

// A step's record is remembered as long as its operation, and answers all that
// time, so that a late resume finds it.
func TestO1_StepsAreRememberedLikeTheirOperation(t *testing.T) {
	p := takeOver()
	p.Replay, p.Remember = time.Hour, 3*time.Hour
	a := newAttempts(t, p)
	c := a.claim()
	a.mustStep(c, "charge")
	records, err := a.store.(semel.Lister).List(t.Context(), semel.Filter{ID: "k", State: semel.Done})
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if r := records[0]; r.TTL != 3*time.Hour || r.Replay != 3*time.Hour || r.Key.Scope != "acme|step|1" {
		t.Errorf("kept %v, replayed %v, scope %q", r.TTL, r.Replay, r.Key.Scope)
	}
}
