package scopetest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/semelhq/semel"
)

func retryChecks() []check {
	return []check{
		{"T5_undone_is_run_again", runAgain},
		{"T5_undone_again_and_again", againAndAgain},
		{"T5_swallowed", swallowedUndone},
		{"T5_told_in_other_words", undoneInOtherWords},
		{"O1_step_beside_the_transaction", stepBeside},
	}
}

// mostRuns is how often an operation runs at most: once, and 5 times more.
const mostRuns = 6

func (e *env) needsUndo(b *Bench) {
	e.Helper()
	if b.Undo == nil {
		e.Skip("left out: the database undoes no transaction for another's sake")
	}
}

// What the database undid runs again, in another transaction that has nothing of
// the first.
func runAgain(e *env) {
	b := e.open(Settings{})
	e.needsUndo(b)
	var runs atomic.Int64
	answer, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		e.must(b.Effect(ctx, "a"))
		if runs.Add(1) < 3 {
			return semel.Result{}, b.Undo(ctx)
		}
		return receipt("a"), nil
	})
	if err != nil || answer.Replayed || runs.Load() != 3 {
		e.Fatalf("got %+v, %v after %d runs; want the third run's answer", answer, err, runs.Load())
	}
	e.once(b, "a")
}

func againAndAgain(e *env) {
	b := e.open(Settings{})
	e.needsUndo(b)
	var runs atomic.Int64
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		runs.Add(1)
		e.must(b.Effect(ctx, "a"))
		return semel.Result{}, b.Undo(ctx)
	})
	e.wants("undone each time", err, semel.ErrNotDone)
	if runs.Load() != mostRuns {
		e.Errorf("it ran %d times, want %d", runs.Load(), mostRuns)
	}
	e.again(b, "a")
}

// An operation that does not tell that it was undone: it runs again, or comes to
// nothing.
func swallowedUndone(e *env) {
	b := e.open(Settings{})
	e.needsUndo(b)
	var runs atomic.Int64
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		e.must(b.Effect(ctx, "a"))
		if runs.Add(1) == 1 {
			_ = b.Undo(ctx)
			_ = b.Effect(ctx, "a")
		}
		return receipt("a"), nil
	})
	if err != nil {
		e.wants("undone, and swallowed", err, semel.ErrNotDone)
		e.again(b, "a")
		return
	}
	e.once(b, "a")
}

// An operation that gives back an error of its own, in which the database's cannot
// be found, runs again all the same.
func undoneInOtherWords(e *env) {
	b := e.open(Settings{})
	e.needsUndo(b)
	var runs atomic.Int64
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		e.must(b.Effect(ctx, "a"))
		if runs.Add(1) == 1 && b.Undo(ctx) != nil {
			return semel.Result{}, errors.New("the order could not be saved")
		}
		return receipt("a"), nil
	})
	if err != nil || runs.Load() != 2 {
		e.Fatalf("got %v after %d runs, want the second one's answer", err, runs.Load())
	}
	e.once(b, "a")
}

// A step's record is written beside the transaction, so the step is not run again
// when that is. Where it could not be written, the step does not run at all.
func stepBeside(e *env) {
	b := e.open(Settings{Conns: 1})
	runs, charges := 0, 0
	answer, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		runs++
		e.must(b.Effect(ctx, "a"))
		claim, _ := semel.ClaimFrom(ctx)
		r, err := claim.Step(ctx, "charge", func(context.Context) (semel.Result, error) {
			charges++
			return receipt("a"), nil
		})
		if err == nil && runs == 1 && b.Undo != nil {
			err = b.Undo(ctx)
		}
		return r, err
	})
	if e.options.OneWriter {
		e.wants("a step where the transaction is the one writer", err, semel.ErrRejected, semel.ErrNotDone)
		if charges != 0 {
			e.Error("the step ran")
		}
		e.again(b, "a")
		return
	}
	if err != nil || !equal(answer.Result, receipt("a")) || charges != 1 || b.Undo != nil && runs != 2 {
		e.Fatalf("got %+v, %v after %d runs and %d charges, want one charge", answer, err, runs, charges)
	}
	e.once(b, "a")
}
