package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// lostChecks: whoever repeats a swap whose answer was lost recognises its own
// write by the nonce in the conflict.
func lostChecks() []check {
	return []check{
		{"an insert's answer", 0, func(e *env) { lostAnswer(e, semel.Version{}, e.pending("k")) }},
		{"a renewal's answer", 0, func(e *env) { lostOver(e, e.renewed) }},
		{"a completion's answer", 0, func(e *env) { lostOver(e, e.complete) }},
		{"a release's answer", 0, func(e *env) { lostOver(e, e.released) }},
		{"an insert's request", 0, func(e *env) { lostRequest(e, semel.Version{}, e.pending("k")) }},
		{"a completion's request", 0, lostCompletionRequest},
		{"the answer, and an heir was faster", 0, lostThenHeir},
		{"the answer, and the record was forgotten", 0, lostThenForgotten},
		{"two answers of two owners", 0, lostTwoOwners},
		{"a batch's answer", Batches, lostBatch},
		{"a batch's answer, repeated one by one", Batches, lostBatchRepeatedSingly},
		{"an answer, repeated within one batch", Batches, lostWithinBatch},
		{"an answer, repeated after a restart", Durable, lostThenRestart},
		{"an answer, repeated through another store", Shared, lostThenElsewhere},
		{"a nonce that begins or ends with zeros is recognised", 0, lostNonces},
	}
}

// lostAnswer loses the answer of a swap and repeats it.
func lostAnswer(e *env, old semel.Version, next semel.Record) semel.Record {
	e.Helper()
	faulty := LoseAnswers(e.store, func(c Call) bool { return c.Number == 1 })
	if _, err := faulty.CompareAndSwap(e.ctx, old, next); !errors.Is(err, ErrLost) {
		e.Fatalf("the answer was not lost: %v", err)
	}
	var mine semel.Record
	for range 3 {
		r, err := faulty.CompareAndSwap(e.ctx, old, next)
		mine = e.recognised(next, r, err)
		e.holds(mine)
	}
	return mine
}

// recognised checks the conflict of a repeated swap whose first sending landed.
func (e *env) recognised(next semel.Record, r semel.Reading, err error) semel.Record {
	e.Helper()
	if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce {
		e.Fatalf("repeated after a lost answer: got error %v with nonce %v, want ErrConflict with the nonce of the write, %v",
			err, r.Record.Nonce, next.Nonce)
	}
	next.Version, next.WrittenAt = r.Record.Version, r.Record.WrittenAt
	if d := describe(r.Record, next); d != "" {
		e.Fatalf("the repeated write did not bring what was written:%s", d)
	}
	return r.Record
}

func lostOver(e *env, change func(semel.Record) semel.Record) {
	e.Helper()
	r := e.insert(e.pending("k"))
	mine := lostAnswer(e, r.Version, change(r))
	e.holds(e.over(e.renewed(mine)))
}

// lostRequest loses a request before it reaches the store, and repeats it.
func lostRequest(e *env, old semel.Version, next semel.Record) {
	e.Helper()
	before := e.get(next.Digest).Record
	faulty := LoseRequests(e.store, func(c Call) bool { return c.Number == 1 })
	if _, err := faulty.CompareAndSwap(e.ctx, old, next); !errors.Is(err, ErrLost) {
		e.Fatalf("the request was not lost: %v", err)
	}
	e.digestHolds(next.Digest, before)
	r, err := faulty.CompareAndSwap(e.ctx, old, next)
	if err != nil {
		e.Fatalf("repeated after a lost request: %v", err)
	}
	e.written(old, next, r)
}

func lostCompletionRequest(e *env) {
	r := e.insert(e.pending("k"))
	lostRequest(e, r.Version, e.complete(r))
}

func lostThenHeir(e *env) {
	owner := e.pending("k")
	owner.Class, owner.TTL = semel.AtLeastOnce, 0
	mine := lostAnswer(e, semel.Version{}, owner)
	heir := e.swap(mine.Version, e.heir(mine))
	e.refuse(semel.Version{}, owner, heir) // not ours any more, and the nonce says so
}

func lostThenForgotten(e *env) {
	claim := e.insert(e.pending("k"))
	completion := e.complete(claim)
	e.forget(lostAnswer(e, claim.Version, completion))
	e.refuse(claim.Version, completion, semel.Record{})
}

func lostTwoOwners(e *env) {
	a, b := e.pending("k"), e.pending("k")
	mine := lostAnswer(e, semel.Version{}, a)
	e.refuse(semel.Version{}, b, mine)
	e.refuse(semel.Version{}, a, mine)
}

// claims gives n claims of different keys, as swaps.
func (e *env) claims(n int) []semel.Swap {
	swaps := make([]semel.Swap, n)
	for i := range swaps {
		swaps[i].Next = e.pending(fmt.Sprint("k", i))
	}
	return swaps
}

