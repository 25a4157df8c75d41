package semel

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Result is what an operation came to: the transport's status, such as 201, and
// the answer as bytes.
type Result struct {
	Code int
	Data []byte
}

// Claim is the right to execute one operation, and the duty to end it with
// exactly one of Complete, Release and Doubt; what comes after the first of
// them changes nothing. Until then its lease is renewed in the background. A
// Claim is safe for concurrent use.
type Claim struct {
	ctx         lazyContext
	inside      *lazyContext // the context in a transaction, the newest
	number      int
	digest      Digest
	unconfirmed bool
	// transactional is fixed when the claim is granted.
	transactional bool
	steps         []string // their names, in the order of the calls; guarded by reading

	mu    sync.Mutex // held during every move of the attempt
	ended bool
	*work // gone once the claim has ended; set under reading as well

	reading sync.Mutex // held for a moment only
	version Version
	safe    time.Time // until then nobody else can have been granted the key

	// Guarded by the keeper's mutex.
	due        time.Time
	kept       bool
	next, prev *Claim
}

// Context is the context to execute under. It has the values of the request's
// context; it does not end when the client leaves; it ends, with the cause
// [ErrInDoubt], before the lease can be lost to another, and when the claim ends.
//
// With the class Transactional it has the transaction in it, as the adapter
// tells, and ends at the latest a Lease after the key was taken.
func (c *Claim) Context() context.Context { return c.current() }

func (c *Claim) current() *lazyContext {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.inside != nil {
		return c.inside
	}
	return &c.ctx
}

// Transactional tells that the operation runs in a transaction that the claim
// commits or undoes. Then Release and Doubt undo it: nothing happened.
func (c *Claim) Transactional() bool { return c.transactional }

// Digest names the operation in the store, in events and to whoever finds out
// what became of it.
func (c *Claim) Digest() Digest { return c.digest }

// Version is the fencing token of the claim: a target that accepts tokens
// refuses one that is older than the newest it has seen.
// It grows when the lease is renewed. Version does not wait for the store.
func (c *Claim) Version() Version {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.version
}

// granted notes the version that the claim holds now, and has its lease
// renewed. A transaction has none: it ends at a time that is fixed.
func (c *Claim) granted(move Move) {
	c.reading.Lock()
	c.version, c.safe = c.attempt.held.Version, c.attempt.safe
	c.reading.Unlock()
	if c.tx == nil {
		c.guard.keeper.keep(c, move.Until)
	}
}

// begun has the claim run in the transaction that has begun. c.ctx remains outside
// of transactions: the next one is not begun inside of this.
func (c *Claim) begun(move Move) {
	if c.inside != nil {
		c.inside.end(context.Canceled)
	}
	inside := &lazyContext{parent: c.tx.Context(c.ctx.parent), claim: c, deadline: c.attempt.safe}
	c.reading.Lock()
	c.inside, c.steps = inside, nil
	c.reading.Unlock()
	c.granted(move)
}

// Retry is for an operation in a transaction that failed, with err or, if that is
// nil, in a way that only the transaction knows. If the database has undone it for
// another's sake, a new one is begun, and the error is [ErrUndone]: execute again
// under Context. If the error is nil, the claim is to be ended. Any other is one
// of Complete's, with the record that it gives.
func (c *Claim) Retry(err error) (Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.tx == nil || !c.tx.Undone(err) {
		return Record{}, nil
	}
	c.rollback()
	c.ended = true
	v, err := c.conclude(c.attempt.Rerun(time.Now(), errors.Join(ErrUndone, err)), Lost, Verdict{})
	return v.Held, err
}

// fail ends the claim after the operation's error, and gives what Complete
// would have given, or the error to tell.
func (c *Claim) fail(err error) (Record, error) {
	record, failed := c.Retry(err)
	switch {
	case errors.Is(failed, ErrNotDone):
		return record, errors.Join(err, failed)
	case failed != nil:
		return record, failed
	case c.transactional:
		return record, errors.Join(ErrNotDone, err, c.Release(Result{}))
	case errors.Is(err, ErrNotDone):
		return record, errors.Join(err, c.Release(Result{}))
	}
	return record, errors.Join(err, c.Doubt())
}

