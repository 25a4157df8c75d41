package scopetest

import (
	"errors"
	"sync/atomic"

	"github.com/semelhq/semel"
)

func commitChecks() []check {
	return []check{
		{"T6_answer_of_the_commit_lost", func(e *env) { lost(e, AfterCommit) }},
		{"T6_commit_lost", func(e *env) { lost(e, BeforeCommit) }},
	}
}

// Whatever the caller is told is what the database has.
func lost(e *env, when Loss) {
	b, other := e.open(Settings{}), e.open(Settings{})
	if b.Lose == nil {
		e.Skip("left out: Bench.Lose is not given")
	}
	var runs atomic.Int64
	b.Lose(when)
	answer, err := do(b, "a", pay(b, "a", &runs))
	switch {
	case err == nil && equal(answer.Result, receipt("a")):
		e.once(other, "a")
	case errors.Is(err, semel.ErrNotDone):
		e.again(other, "a")
	default:
		e.Errorf("got %+v, %v; want the receipt, or that nothing was done", answer, err)
	}
	if when == AfterCommit && (err != nil || runs.Load() != 1) {
		e.Errorf("it was committed, and ended with %v after %d runs; want one run and its answer", err, runs.Load())
	}
}