func lostBatch(e *env) {
	swaps := e.claims(5)
	faulty := LoseAnswers(e.store, func(c Call) bool { return c.Number == 1 })
	for i, s := range faulty.SwapMany(e.ctx, swaps) {
		if !errors.Is(s.Err, ErrLost) {
			e.Fatalf("answer %d was not lost: %v", i, s.Err)
		}
	}
	for i, s := range e.batch(swaps) {
		e.holds(e.recognised(swaps[i].Next, s.Reading, s.Err))
	}
}

func lostBatchRepeatedSingly(e *env) {
	swaps := e.claims(3)
	e.batch(swaps) // nobody looks at the answers
	for _, s := range swaps {
		r, err := e.store.CompareAndSwap(e.ctx, s.Old, s.Next)
		e.recognised(s.Next, r, err)
	}
}

func lostWithinBatch(e *env) {
	next := e.pending("k")
	out := e.batch([]semel.Swap{{Next: next}, {Next: next}, {Next: next}})
	if out[0].Err != nil {
		e.Fatalf("the first of three equal swaps: %v", out[0].Err)
	}
	e.recognised(next, out[1].Reading, out[1].Err)
	e.recognised(next, out[2].Reading, out[2].Err)
}

func lostThenRestart(e *env) {
	r := e.insert(e.pending("k"))
	completion := e.complete(r)
	mine := lostAnswer(e, r.Version, completion)
	e.reopen()
	again, err := e.store.CompareAndSwap(e.ctx, r.Version, completion)
	e.recognised(completion, again, err)
	e.holds(mine)
}

func lostThenElsewhere(e *env) {
	next := e.pending("k")
	mine := lostAnswer(e, semel.Version{}, next)
	r, err := e.open().CompareAndSwap(e.ctx, semel.Version{}, next)
	e.recognised(next, r, err)
	e.holds(mine)
}

func lostNonces(e *env) {
	for id, n := range map[string]semel.Nonce{
		"a": {15: 1}, "b": {0: 1}, "c": {7: 1}, "d": {0: 0x20, 15: 0x20}, "e": {0: 0xFF, 1: 0xFE, 15: 0xFF},
	} {
		next := e.pending(id)
		next.Nonce = n
		lostAnswer(e, semel.Version{}, next)
	}
}

// guardChecks: the guard over the store, as its users have it.
func guardChecks() []check {
	return []check{
		{"starts", 0, func(e *env) { e.guard(e.store) }},
		{"runs once for a herd", 0, guardHerd},
		{"runs once for a herd of two guards", 0, guardTwo},
		{"runs once though each first answer is lost", 0, func(e *env) { guardFaulty(e, LoseAnswers) }},
		{"runs once though each first request is lost", 0, func(e *env) { guardFaulty(e, LoseRequests) }},
		{"replays what was stored before a restart", Durable, guardRestart},
	}
}

func (e *env) guard(s semel.Store) *semel.Guard {
	e.Helper()
	g, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		e.Fatalf("NewGuard: %v", err)
	}
	return g
}

// ask is a request for id that waits long enough for a slow store.
func (e *env) ask(id string) semel.Ask {
	e.Helper()
	p, err := semel.Policy{Wait: 30 * time.Second}.Filled()
	if err != nil {
		e.Fatal(err)
	}
	return semel.Ask{Key: semel.Key{Scope: scope, ID: id}, Fingerprint: semel.FingerprintOf([]byte(id)), Policy: &p}
}

// herd has 4 callers at each guard ask for the same operation.
func (e *env) herd(guards ...*semel.Guard) {
	e.Helper()
	var runs atomic.Int64
	var wg sync.WaitGroup
	ask := e.ask("herd")
	for i := range 4 * len(guards) {
		wg.Go(func() {
			a, err := guards[i%len(guards)].Do(e.ctx, ask, func(context.Context) (semel.Result, error) {
				runs.Add(1)
				return semel.Result{Code: 201, Data: []byte("receipt")}, nil
			})
			if err != nil || a.Code != 201 || string(a.Data) != "receipt" {
				e.Errorf("caller %d got %d %q, %v; want 201 \"receipt\"", i, a.Code, a.Data, err)
			}
		})
	}
	wg.Wait()
	if n := runs.Load(); n != 1 {
		e.Errorf("the operation ran %d times, want once", n)
	}
}

func guardHerd(e *env) { e.herd(e.guard(e.store)) }
func guardTwo(e *env)  { e.herd(e.guard(e.store), e.guard(e.store)) }

// guardFaulty loses the first sending of each write, known by its nonce.
func guardFaulty(e *env, fault func(semel.Store, func(Call) bool) *Faulty) {
	var mu sync.Mutex
	armed, sent := false, map[semel.Nonce]bool{}
	faulty := fault(e.store, func(c Call) bool {
		mu.Lock()
		defer mu.Unlock()
		first := armed && c.Writes() && !sent[c.Swaps[0].Next.Nonce]
		if first {
			sent[c.Swaps[0].Next.Nonce] = true
		}
		return first
	})
	g := e.guard(faulty)
	mu.Lock()
	armed = true // its self-test is over
	mu.Unlock()
	e.herd(g)
}

