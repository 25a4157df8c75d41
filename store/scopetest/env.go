package scopetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// patience is after how long a case gives up on something that has to happen.
const patience = time.Minute

// env is one case's.
type env struct {
	*testing.T
	options    *Options
	optimistic bool
	at         Place
}

// open opens a scope at the case's place.
func (e *env) open(s Settings) *Bench {
	e.Helper()
	s.Policy.Class, s.Policy.Optimistic = semel.Transactional, e.optimistic
	if s.Policy.Wait == 0 {
		s.Policy.Wait = patience
	}
	if s.Policy.Lease == 0 {
		s.Policy.Lease = patience
	}
	if s.Conns == 0 {
		s.Conns = 8
	}
	return e.options.New(e.T, e.at, s)
}

// oneWriter skips a case that needs two transactions at once.
func (e *env) needsTwoWriters() {
	e.Helper()
	if e.options.OneWriter {
		e.Skip("left out: the database lets one transaction write at a time")
	}
}

func keyOf(id string) semel.Key { return semel.Key{Scope: "tenant", ID: id} }

func fingerprintOf(id string) semel.Fingerprint {
	return semel.FingerprintOf([]byte("content of " + id))
}

// do asks for the key of this ID.
func do(b *Bench, id string, fn Operation) (semel.Answer, error) {
	return b.Do(context.Background(), keyOf(id), fingerprintOf(id), fn)
}

func receipt(id string) semel.Result { return semel.Result{Code: 201, Data: []byte("receipt " + id)} }

// pay is the usual operation: one effect, and a receipt.
func pay(b *Bench, id string, runs *atomic.Int64) Operation {
	return func(ctx context.Context) (semel.Result, error) {
		runs.Add(1)
		if err := b.Effect(ctx, id); err != nil {
			return semel.Result{}, err
		}
		return receipt(id), nil
	}
}

// held reads the record of an ID from outside of all transactions.
func (e *env) held(b *Bench, id string) semel.Reading {
	e.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := b.Guard.Store().Get(ctx, b.Guard.Digest(keyOf(id)))
	if err != nil {
		e.Fatalf("reading the record of %s: %v", id, err)
	}
	return r
}

// nothing fails the case unless there is no effect and no record of this ID.
func (e *env) nothing(b *Bench, id string) {
	e.Helper()
	if n := b.Count(id); n != 0 {
		e.Errorf("%d effects of %s, want none", n, id)
	}
	if r := e.held(b, id).Record; r.Held() {
		e.Errorf("the key of %s is held: %v, attempt %d; want nothing", id, r.State, r.Attempt)
	}
}

// once fails the case unless there is one effect of this ID, and its receipt is
// what the record says and a duplicate is told.
func (e *env) once(b *Bench, id string) {
	e.Helper()
	if n := b.Count(id); n != 1 {
		e.Errorf("%d effects of %s, want 1", n, id)
	}
	r := e.held(b, id).Record
	if r.State != semel.Done || r.Class != semel.Transactional {
		e.Errorf("the record of %s is %v of class %v, want done and transactional", id, r.State, r.Class)
	}
	answer, err := do(b, id, func(context.Context) (semel.Result, error) {
		e.Errorf("a duplicate of %s was executed", id)
		return semel.Result{}, errors.New("a duplicate")
	})
	if err != nil || !answer.Replayed || !equal(answer.Result, receipt(id)) {
		e.Errorf("a duplicate of %s got %d %q, replayed %t, %v; want %q replayed", id, answer.Code, answer.Data, answer.Replayed, err, receipt(id).Data)
	}
}

// again fails the case unless there is nothing of this ID, and the next who asks
// executes.
func (e *env) again(b *Bench, id string) {
	e.Helper()
	e.nothing(b, id)
	var runs atomic.Int64
	answer, err := do(b, id, pay(b, id, &runs))
	if err != nil || answer.Replayed || runs.Load() != 1 {
		e.Errorf("after %s came to nothing, the next got %+v, %v and ran %d times; want one run", id, answer, err, runs.Load())
		return
	}
	e.once(b, id)
}

func equal(a, b semel.Result) bool { return a.Code == b.Code && string(a.Data) == string(b.Data) }

// must fails the case on an error of something that has to work.
func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// wants fails the case unless err is all of these.
func (e *env) wants(what string, err error, all ...error) {
	e.Helper()
	if err == nil {
		e.Errorf("%s: no error", what)
	}
	for _, want := range all {
		if !errors.Is(err, want) {
			e.Errorf("%s: got the error %v, want one that is %v", what, err, want)
		}
	}
}

// receive waits for something that has to come.
func receive[T any](e *env, what string, from <-chan T) (v T) {
	e.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		e.Fatalf("after %v still not: %s", patience, what)
	}
	return v
}

// outcome is what a call of Do came to.
type outcome struct {
	answer semel.Answer
	err    error
}

// start calls Do on a goroutine.
func start(b *Bench, id string, fn Operation) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		answer, err := do(b, id, fn)
		done <- outcome{answer, err}
	}()
	return done
}
