package scopetest

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/semelhq/semel"
)

func poolChecks() []check {
	return []check{
		{"T8_1000_duplicates_10_connections", thousand},
		{"T8_one_connection", oneConnection},
	}
}

// A herd costs one connection, and all of it is answered.
func thousand(e *env) {
	b := e.open(Settings{Conns: 10})
	var runs atomic.Int64
	goOn := make(chan bool)
	operation := func(ctx context.Context) (semel.Result, error) {
		runs.Add(1)
		<-goOn
		return receipt("a"), b.Effect(ctx, "a")
	}
	var answers []<-chan outcome
	for range 1000 {
		answers = append(answers, start(b, "a", operation))
	}
	// Another key finds a connection while a thousand wait.
	if !e.options.OneWriter {
		var others atomic.Int64
		if _, err := do(b, "b", pay(b, "b", &others)); err != nil {
			e.Errorf("another key beside the herd: %v", err)
		}
	}
	close(goOn)
	fresh := 0
	for _, c := range answers {
		o := receive(e, "an answer", c)
		if o.err != nil || !equal(o.answer.Result, receipt("a")) {
			e.Fatalf("a duplicate got %q, %v", o.answer.Data, o.err)
		}
		if !o.answer.Replayed {
			fresh++
		}
	}
	if fresh > 1 || runs.Load() > mostRuns { // more than one run only where the database undid one
		e.Errorf("%d answers were of an execution of their own, of %d runs; want 1", fresh, runs.Load())
	}
	e.once(b, "a")
}

// An operation in a scope never needs a second connection: with a pool of one,
// all keys get through.
func oneConnection(e *env) {
	b := e.open(Settings{Conns: 1})
	var runs atomic.Int64
	answers := map[string][]<-chan outcome{}
	for i := range 20 {
		id := fmt.Sprint("k", i)
		for range 5 {
			answers[id] = append(answers[id], start(b, id, pay(b, id, &runs)))
		}
	}
	for id, all := range answers {
		for _, c := range all {
			if o := receive(e, "an answer of "+id, c); o.err != nil || !equal(o.answer.Result, receipt(id)) {
				e.Fatalf("%s got %q, %v", id, o.answer.Data, o.err)
			}
		}
	}
	if runs.Load() != 20 {
		e.Errorf("%d runs of 20 operations", runs.Load())
	}
	for id := range answers {
		e.once(b, id)
	}
}
