package scopetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

func duplicateChecks() []check {
	return []check{
		{"T7_50_at_once_through_2_guards", fiftyAtOnce},
		{"T7_distinct_keys_at_once", distinct},
		{"T4_loser_reads_the_row", loserReads},
		{"T4_both_in_the_operation", bothInside},
		{"T4_both_over_a_released_key", bothOverReleased},
		{"T4_met_then_gone", metThenGone},
		{"bounded_lock_wait", boundedWait},
	}
}

func fiftyAtOnce(e *env) {
	benches := []*Bench{e.open(Settings{}), e.open(Settings{})}
	for round := range 3 {
		id := fmt.Sprint("a", round)
		var runs, inside atomic.Int64
		var answers []<-chan outcome
		for i := range 50 {
			b := benches[i%2]
			answers = append(answers, start(b, id, func(ctx context.Context) (semel.Result, error) {
				if inside.Add(1) > 1 && !e.optimistic {
					e.Errorf("two operations of %s were under way at once", id)
				}
				defer inside.Add(-1)
				return pay(b, id, &runs)(ctx)
			}))
		}
		fresh := 0
		for _, c := range answers {
			o := receive(e, "an answer", c)
			if o.err != nil || !equal(o.answer.Result, receipt(id)) {
				e.Fatalf("a duplicate of %s got %q, %v", id, o.answer.Data, o.err)
			}
			if !o.answer.Replayed {
				fresh++
			}
		}
		if fresh != 1 {
			e.Errorf("%d answers of %s were of an execution of their own, of %d runs; want 1", fresh, id, runs.Load())
		}
		e.once(benches[0], id)
	}
}

