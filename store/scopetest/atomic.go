package scopetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

func atomicChecks() []check {
	return []check{
		{"T1_commit_shows_both", commitShowsBoth},
		{"T1_every_transition_is_in_the_journal", journalled},
		{"T1_over_a_released_key", overReleased},
		{"T2_error", errorLeavesNothing},
		{"T2_panic", panicLeavesNothing},
		{"T2_goexit_and_release", releaseLeavesNothing},
		{"T2_cancelled", cancelledLeavesNothing},
		{"T2_end_of_the_lease", leaseEnds},
		{"payload_mismatch", mismatch},
		{"result_over_the_cap", overTheCap},
	}
}

// Neither the effect nor the record is there before the commit, and both are
// after it.
func commitShowsBoth(e *env) {
	b := e.open(Settings{})
	answer, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		if err := b.Effect(ctx, "a"); err != nil {
			return semel.Result{}, err
		}
		e.nothing(b, "a")
		return receipt("a"), nil
	})
	if err != nil || answer.Replayed || !equal(answer.Result, receipt("a")) {
		e.Fatalf("got %+v, %v", answer, err)
	}
	e.once(b, "a")
	e.once(e.open(Settings{}), "a")
}

// The journal has each version of the key once (INVARIANTS S16), and its last
// line is the record.
func journalled(e *env) {
	b := e.open(Settings{})
	journal, ok := semel.As[semel.Journal](b.Guard.Store())
	if !ok {
		e.Skip("left out: the store has no journal")
	}
	var runs atomic.Int64
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		runs.Add(1)
		return semel.Result{}, errors.New("the operation fails")
	})
	e.wants("the operation failed", err, semel.ErrNotDone)
	_, err = do(b, "a", pay(b, "a", &runs))
	e.must(err)
	record := e.held(b, "a").Record
	lines, err := journal.History(context.Background(), record.Digest)
	e.must(err)
	if want := map[bool]int{false: 2, true: 1}[e.optimistic]; len(lines) != want {
		e.Errorf("the journal has %d lines of the key, want %d: %v", len(lines), want, lines)
	}
	var last semel.Version
	for _, line := range lines {
		if line.Record.Version.Compare(last) <= 0 {
			e.Errorf("version %v comes after %v", line.Record.Version, last)
		}
		last = line.Record.Version
	}
	if len(lines) == 0 {
		return
	}
	got, want := lines[len(lines)-1], record.Entry()
	if got.Record.Version != want.Record.Version || got.Record.Nonce != want.Record.Nonce || got.ResultSum != want.ResultSum || got.Record.State != want.Record.State {
		e.Errorf("the journal's last line is %+v\nand the record %+v", got, want)
	}
}

// A key that was released by an attempt of another class is taken over it.
func overReleased(e *env) {
	b := e.open(Settings{})
	p, err := semel.Policy{}.Filled()
	e.must(err)
	claim, v, err := b.Guard.Begin(context.Background(), semel.Ask{Key: keyOf("a"), Fingerprint: fingerprintOf("a"), Policy: &p})
	if claim == nil {
		e.Fatalf("no claim outside of transactions: %+v, %v", v, err)
	}
	e.must(claim.Release(semel.Result{}))
	var runs atomic.Int64
	answer, err := do(b, "a", pay(b, "a", &runs))
	if err != nil || answer.Attempt != 2 {
		e.Fatalf("got %+v, %v; want the second attempt", answer, err)
	}
	e.once(b, "a")
}

func errorLeavesNothing(e *env) {
	b := e.open(Settings{})
	mine := errors.New("no stock left")
	runs := 0
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		runs++
		e.must(b.Effect(ctx, "a"))
		return receipt("a"), mine
	})
	e.wants("the operation's error", err, mine, semel.ErrNotDone)
	e.again(b, "a")
	// The database's own error, handed on.
	_, err = do(b, "b", func(ctx context.Context) (semel.Result, error) {
		runs++
		e.must(b.Effect(ctx, "b"))
		return semel.Result{}, fmt.Errorf("looking for stock: %w", b.Fail(ctx))
	})
	e.wants("the database's error", err, semel.ErrNotDone)
	if runs != 2 {
		e.Errorf("%d runs of two operations that failed by themselves, want 2", runs)
	}
	e.again(b, "b")
}