func guardRestart(e *env) {
	run := func(context.Context) (semel.Result, error) {
		return semel.Result{Code: 201, Data: []byte("receipt")}, nil
	}
	if _, err := e.guard(e.store).Do(e.ctx, e.ask("k"), run); err != nil {
		e.Fatal(err)
	}
	e.reopen()
	a, err := e.guard(e.store).Do(e.ctx, e.ask("k"), run)
	if err != nil || !a.Replayed || a.Code != 201 || string(a.Data) != "receipt" {
		e.Errorf("after a restart: got %+v, %v; want the receipt replayed", a, err)
	}
}

// ErrLost is the error of a call whose request or answer a Faulty store lost.
// Whether the write happened, nobody knows.
var ErrLost = errors.New("storetest: lost on the way")

// Call is one call of a Faulty store.
type Call struct {
	// Number counts the calls of the store, from 1.
	Number int
	// Digest is the digest asked for; of a batch the first one.
	Digest semel.Digest
	Swaps  []semel.Swap // nil for Get
}

// Writes tells whether it is no Get.
func (c Call) Writes() bool { return c.Swaps != nil }

// Faulty stands in front of a store and spoils its calls. It is safe for
// concurrent use if Before and After are. It takes batches even where the store
// behind does not; what else that can do is reached through Unwrap, unspoilt.
type Faulty struct {
	// Store is the store behind.
	Store semel.Store
	// Before is asked before each call. If it gives an error, that is the answer, and
	// the store behind hears nothing. It may block. Default: no fault.
	Before func(ctx context.Context, c Call) error
	// After is asked when the store behind has answered. If it gives an error, the
	// answer is lost: the write happened, and nobody is told. Default: no fault.
	After func(ctx context.Context, c Call) error

	calls atomic.Int64
}

// LoseAnswers gives a store in front of s that carries out every call, and
// answers those for which lose says so with ErrLost.
func LoseAnswers(s semel.Store, lose func(Call) bool) *Faulty {
	return &Faulty{Store: s, After: lost(lose)}
}

// LoseRequests gives a store in front of s that answers the calls for which
// lose says so with ErrLost, without carrying them out.
func LoseRequests(s semel.Store, lose func(Call) bool) *Faulty {
	return &Faulty{Store: s, Before: lost(lose)}
}

func lost(lose func(Call) bool) func(context.Context, Call) error {
	return func(_ context.Context, c Call) error {
		if lose(c) {
			return ErrLost
		}
		return nil
	}
}

// Unwrap is part of semel.Unwrapper.
func (f *Faulty) Unwrap() semel.Store { return f.Store }

// Get is part of semel.Store.
func (f *Faulty) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	c := f.call(d, nil)
	if err := ask(ctx, f.Before, c); err != nil {
		return semel.Reading{}, err
	}
	r, err := f.Store.Get(ctx, d)
	return f.answer(ctx, c, r, err)
}

// CompareAndSwap is part of semel.Store.
func (f *Faulty) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	c := f.call(next.Digest, []semel.Swap{{Old: old, Next: next}})
	if err := ask(ctx, f.Before, c); err != nil {
		return semel.Reading{}, err
	}
	r, err := f.Store.CompareAndSwap(ctx, old, next)
	return f.answer(ctx, c, r, err)
}

func (f *Faulty) answer(ctx context.Context, c Call, r semel.Reading, err error) (semel.Reading, error) {
	if fault := ask(ctx, f.After, c); fault != nil {
		return semel.Reading{}, fault
	}
	return r, err
}

// SwapMany is part of semel.Batcher. A fault is every swap's error.
func (f *Faulty) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	if len(swaps) == 0 {
		return nil
	}
	c := f.call(swaps[0].Next.Digest, swaps)
	err := ask(ctx, f.Before, c)
	var out []semel.Swapped
	if err == nil {
		out = f.swapMany(ctx, swaps)
		err = ask(ctx, f.After, c)
	}
	if err != nil {
		out = make([]semel.Swapped, len(swaps))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

func (f *Faulty) swapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	if b, ok := semel.As[semel.Batcher](f.Store); ok {
		return b.SwapMany(ctx, swaps)
	}
	out := make([]semel.Swapped, len(swaps))
	for i, s := range swaps {
		out[i].Reading, out[i].Err = f.Store.CompareAndSwap(ctx, s.Old, s.Next)
	}
	return out
}

func (f *Faulty) call(d semel.Digest, swaps []semel.Swap) Call {
	return Call{Number: int(f.calls.Add(1)), Digest: d, Swaps: swaps}
}

func ask(ctx context.Context, fault func(context.Context, Call) error, c Call) error {
	if fault == nil {
		return nil
	}
	return fault(ctx, c)
}
