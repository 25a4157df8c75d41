package tiered_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

// TestFieldBug21_InProgressIsToldOfFinishedWork: one process has seen the key
// in progress, another finishes it. The first must not go on telling "in
// progress" from what it remembers.
func TestFieldBug21_InProgressIsToldOfFinishedWork(t *testing.T) {
	database, far := memory.New(memory.Options{}), &shared{}
	process := func() *tiered.Store {
		return newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}, far}})
	}
	a, b := process(), process()
	claim := write(t, a, semel.Version{}, pending("k"))
	for range 3 { // b sees it in progress, by either verb
		if r, err := b.CompareAndSwap(t.Context(), semel.Version{}, pending("k")); !errors.Is(err, semel.ErrConflict) || r.Record.State != semel.Pending {
			t.Fatalf("got %v, %v; want the claim", r.Record.State, err)
		}
		if r, err := b.Get(t.Context(), claim.Digest); err != nil || r.Record.State != semel.Pending {
			t.Fatalf("got %v, %v; want the claim", r.Record.State, err)
		}
	}
	write(t, a, claim.Version, done(claim, "receipt"))
	if r, err := b.Get(t.Context(), claim.Digest); err != nil || r.Record.State != semel.Done {
		t.Errorf("Get after it was finished: %v, %v", r.Record.State, err)
	}
	if r, err := b.CompareAndSwap(t.Context(), semel.Version{}, pending("k")); !errors.Is(err, semel.ErrConflict) || r.Record.State != semel.Done {
		t.Errorf("an insert after it was finished: %v, %v", r.Record.State, err)
	}
}

// The same through two guards: who waits for another process gets its answer.
func TestFieldBug21_AWaiterInAnotherProcessGetsTheReplay(t *testing.T) {
	database, far := memory.New(memory.Options{}), &shared{}
	guard := func() *semel.Guard {
		s := newStore(t, database, tiered.Options{Caches: []tiered.Cache{&near{}, far}})
		g, err := semel.NewGuard(s, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	a, b := guard(), guard()
	p, err := semel.Policy{Wait: 30 * time.Second}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: "k"}, Policy: &p}
	claim, _, err := a.Begin(t.Context(), ask)
	if err != nil || claim == nil {
		t.Fatal(claim, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			answer, err := b.Do(t.Context(), ask, func(context.Context) (semel.Result, error) {
				t.Error("it ran twice")
				return semel.Result{}, nil
			})
			if err != nil || string(answer.Data) != "receipt" {
				t.Errorf("got %+v, %v", answer, err)
			}
		})
	}
	if _, err := claim.Complete(semel.Result{Code: 201, Data: []byte("receipt")}); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