// conclude drives the end of a transaction. The error is [ErrUndone] if another
// has begun.
func (c *Claim) conclude(move Move, kind EventKind, shared Verdict) (Verdict, error) {
	move, _ = c.drive(context.WithoutCancel(c.ctx.parent), move, time.Time{})
	if move.Do == Run {
		c.ended = false
		c.begun(move)
		return Verdict{}, ErrUndone
	}
	return c.settled(kind, shared)
}

// Attempt is the number of this attempt at the operation, from 1.
func (c *Claim) Attempt() int { return c.number }

// Unconfirmed tells that the grant binds this process alone, since the
// authoritative store could not be asked (INVARIANTS S12): it exists only
// behind a store that goes on without it.
func (c *Claim) Unconfirmed() bool { return c.unconfirmed }

// renew extends the lease, on a goroutine of the keeper.
func (c *Claim) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	a := &c.attempt
	// A store that hangs must not keep the operation running past its lease.
	guard := time.AfterFunc(time.Until(a.safe), func() { c.ctx.end(ErrInDoubt) })
	defer guard.Stop()
	c.now = time.Now()
	move, _ := c.drive(c.ctx.parent, a.Renew(c.now), time.Time{})
	if move.Do != Run {
		c.ctx.end(ErrInDoubt)
		c.guard.tell(a, Lost, c.start, nil)
		return
	}
	c.guard.tell(a, Renewed, c.start, nil)
	c.granted(move)
}

// Complete stores the result and ends the claim. It gives the record as it is
// stored, which is what every duplicate is told. The error is [ErrSettled] if
// somebody settled the key before us, and then theirs is the record and the
// answer; it is [ErrInDoubt] if nobody can know yet whether ours was stored, and
// then the client must not be told that it was. With the class Transactional
// Complete commits; then [ErrUndone] means that the claim is held anew, and the
// operation is to execute again, and [ErrNotDone] that all of it was undone for
// good. Complete does not follow the
// request's context: an answer is stored even if nobody waits for it.
//
// Nobody may change the bytes of result.Data afterwards. If it is nil, or longer
// than the policy's MaxResult, the operation is remembered as done without it,
// and a retry is told [Gone].
func (c *Claim) Complete(result Result) (Record, error) {
	v, err := c.finish(Ending{State: Done, Code: result.Code, Result: result.Data}, Completed, Verdict{})
	return v.Held, err
}

// Release ends the claim and frees the key: it promises that the attempt had
// no effect at all. Duplicates that are waiting are answered with result, which
// is not stored; with the zero Result the next of them executes.
func (c *Claim) Release(result Result) error {
	var shared Verdict
	if result.Data != nil {
		shared = Verdict{Action: Replay, Reason: Shared, Held: Record{Code: result.Code, Result: result.Data}}
	} else {
		shared = Verdict{Action: Refuse, Reason: InProgress}
	}
	_, err := c.finish(Ending{State: Released}, ReleasedClaim, shared)
	return err
}

// Doubt ends the claim without an outcome: the operation may or may not have
// had its effect. The key is in doubt from now on, or free for another run if
// the class says so.
func (c *Claim) Doubt() error {
	if c.transactional {
		return c.Release(Result{})
	}
	_, err := c.finish(Ending{State: Pending}, Doubted, Verdict{Action: Refuse, Reason: InDoubt})
	return err
}

// finish drives the last swap. shared is what waiting duplicates are told if
// the swap succeeds; its zero value means the record itself.
func (c *Claim) finish(e Ending, kind EventKind, shared Verdict) (Verdict, error) {
	c.mu.Lock() // waits for a renewal under way
	defer c.mu.Unlock()
	if c.ended {
		return Verdict{}, errors.New("semel: the claim has ended already")
	}
	c.ended = true
	a := &c.attempt
	now := time.Now()
	c.now = now
	if a.bound {
		return c.conclude(a.Finish(now, e), kind, shared)
	}
	c.guard.keeper.drop(c)
	move, _ := c.drive(c.ctx.parent, a.Finish(now, e), now.Add(a.policy.FinishWithin))
	if move.Do != Stop {
		// The store does not answer. Whoever waits is told that the outcome is
		// unknown, while storing goes on.
		c.linger(move, kind, shared)
		return Verdict{}, ErrInDoubt
	}
	return c.settled(kind, shared)
}