func panicLeavesNothing(e *env) {
	b := e.open(Settings{})
	func() {
		defer func() {
			if v := recover(); v != "the operation panics" {
				e.Errorf("the caller got the panic %v, want the operation's", v)
			}
		}()
		_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
			e.must(b.Effect(ctx, "a"))
			panic("the operation panics")
		})
		e.Errorf("Do returned after a panic: %v", err)
	}()
	e.again(b, "a")
}

// An answer that says that nothing was done, as a handler's 5xx does, and an
// attempt that ends without one.
func releaseLeavesNothing(e *env) {
	b := e.open(Settings{})
	for i, end := range []func(*semel.Claim) error{
		func(c *semel.Claim) error { return c.Release(semel.Result{Code: 503, Data: []byte("try later")}) },
		(*semel.Claim).Doubt,
	} {
		id := fmt.Sprint("a", i)
		claim, v, err := b.Guard.Begin(context.Background(), semel.Ask{Key: keyOf(id), Fingerprint: fingerprintOf(id), Policy: &b.Policy})
		if claim == nil {
			e.Fatalf("no claim: %+v, %v", v, err)
		}
		if !claim.Transactional() {
			e.Error("the claim does not say that it is transactional")
		}
		e.must(b.Effect(claim.Context(), id))
		e.must(end(claim))
		e.again(b, id)
	}
}

// The client leaves: the operation goes on unless it looks. If it gives up for
// that, nothing is there; if it ends well, its commit is not cut off (T6).
func cancelledLeavesNothing(e *env) {
	b := e.open(Settings{})
	ctx, cancel := context.WithCancel(context.Background())
	_, err := b.Do(ctx, keyOf("a"), fingerprintOf("a"), func(inside context.Context) (semel.Result, error) {
		e.must(b.Effect(inside, "a"))
		cancel()
		return semel.Result{}, ctx.Err()
	})
	e.wants("the operation gave up", err, context.Canceled, semel.ErrNotDone)
	e.again(b, "a")

	ctx, cancel = context.WithCancel(context.Background())
	_, err = b.Do(ctx, keyOf("b"), fingerprintOf("b"), func(inside context.Context) (semel.Result, error) {
		cancel()
		return receipt("b"), b.Effect(inside, "b")
	})
	e.must(err)
	e.once(b, "b")

	_, err = b.Do(ctx, keyOf("c"), fingerprintOf("c"), func(context.Context) (semel.Result, error) {
		e.Error("an operation ran though its caller had left before")
		return semel.Result{}, nil
	})
	e.wants("the caller had left", err, context.Canceled)
	e.nothing(b, "c")
}

// An operation that outlives its lease is told by its context.
func leaseEnds(e *env) {
	b := e.open(Settings{Policy: semel.Policy{Lease: 300 * time.Millisecond}})
	_, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		e.must(b.Effect(ctx, "a"))
		receive(e, "the end of the lease", ctx.Done())
		return semel.Result{}, ctx.Err()
	})
	e.wants("the lease ended", err, semel.ErrNotDone)
	e.again(e.open(Settings{}), "a")
}

func mismatch(e *env) {
	b := e.open(Settings{})
	var runs atomic.Int64
	_, err := do(b, "a", pay(b, "a", &runs))
	e.must(err)
	answer, err := b.Do(context.Background(), keyOf("a"), fingerprintOf("b"), pay(b, "a", &runs))
	e.wants("another payload", err, semel.ErrMismatch)
	if len(answer.Data) != 0 {
		e.Errorf("another payload's answer was disclosed: %q", answer.Data)
	}
	e.once(b, "a")
}

// A result that is too long is remembered as done without it.
func overTheCap(e *env) {
	b := e.open(Settings{Policy: semel.Policy{MaxResult: 100}})
	answer, err := do(b, "a", func(ctx context.Context) (semel.Result, error) {
		return semel.Result{Code: 200, Data: make([]byte, 101)}, b.Effect(ctx, "a")
	})
	if err != nil || len(answer.Data) != 101 {
		e.Fatalf("got %d bytes, %v", len(answer.Data), err)
	}
	var runs atomic.Int64
	_, err = do(b, "a", pay(b, "a", &runs))
	e.wants("the result is not kept", err, semel.ErrGone)
	if n := b.Count("a"); n != 1 || runs.Load() != 0 {
		e.Errorf("%d effects and %d runs of a duplicate, want 1 and 0", n, runs.Load())
	}
}
