package scopetest

import (
	"context"
	"sync/atomic"

	"github.com/semelhq/semel"
)

func failureChecks() []check {
	return []check{
		{"T3_swallowed_error", swallowedError},
		{"T3_own_end", ownEnd},
		{"T3_used_after_the_end", usedAfter},
		{"nested_scope", nested},
	}
}

// An error that the operation swallows undoes it all, also where the database
// would go on.
func swallowedError(e *env) {
	b := e.open(Settings{})
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		e.must(b.Effect(ctx, "a"))
		if b.Fail(ctx) == nil {
			e.Error("Bench.Fail gave no error")
		}
		_ = b.Effect(ctx, "a") // which may work, depending on the database
		return receipt("a"), nil
	})
	e.wants("a swallowed error", err, semel.ErrNotDone)
	e.again(b, "a")
}

// The operation tries to end the transaction.
func ownEnd(e *env) {
	b := e.open(Settings{})
	if len(b.Ends) == 0 {
		e.Fatal("Bench.Ends names no way to end a transaction")
	}
	for name, end := range b.Ends {
		_, err := do(b, name, func(ctx context.Context) (semel.Result, error) {
			e.must(b.Effect(ctx, name))
			if end(ctx) == nil {
				e.Errorf("%s in the operation was not refused", name)
			}
			return receipt(name), nil
		})
		e.wants(name+" in the operation", err, semel.ErrNotDone)
		e.again(b, name)
	}
}

// A transaction that leaks out of the operation does nothing.
func usedAfter(e *env) {
	b := e.open(Settings{})
	var kept context.Context
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		kept = ctx
		return receipt("a"), b.Effect(ctx, "a")
	})
	e.must(err)
	if b.Effect(context.WithoutCancel(kept), "a") == nil {
		e.Error("the transaction was used after its end, without an error")
	}
	e.once(b, "a")
}

// A scope in a scope is refused, and the outer one is none the worse.
func nested(e *env) {
	b := e.open(Settings{})
	var runs atomic.Int64
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		for _, inner := range []string{"b", "a"} {
			_, err := b.Do(ctx, keyOf(inner), fingerprintOf(inner), pay(b, inner, &runs))
			e.wants("a scope in a scope", err, semel.ErrRejected)
		}
		return receipt("a"), b.Effect(ctx, "a")
	})
	e.must(err)
	if runs.Load() != 0 {
		e.Error("the inner operation ran")
	}
	e.nothing(b, "b")
	e.once(b, "a")
}