// settled tells everybody what the last swap came to.
func (c *Claim) settled(kind EventKind, shared Verdict) (Verdict, error) {
	a, g := &c.attempt, c.guard
	v := a.Verdict()
	// A commit of which nobody knew at first was ours as well, but not what the
	// operation came to when it was executed again meanwhile.
	own := v.Held.Nonce == a.next.Nonce || a.bound && v.Held.Nonce == a.unsure
	again := v.Held.Nonce != a.next.Nonce && a.next.State == Done
	ours := a.Err() == nil && own && (v.Reason == Finished || v.Reason == Gone)
	switch {
	case errors.Is(a.Err(), ErrNotDone):
		kind = ReleasedClaim
	case !ours:
		kind = Lost
	}
	g.tell(a, kind, c.start, a.Err())
	told := v
	if ours && shared.Reason != 0 {
		told = shared
	}
	if told.Reason == Finished && told.Held.Replay == 0 {
		told = Verdict{Action: Refuse, Reason: Gone, Held: told.Held}
	}
	c.leave(c.fresh)
	c.current().end(context.Canceled)
	g.flights.land(&c.flight, &told, nil)
	err := a.Err()
	c.reading.Lock()
	w := c.work
	c.work = nil
	c.reading.Unlock()
	g.works.put(w)
	g.busy.Done()
	switch {
	case ours && !again:
		return v, nil
	case v.Action == Replay, v.Reason == Gone:
		return v, ErrSettled
	case errors.Is(err, ErrNotDone):
		return v, err
	}
	return v, ErrInDoubt
}

// lazyContext is a context that costs nothing until somebody waits for it:
// most operations end without ever looking at Done. It has a deadline, or can
// be cancelled with a cause, or both, and does not follow its parent's end.
type lazyContext struct {
	parent   context.Context // for values
	claim    *Claim          // nil unless it is a claim's own
	deadline time.Time

	mu     sync.Mutex
	cause  error
	real   context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
}

// Deadline is part of [context.Context].
func (c *lazyContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done is part of [context.Context].
func (c *lazyContext) Done() <-chan struct{} { return c.materialise().Done() }

// Err is part of [context.Context].
func (c *lazyContext) Err() error {
	c.mu.Lock()
	real, cause := c.real, c.cause
	c.mu.Unlock()
	switch {
	case real != nil:
		return real.Err()
	case cause != nil:
		return context.Canceled
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// Value is part of [context.Context]. It asks the real context once there is
// one, so that the standard library recognises its own kind in it and needs no
// goroutine for contexts derived from this one.
func (c *lazyContext) Value(key any) any {
	if key == (claimOf{}) && c.claim != nil {
		return c.claim
	}
	c.mu.Lock()
	real := c.real
	c.mu.Unlock()
	if real != nil {
		return real.Value(key)
	}
	return context.WithoutCancel(c.parent).Value(key)
}

func (c *lazyContext) materialise() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		base := context.WithoutCancel(c.parent)
		if !c.deadline.IsZero() {
			base, c.stop = context.WithDeadline(base, c.deadline)
		}
		c.real, c.cancel = context.WithCancelCause(base)
		if c.cause != nil {
			c.cancel(c.cause)
		}
	}
	return c.real
}

// again gives a context for one more use: c itself, unless it is nil or
// somebody waited for it in an earlier use, which must not see the next one's end.
func (c *lazyContext) again(parent context.Context, deadline time.Time) *lazyContext {
	if c == nil {
		return &lazyContext{parent: parent, deadline: deadline}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return &lazyContext{parent: parent, deadline: deadline}
	}
	c.parent, c.deadline, c.cause = parent, deadline, nil
	return c
}

// unseen tells whether nobody has waited for the context in its present use.
func (c *lazyContext) unseen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.real == nil
}

// end cancels the context and frees what it holds.
func (c *lazyContext) end(cause error) {
	if cause != context.Canceled {
		c.materialise() // so that context.Cause finds it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = cause
	}
	if c.real != nil {
		c.cancel(cause)
		if c.stop != nil {
			c.stop()
		}
	}
}
