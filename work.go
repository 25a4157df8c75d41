package semel

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// work is an attempt with what drives it: what a claim needs until it ends,
// and a request that is not granted for even less long. It is large, so its
// room is used again.
type work struct {
	guard   *Guard
	store   Store       // the guard's, or one bound to the caller's transaction
	tx      Transaction // of an attempt that is bound to one; nil before and after
	start   time.Time
	now     time.Time // the local clock, as last read by drive
	flight  flight
	attempt Attempt
	op      *lazyContext // of the store's last call; nil before the first
	entered bool         // the quota has let it in
	fresh   bool         // what was granted is a new key
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
	a.bound = ask.Policy.Class == Transactional && w.guard.transactor != nil
	a.optimistic = ask.Policy.Optimistic
	w.store = w.guard.store
}

// enter asks the quota, if there is one.
func (w *work) enter(ctx context.Context) {
	a := &w.attempt
	if a.policy.Quota == nil {
		return
	}
	retryAfter, ok := a.policy.Quota.Enter(ctx, a.ask.Tenant)
	if w.entered = ok; !ok {
		a.Bar(retryAfter)
	}
}

// leave gives back what enter got.
func (w *work) leave(fresh bool) {
	if w.entered {
		w.entered = false
		w.attempt.policy.Quota.Leave(w.attempt.ask.Tenant, fresh)
	}
}

// drive carries out moves until the attempt runs or stops. It returns sooner,
// with a Sleep, once a sleep would end after until, if until is set; and with
// the cause of ctx if ctx ends while another's lease is waited for. Nothing else
// follows ctx: a claim that may have landed has to be followed to its end.
func (w *work) drive(ctx context.Context, move Move, until time.Time) (Move, error) {
	defer w.stopWatching()
	for {
		if w.tx != nil && move.Do != SwapRecord && move.Do != Run {
			w.rollback()
		}
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
	switch {
	case !w.attempt.bound:
		return w.store.CompareAndSwap(w.op, s.Old, s.Next)
	case w.attempt.phase == finishing:
		tx := w.tx
		w.tx = nil // whatever comes of it
		return tx.Commit(w.op, s)
	case w.tx == nil:
		first := s // for the heap: s itself stays off it
		w.tx, r, err = w.guard.transactor.Begin(w.op, s.Next.Digest, &first)
		return r, err
	}
	r, err = w.tx.CompareAndSwap(w.op, s.Old, s.Next)
	if err != nil && !errors.Is(err, ErrConflict) {
		w.rollback()
	}
	return r, err
}

// rollback ends the attempt's transaction, if there is one.
func (w *work) rollback() {
	if tx := w.tx; tx != nil {
		w.tx = nil
		tx.Rollback()
	}
}

func (w *work) read(ctx context.Context) (r Reading, err error) {
	defer survive(&err)
	w.op = w.op.again(ctx, w.now.Add(storeTimeout))
	if w.attempt.bound && w.attempt.phase == looking {
		w.tx, r, err = w.guard.transactor.Begin(w.op, w.attempt.digest, nil)
		return r, err
	}
	return w.store.Get(w.op, w.attempt.digest)
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

// driveToEnd drives the attempt to its end, whatever ends meanwhile. It is for
// attempts that are not bound to a transaction.
func (w *work) driveToEnd(ctx context.Context, move Move) {
	// The context never ends, so there is no error to look at.
	_, _ = w.drive(context.WithoutCancel(ctx), move, time.Time{})
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

// keeper renews the leases of all claims of a guard with a single timer: most
// claims end long before their first renewal, and a timer for each of them would
// cost more than all the rest of their bookkeeping.
type keeper struct {
	mu    sync.Mutex
	first *Claim // the claims that are held, linked through next and prev
	timer *time.Timer
	armed time.Time // when the timer fires; zero while it is not armed
}

// keeperGrain is how far apart the keeper's looks are at least: what is due
// within it is renewed together.
const keeperGrain = 2 * time.Millisecond

// keep has c renewed at due.
func (k *keeper) keep(c *Claim, due time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.due = due
	c.kept = true
	c.next, c.prev = k.first, nil
	if c.next != nil {
		c.next.prev = c
	}
	k.first = c
	k.arm(due)
}

// drop forgets c. The timer may then fire for nothing.
func (k *keeper) drop(c *Claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unlink(c)
}

func (k *keeper) unlink(c *Claim) {
	if !c.kept {
		return
	}
	c.kept = false
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		k.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev = nil, nil
}

// arm makes the timer fire no later than at due.
func (k *keeper) arm(due time.Time) {
	if !k.armed.IsZero() && !due.Before(k.armed) {
		return
	}
	k.armed = due
	if k.timer == nil {
		k.timer = time.AfterFunc(time.Until(due), k.look)
		return
	}
	k.timer.Reset(time.Until(due))
}

// look starts the renewals that are due. It runs on the timer's goroutine; each
// renewal gets its own, since a store may take its time.
func (k *keeper) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	soon := time.Now().Add(keeperGrain)
	k.armed = time.Time{}
	for c := k.first; c != nil; {
		next := c.next
		if c.due.After(soon) {
			k.arm(c.due)
		} else {
			k.unlink(c)
			go c.renew()
		}
		c = next
	}
}

// flights lets the duplicates of one process wait for one attempt, so that a
// herd costs the store what a single request costs. Requests with the same
// digest and another fingerprint do not share a flight: each asks the store.
type flights struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[flightKey]*flight
	}
}

type flightKey struct {
	digest      Digest
	fingerprint Fingerprint
}

// flight is one attempt under way, seen by those who wait for it.
type flight struct {
	key flightKey
	// Guarded by the shard's mutex until landed is closed, then fixed.
	landed  chan struct{} // nil while nobody waits
	outcome *outcome      // nil if nobody waited
}

// outcome is what a flight came to.
type outcome struct {
	verdict Verdict
	err     error
}

// join gives the flight under key and its channel, or registers own and gives
// nil.
func (f *flights) join(key flightKey, own *flight) (*flight, <-chan struct{}) {
	shard := &f.shards[key.digest[0]%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if leader := shard.m[key]; leader != nil {
		if leader.landed == nil {
			leader.landed = make(chan struct{})
		}
		return leader, leader.landed
	}
	if shard.m == nil {
		shard.m = make(map[flightKey]*flight)
	}
	own.key = key
	shard.m[key] = own
	return nil, nil
}

// land ends the flight and wakes all who wait for it. Later calls do nothing.
func (f *flights) land(own *flight, v *Verdict, err error) {
	shard := &f.shards[own.key.digest[0]%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.m[own.key] != own {
		return
	}
	delete(shard.m, own.key)
	if own.landed != nil {
		own.outcome = &outcome{*v, err}
		close(own.landed)
	}
}

// wait waits for the flight, for at most limit, and tells what it came to.
func (l *flight) wait(ctx context.Context, landed <-chan struct{}, limit time.Duration) (Verdict, error) {
	if limit <= 0 {
		return Verdict{Action: Refuse, Reason: InProgress}, nil
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-landed:
		return l.outcome.verdict, l.outcome.err
	case <-timer.C:
		return Verdict{Action: Refuse, Reason: InProgress}, nil
	case <-ctx.Done():
		return Verdict{}, context.Cause(ctx)
	}
}
