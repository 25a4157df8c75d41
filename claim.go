package semel

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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
	number      int
	unconfirmed bool

	mu    sync.Mutex // held during every move of the attempt
	ended bool
	*work // gone once the claim has ended

	reading sync.Mutex // held for a moment only
	version Version

	// Guarded by the keeper's mutex.
	due        time.Time
	kept       bool
	next, prev *Claim
}

// Context is the context to execute under. It has the values of the request's
// context; it does not end when the client leaves; it ends, with the cause
// [ErrInDoubt], before the lease can be lost to another, and when the claim ends.
func (c *Claim) Context() context.Context { return &c.ctx }

// Version is the fencing token of the claim: a target that accepts tokens
// refuses one that is older than the newest it has seen.
// It grows when the lease is renewed. Version does not wait for the store.
func (c *Claim) Version() Version {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.version
}

// granted notes the version that the claim holds now, and has its lease renewed.
func (c *Claim) granted(move Move) {
	c.reading.Lock()
	c.version = c.attempt.held.Version
	c.reading.Unlock()
	c.guard.keeper.keep(c, move.Until)
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
// then the client must not be told that it was. Complete does not follow the
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
	c.guard.keeper.drop(c)
	a := &c.attempt
	now := time.Now()
	c.now = now
	move, _ := c.drive(c.ctx.parent, a.Finish(now, e), now.Add(a.policy.FinishWithin))
	if move.Do != Stop {
		// The store does not answer. Whoever waits is told that the outcome is
		// unknown, while storing goes on.
		c.linger(move, kind, shared)
		return Verdict{}, ErrInDoubt
	}
	return c.settled(kind, shared)
}

// linger goes on storing behind the caller.
func (c *Claim) linger(move Move, kind EventKind, shared Verdict) {
	g := c.guard
	going := g.astray(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.driveToEnd(c.ctx.parent, move)
		// What it came to is in the events and in the store; nobody waits for it.
		_, _ = c.settled(kind, shared)
	})
	if !going {
		c.attempt.end(Verdict{Action: Refuse, Reason: InDoubt}, ErrUnavailable)
		_, _ = c.settled(kind, shared)
	}
}

// settled tells everybody what the last swap came to.
func (c *Claim) settled(kind EventKind, shared Verdict) (Verdict, error) {
	a, g := &c.attempt, c.guard
	v := a.Verdict()
	ours := a.Err() == nil && v.Reason == Finished && v.Held.Nonce == a.next.Nonce
	if !ours {
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
	c.ctx.end(context.Canceled)
	g.flights.land(&c.flight, &told, nil)
	g.works.put(c.work)
	c.work = nil
	g.busy.Done()
	switch {
	case ours:
		return v, nil
	case v.Action == Replay, v.Reason == Gone:
		return v, ErrSettled
	}
	return v, ErrInDoubt
}

// work is an attempt with what drives it: what a claim needs until it ends,
// and a request that is not granted for even less long. It is large, so its
// room is used again.
type work struct {
	guard   *Guard
	start   time.Time
	now     time.Time // the local clock, as last read by drive
	flight  flight
	attempt Attempt
	op      *lazyContext // of the store's last call; nil before the first
	news    <-chan struct{}
	unwatch func() // nil while the key is not watched
}

// works keeps room for work.
type works struct{ spare sync.Pool }

func (s *works) get() *work {
	if w, ok := s.spare.Get().(*work); ok {
		return w
	}
	return new(work)
}

// put takes work back that is done and has landed, except what somebody may
// still look at: a flight for which a duplicate waited, or a context for whose
// end somebody waits.
func (s *works) put(w *work) {
	if w.flight.landed != nil {
		return
	}
	op := w.op
	if op != nil && op.unseen() {
		*op = lazyContext{}
	} else {
		op = nil
	}
	*w = work{op: op}
	s.spare.Put(w)
}

// prepare is NewAttempt in place: to copy an attempt takes time.
func (w *work) prepare(ask Ask, digest Digest) {
	a := &w.attempt
	a.ask, a.policy, a.digest, a.owner, a.nonce = ask, ask.Policy, digest, w.guard.options.Owner, newNonce
}

// drive carries out moves until the attempt runs or stops. It returns sooner,
// with a Sleep, once a sleep would end after until, if until is set; and with
// the cause of ctx if ctx ends while another's lease is waited for. Nothing else
// follows ctx: a claim that may have landed has to be followed to its end.
func (w *work) drive(ctx context.Context, move Move, until time.Time) (Move, error) {
	defer w.stopWatching()
	for {
		switch move.Do {
		case SwapRecord:
			move = w.reply(w.swap(ctx, move.Swap))
		case ReadRecord:
			move = w.reply(w.read(ctx))
		case Sleep:
			if !until.IsZero() && move.Until.After(until) {
				return move, nil
			}
			if w.attempt.phase != waiting {
				time.Sleep(time.Until(move.Until))
			} else if err := w.await(ctx, move.Until); err != nil {
				return move, err
			}
			w.now = time.Now()
			move = w.attempt.Wake(w.now)
		default:
			return move, nil
		}
	}
}

func (w *work) stopWatching() {
	if w.unwatch != nil {
		w.unwatch()
		w.news, w.unwatch = nil, nil
	}
}

// storeTimeout bounds one call of a store.
const storeTimeout = 5 * time.Second

func (w *work) swap(ctx context.Context, s Swap) (r Reading, err error) {
	defer survive(&err)
	w.op = w.op.again(ctx, w.now.Add(storeTimeout))
	return w.guard.store.CompareAndSwap(w.op, s.Old, s.Next)
}

func (w *work) read(ctx context.Context) (r Reading, err error) {
	defer survive(&err)
	w.op = w.op.again(ctx, w.now.Add(storeTimeout))
	return w.guard.store.Get(w.op, w.attempt.digest)
}

// survive makes a store's panic what it means here: nobody knows whether the
// write happened. Let through, it would leave the key's flight in the air, and
// duplicates waiting for it.
func survive(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("semel: the store panicked: %v\n%s", v, debug.Stack())
	}
}

// reply ends a call of the store and hands its answer to the attempt.
func (w *work) reply(r Reading, err error) Move {
	w.op.end(context.Canceled)
	w.now = time.Now()
	if !r.Now.IsZero() {
		w.guard.ahead.Store(int64(r.Now.Sub(w.now)))
	}
	return w.attempt.Reply(w.now, r, err)
}

// driveToEnd drives the attempt to its end, whatever ends meanwhile.
func (w *work) driveToEnd(ctx context.Context, move Move) {
	// The context never ends, so there is no error to look at.
	_, _ = w.drive(context.WithoutCancel(ctx), move, time.Time{})
}

// await waits until t, or until there is news of the key, for another's lease
// to end. Its error is the cause of ctx, if that ends first.
func (w *work) await(ctx context.Context, t time.Time) error {
	if w.guard.watcher != nil && w.news == nil {
		w.news, w.unwatch = w.guard.watcher.Watch(w.attempt.digest)
	}
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-w.news:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
