package scopetest

import (
	"context"
	"errors"

	"github.com/semelhq/semel"
)

func withinChecks() []check {
	return []check{
		{"within_commit_and_rollback", withinCommit},
		{"within_two_keys", withinTwo},
		{"within_two_transactions", withinTwoTransactions},
		{"within_an_error", withinError},
		{"within_a_failed_transaction", withinFailed},
		{"within_an_ended_transaction", withinEnded},
		{"within_another_database", withinElsewhere},
	}
}

// own opens a scope and skips the case if it is not one for Within.
func (e *env) own() *Bench {
	e.Helper()
	if e.optimistic {
		e.Skip("left out: in the caller's own transaction there is one variant")
	}
	b := e.open(Settings{})
	if b.Own == nil {
		e.Skip("left out: Bench.Own is not given")
	}
	return b
}

// within runs the usual operation in a transaction of the caller's own.
func within(b *Bench, o *Own, id string, runs *int) (semel.Answer, error) {
	ask := semel.Ask{Key: keyOf(id), Fingerprint: fingerprintOf(id), Policy: &b.Policy}
	return b.Guard.Within(context.Background(), o.Store, ask, func(context.Context) (semel.Result, error) {
		*runs++
		return receipt(id), o.Effect(id)
	})
}

func withinCommit(e *env) {
	b := e.own()
	runs := 0
	o := b.Own(e.T)
	answer, err := within(b, o, "a", &runs)
	if err != nil || answer.Replayed || !equal(answer.Result, receipt("a")) {
		e.Fatalf("got %+v, %v", answer, err)
	}
	e.nothing(b, "a")
	e.must(o.Rollback())
	e.nothing(b, "a")
	o = b.Own(e.T)
	_, err = within(b, o, "a", &runs)
	e.must(err)
	e.must(o.Commit())
	e.once(b, "a")
	o = b.Own(e.T)
	answer, err = within(b, o, "a", &runs)
	if err != nil || !answer.Replayed || !equal(answer.Result, receipt("a")) || runs != 2 {
		e.Errorf("a duplicate got %+v, %v, after %d runs", answer, err, runs)
	}
	e.must(o.Commit()) // a duplicate leaves the transaction as it was
	e.once(b, "a")
}

func withinTwo(e *env) {
	b := e.own()
	runs := 0
	o := b.Own(e.T)
	for _, id := range []string{"a", "b"} {
		_, err := within(b, o, id, &runs)
		e.must(err)
	}
	answer, err := within(b, o, "a", &runs)
	if err != nil || !answer.Replayed || runs != 2 {
		e.Errorf("the same key again in the same transaction got %+v, %v after %d runs", answer, err, runs)
	}
	e.must(o.Commit())
	e.once(b, "a")
	e.once(b, "b")
}

// Another's transaction holds the key: who asks is told so soon, and runs nothing.
func withinTwoTransactions(e *env) {
	e.needsTwoWriters()
	b := e.own()
	runs := 0
	first, second := b.Own(e.T), b.Own(e.T)
	_, err := within(b, first, "a", &runs)
	e.must(err)
	_, err = within(b, second, "a", &runs)
	e.wants("another's transaction holds the key", err, semel.ErrInProgress)
	e.must(second.Rollback())
	e.must(first.Commit())
	if runs != 1 {
		e.Errorf("%d runs, want 1", runs)
	}
	e.once(b, "a")
}

func withinError(e *env) {
	b := e.own()
	o := b.Own(e.T)
	mine := errors.New("no stock left")
	ask := semel.Ask{Key: keyOf("a"), Fingerprint: fingerprintOf("a"), Policy: &b.Policy}
	_, err := b.Guard.Within(context.Background(), o.Store, ask, func(context.Context) (semel.Result, error) {
		e.must(o.Effect("a"))
		return semel.Result{}, mine
	})
	e.wants("the operation's error", err, mine)
	e.must(o.Rollback())
	e.again(b, "a")
}

// refused fails the case unless the transaction is refused before anything runs.
func (e *env) refused(b *Bench, what string, o *Own, id string) {
	e.Helper()
	runs := 0
	answer, err := within(b, o, id, &runs)
	e.wants(what, err)
	if err != nil {
		e.Logf("%s: %v", what, err)
	}
	if runs != 0 || answer.Replayed {
		e.Errorf("%s: the operation ran %d times, replayed %t", what, runs, answer.Replayed)
	}
}

func withinFailed(e *env) {
	b := e.own()
	o := b.Own(e.T)
	if o.Fail() == nil {
		e.Error("Own.Fail gave no error")
	}
	e.refused(b, "a failed transaction", o, "a")
	_ = o.Rollback()
	e.again(b, "a")
	// The operation fails a statement and does not say so.
	o = b.Own(e.T)
	ask := semel.Ask{Key: keyOf("b"), Fingerprint: fingerprintOf("b"), Policy: &b.Policy}
	_, err := b.Guard.Within(context.Background(), o.Store, ask, func(context.Context) (semel.Result, error) {
		e.must(o.Effect("b"))
		_ = o.Fail()
		return receipt("b"), nil
	})
	e.wants("a swallowed error", err)
	_ = o.Rollback()
	e.again(b, "b")
}

func withinEnded(e *env) {
	b := e.own()
	o := b.Own(e.T)
	e.must(o.Commit())
	e.refused(b, "a committed transaction", o, "a")
	o = b.Own(e.T)
	e.must(o.Rollback())
	e.refused(b, "a rolled back transaction", o, "a")
	e.again(b, "a")
}

func withinElsewhere(e *env) {
	b := e.own()
	if b.Elsewhere == nil {
		e.Skip("left out: Bench.Elsewhere is not given")
	}
	o := b.Elsewhere(e.T)
	e.refused(b, "a transaction of another database", o, "a")
	_ = o.Rollback()
	e.again(b, "a")
}