// Transactions with keys of their own are not in each other's way.
func distinct(e *env) {
	benches := []*Bench{e.open(Settings{}), e.open(Settings{})}
	var runs atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		b := benches[g%2]
		wg.Go(func() {
			for i := range 25 {
				id := fmt.Sprintf("k-%d-%d", g, i)
				var err error
				for range 20 { // databases that find conflicts where there are none
					if _, err = do(b, id, pay(b, id, &runs)); !errors.Is(err, semel.ErrNotDone) {
						break
					}
				}
				if err != nil {
					e.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	for g := range 4 {
		for i := range 25 {
			if id := fmt.Sprintf("k-%d-%d", g, i); benches[0].Count(id) != 1 {
				e.Errorf("%d effects of %s, want 1", benches[0].Count(id), id)
			}
		}
	}
}

// Who meets another's transaction waits, and is told what that came to.
func loserReads(e *env) {
	a, b := e.open(Settings{}), e.open(Settings{})
	inside, goOn := make(chan bool, 1), make(chan bool)
	first := start(a, "a", func(ctx context.Context) (semel.Result, error) {
		inside <- true
		<-goOn
		return receipt("a"), a.Effect(ctx, "a")
	})
	receive(e, "the operation", inside)
	var runs atomic.Int64
	second := start(b, "a", pay(b, "a", &runs))
	if !e.optimistic {
		time.Sleep(50 * time.Millisecond) // it may wait in the database by now, or not: both have to work
	}
	close(goOn)
	e.must(receive(e, "the first answer", first).err)
	o := receive(e, "the second answer", second)
	if o.err != nil || !equal(o.answer.Result, receipt("a")) {
		e.Errorf("the later one got %q, %v; want the earlier one's answer", o.answer.Data, o.err)
	}
	if !e.optimistic && (runs.Load() != 0 || !o.answer.Replayed) {
		e.Errorf("the later one ran %d times, replayed %t", runs.Load(), o.answer.Replayed)
	}
	e.once(a, "a")
}

// Two that are in their operations at once: one commits, the other's work is
// undone and it is told the first one's answer.
func bothInside(e *env) {
	if !e.optimistic {
		e.Skip("left out: who takes the key first lets nobody else in")
	}
	e.needsTwoWriters()
	for _, released := range []bool{false, true} {
		id := fmt.Sprint("a", released)
		a, b := e.open(Settings{}), e.open(Settings{})
		if released {
			e.release(a, id)
		}
		both := make(chan bool, 16)
		goOn := make(chan bool)
		operation := func(of *Bench) Operation {
			return func(ctx context.Context) (semel.Result, error) {
				both <- true
				<-goOn
				return receipt(id), of.Effect(ctx, id)
			}
		}
		first, second := start(a, id, operation(a)), start(b, id, operation(b))
		receive(e, "the first in its operation", both)
		receive(e, "the second in its operation", both)
		close(goOn)
		one, other := receive(e, "the first answer", first), receive(e, "the second answer", second)
		for _, o := range []outcome{one, other} {
			if o.err != nil || !equal(o.answer.Result, receipt(id)) {
				e.Errorf("got %q, %v", o.answer.Data, o.err)
			}
		}
		if one.answer.Replayed == other.answer.Replayed {
			e.Errorf("replayed %t and %t: one and only one has executed", one.answer.Replayed, other.answer.Replayed)
		}
		e.once(a, id)
	}
}

// release leaves a released record of an attempt of another class.
func (e *env) release(b *Bench, id string) {
	e.Helper()
	p, err := semel.Policy{}.Filled()
	e.must(err)
	claim, _, err := b.Guard.Begin(context.Background(), semel.Ask{Key: keyOf(id), Fingerprint: fingerprintOf(id), Policy: &p})
	e.must(err)
	e.must(claim.Release(semel.Result{}))
}

func bothOverReleased(e *env) {
	a, b := e.open(Settings{}), e.open(Settings{})
	for round := range 5 {
		id := fmt.Sprint("a", round)
		e.release(a, id)
		var runs atomic.Int64
		first, second := start(a, id, pay(a, id, &runs)), start(b, id, pay(b, id, &runs))
		for _, c := range []<-chan outcome{first, second} {
			if o := receive(e, "an answer", c); o.err != nil || !equal(o.answer.Result, receipt(id)) {
				e.Errorf("got %q, %v", o.answer.Data, o.err)
			}
		}
		e.once(a, id)
	}
}

// What was met is undone: then the later one executes.
func metThenGone(e *env) {
	a, b := e.open(Settings{}), e.open(Settings{})
	inside, goOn := make(chan bool, 1), make(chan bool)
	gone := errors.New("changed my mind")
	first := start(a, "a", func(ctx context.Context) (semel.Result, error) {
		inside <- true
		<-goOn
		e.must(a.Effect(ctx, "a"))
		return semel.Result{}, gone
	})
	receive(e, "the operation", inside)
	var runs atomic.Int64
	second := start(b, "a", pay(b, "a", &runs))
	time.Sleep(50 * time.Millisecond) // as above
	close(goOn)
	e.wants("the first", receive(e, "the first answer", first).err, gone)
	if o := receive(e, "the second answer", second); o.err != nil || o.answer.Replayed || runs.Load() != 1 {
		e.Errorf("the later one got %+v, %v after %d runs; want a run of its own", o.answer, o.err, runs.Load())
	}
	e.once(a, "a")
}

// A duplicate that may not wait is told so while the other's transaction is
// still open: that ends only when the duplicate was answered.
func boundedWait(e *env) {
	if e.optimistic && !e.options.OneWriter {
		e.Skip("left out: nobody waits for the key")
	}
	a, b := e.open(Settings{}), e.open(Settings{Policy: semel.Policy{Wait: -1}, LockWait: 100 * time.Millisecond})
	var runs atomic.Int64
	_, err := do(a, "a", func(ctx context.Context) (semel.Result, error) {
		o := receive(e, "the duplicate's answer", start(b, "a", pay(b, "a", &runs)))
		e.wants("a duplicate that may not wait", o.err, semel.ErrInProgress)
		return receipt("a"), a.Effect(ctx, "a")
	})
	e.must(err)
	if runs.Load() != 0 {
		e.Error("the duplicate was executed")
	}
	e.once(b, "a")
}
