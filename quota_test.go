package semel_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// budget is a quota of so many new keys, which does not come back.
type budget struct {
	mu     sync.Mutex
	left   int
	inside int
	fresh  []bool
	asked  []string
}

// Enter is part of semel.Quota.
func (b *budget) Enter(_ context.Context, tenant string) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, tenant)
	if b.left == 0 {
		return 7 * time.Second, false
	}
	b.left--
	b.inside++
	return 0, true
}

// Leave is part of semel.Quota.
func (b *budget) Leave(_ string, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inside--
	b.fresh = append(b.fresh, fresh)
	if !fresh {
		b.left++
	}
}

func limited(t *testing.T, id string, b *budget, class semel.Class) semel.Ask {
	t.Helper()
	a := ask(t, semel.Policy{Class: class, Wait: -1, Quota: b, Lease: time.Second})
	a.Key.ID, a.Tenant = id, "acme"
	return a
}

func TestQuotaRefusesNewKeysAlone(t *testing.T) {
	for _, class := range []semel.Class{semel.AtMostOnce, semel.Transactional} {
		t.Run(class.String(), func(t *testing.T) {
			db := newDatabase()
			g := newGuard(t, db)
			b := &budget{left: 2}
			for i := range 2 {
				for again := range 3 { // duplicates use up nothing
					answer, err := g.Do(t.Context(), limited(t, fmt.Sprint(i), b, class), func(context.Context) (semel.Result, error) {
						return semel.Result{Code: 201, Data: []byte("receipt")}, nil
					})
					if err != nil || answer.Replayed != (again > 0) {
						t.Fatalf("key %d, the %d. time: %+v, %v", i, again+1, answer, err)
					}
				}
			}
			before := db.begun
			c, v, err := g.Begin(t.Context(), limited(t, "new", b, class))
			if c != nil || err != nil || v.Reason != semel.OverQuota || v.RetryAfter != 7*time.Second || !errors.Is(v.Err(), semel.ErrOverQuota) {
				t.Errorf("a new key over quota: %v, %+v, %v", c, v, err)
			}
			held, err := db.Get(t.Context(), g.Digest(limited(t, "new", b, class).Key))
			if err != nil || held.Record.Held() || db.begun != before || db.open != 0 {
				t.Errorf("it left %v, and %d transactions were begun", held.Record.State, db.begun-before)
			}
			if answer, err := g.Do(t.Context(), limited(t, "0", b, class), nil); err != nil || !answer.Replayed {
				t.Errorf("a duplicate over quota: %+v, %v", answer, err)
			}
			if b.inside != 0 || b.asked[0] != "acme" {
				t.Errorf("%d have not left; asked for %q", b.inside, b.asked[0])
			}
		})
	}
}

// However an operation ends, it leaves; only a new key is told as new.
func TestWhatCountsForTheQuota(t *testing.T) {
	g := newGuard(t, memory.New(memory.Options{}))
	b := &budget{left: 100}
	told := func(what string, want ...bool) {
		t.Helper()
		b.mu.Lock()
		defer b.mu.Unlock()
		if fmt.Sprint(b.fresh) != fmt.Sprint(want) || b.inside != 0 {
			t.Errorf("%s: told as fresh %v, want %v; %d inside", what, b.fresh, want, b.inside)
		}
		b.fresh = nil
	}
	a := limited(t, "k", b, semel.AtMostOnce)
	c, _ := begin(t, g, a)
	if b.inside != 1 {
		t.Errorf("%d inside while it runs", b.inside)
	}
	if _, err := c.Step(c.Context(), "charge", func(context.Context) (semel.Result, error) { return semel.Result{}, nil }); err != nil {
		t.Fatal(err)
	}
	if _, v, err := g.Begin(t.Context(), a); err != nil || v.Reason != semel.InProgress {
		t.Errorf("a duplicate meanwhile: %+v, %v", v, err)
	}
	if err := c.Release(semel.Result{}); err != nil {
		t.Fatal(err)
	}
	told("a new key that is released, and a step", true)
	c, _ = begin(t, g, a)
	if err := c.Doubt(); err != nil {
		t.Fatal(err)
	}
	told("another attempt", false)
	if _, v, err := g.Begin(t.Context(), a); err != nil || v.Reason != semel.InDoubt {
		t.Errorf("in doubt: %+v, %v", v, err)
	}
	told("a duplicate of what is in doubt", false)
	mismatch := a
	mismatch.Fingerprint[0] ^= 1
	if _, v, err := g.Begin(t.Context(), mismatch); err != nil || v.Reason != semel.Mismatch {
		t.Errorf("another payload: %+v, %v", v, err)
	}
	told("another payload", false)
}
