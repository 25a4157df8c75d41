package semel_test

import (
	"context"
	"errors"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// undoer is a transactor whose first transactions are undone for another's sake.
// Its transactions write past their end, so it shows the guard's side alone.
type undoer struct {
	*memory.Store
	left  int
	begun []any // the transaction that each was begun inside of, or nil
}

type insideOf struct{}

// Begin is part of semel.Transactor.
func (u *undoer) Begin(ctx context.Context, _ semel.Digest, _ *semel.Swap) (semel.Transaction, semel.Reading, error) {
	u.begun = append(u.begun, ctx.Value(insideOf{}))
	return &undone{u}, semel.Reading{}, nil
}

type undone struct{ *undoer }

// Context is part of semel.Transaction.
func (u *undone) Context(parent context.Context) context.Context {
	return context.WithValue(parent, insideOf{}, u)
}

// Commit is part of semel.Transaction.
func (u *undone) Commit(ctx context.Context, last semel.Swap) (semel.Reading, error) {
	if u.left > 0 {
		u.left--
		return semel.Reading{}, semel.ErrUndone
	}
	return u.CompareAndSwap(ctx, last.Old, last.Next)
}

// Rollback is part of semel.Transaction.
func (*undone) Rollback() {}

// Undone is part of semel.Transaction.
func (*undone) Undone(err error) bool { return errors.Is(err, errDeadlock) }

var errDeadlock = errors.New("deadlock")

// TestTransactionsAreNotBegunInsideOfEachOther: an adapter refuses a scope inside
// of another's operation, and one that is run again is none.
func TestTransactionsAreNotBegunInsideOfEachOther(t *testing.T) {
	store := &undoer{Store: memory.New(memory.Options{}), left: 2}
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := semel.Policy{Class: semel.Transactional, Optimistic: true}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	var seen []context.Context
	a, err := guard.Do(t.Context(), semel.Ask{Key: semel.Key{Scope: "a", ID: "k"}, Policy: &policy}, func(ctx context.Context) (semel.Result, error) {
		seen = append(seen, ctx)
		if ctx.Value(insideOf{}) == nil || ctx.Err() != nil {
			t.Errorf("run %d has the context %v with the transaction %v", len(seen), ctx.Err(), ctx.Value(insideOf{}))
		}
		if len(seen) == 1 {
			return semel.Result{}, errDeadlock
		}
		return semel.Result{Code: 201}, nil
	})
	if err != nil || a.Replayed || a.Code != 201 || len(seen) != 4 || len(store.begun) != 4 {
		t.Fatalf("%+v, %v, after %d runs in %d transactions; want 4 in 4", a, err, len(seen), len(store.begun))
	}
	for i := range 4 {
		if store.begun[i] != nil {
			t.Errorf("transaction %d was begun inside of another", i+1)
		}
		if seen[i].Err() == nil {
			t.Errorf("the context of run %d has not ended", i+1)
		}
		if i > 0 && seen[i].Value(insideOf{}) == seen[i-1].Value(insideOf{}) {
			t.Errorf("runs %d and %d have the same transaction", i, i+1)
		}
	}
}
