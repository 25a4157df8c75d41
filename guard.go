package semel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Options are a guard's settings. The zero value is usable.
type Options struct {
	// Secret keys the digests, so that nobody who reads the store can test guesses
	// of keys. All processes that share a store share the secret, and changing it
	// makes every key a new one. Default: none, plain SHA-256.
	Secret []byte
	// Owner names this process in records, for people. Default: host name and
	// process id.
	Owner string
	// Observe is told what happened, on the request's goroutine: it must return
	// quickly, must be safe for concurrent use, and must not call the guard.
	// Default: nobody is told.
	Observe func(Event)
}

// Guard joins a store and Decide. It collapses the duplicates of its process
// into one attempt, renews the leases of what runs, and fences every write. A
// Guard is safe for concurrent use; one per store and process is enough.
type Guard struct {
	store   Store
	watcher Watcher // nil if the store is none
	// transactor is nil if the store is none.
	transactor Transactor
	options    Options
	flights    flights
	keeper     keeper
	works      works
	// ahead is the store's clock minus ours, in nanoseconds, as last seen.
	ahead atomic.Int64
	// stray bounds the attempts that go on behind a request.
	stray chan struct{}

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup // requests and strays
}

// maxStray bounds the claims that are taken back, and the results that are
// still being stored, behind requests that were answered.
const maxStray = 256

// NewGuard tests the store with a key of its own (written, found again as a
// duplicate, released) and gives a guard for it. A store that loses that key,
// that takes the same insert twice, or that was written with another secret, is
// refused here and not in production.
func NewGuard(store Store, options Options) (*Guard, error) {
	if store == nil {
		return nil, errors.New("semel: a guard needs a store")
	}
	if options.Owner == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		options.Owner = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	g := &Guard{store: store, options: options, stray: make(chan struct{}, maxStray)}
	g.watcher, _ = As[Watcher](store)
	g.transactor, _ = As[Transactor](store)
	if err := g.selfTest(); err != nil {
		return nil, err
	}
	return g, nil
}

// Store gives the store that the guard was made with.
func (g *Guard) Store() Store { return g.store }

// Now gives the store's clock as last seen: for numbers to tell people, not to judge
// a record by.
func (g *Guard) Now() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }

// Digest gives the digest under which the guard's store knows key.
func (g *Guard) Digest(key Key) Digest { return key.Digest(g.options.Secret) }

// Begin asks for the key. Exactly one of three things comes back: a Claim,
// whose holder must execute and then end it; a Verdict to replay or refuse; or
// an error, and then nothing was started: [ErrUnavailable], [ErrClosed], or the
// cause of ctx if it ended while this request waited for another.
//
// While the key is held by another attempt, Begin waits up to the policy's
// Wait. The claim itself is not bound to ctx: a client that leaves does not undo
// what it asked for.
func (g *Guard) Begin(ctx context.Context, ask Ask) (*Claim, Verdict, error) {
	if !g.enter() {
		return nil, Verdict{}, ErrClosed
	}
	c, v, err := g.begin(ctx, ask)
	if c == nil {
		g.busy.Done()
	}
	return c, v, err
}

func (g *Guard) begin(ctx context.Context, ask Ask) (*Claim, Verdict, error) {
	if ctx.Err() != nil { // whoever asked has left, and nothing has begun
		return nil, Verdict{}, context.Cause(ctx)
	}
	if ask.Policy == nil {
		p, err := Policy{}.Filled()
		if err != nil {
			return nil, Verdict{}, err
		}
		ask.Policy = &p
	}
	if ask.Policy.Class == Transactional && g.transactor == nil {
		return nil, Verdict{}, fmt.Errorf("%w: policy %q is transactional, and this guard's store begins no transactions: make the guard "+
			"with a scope of the application's database, or take another class", ErrRejected, ask.Policy.Name)
	}
	start := time.Now()
	digest := g.Digest(ask.Key)
	w := g.works.get()
	w.guard, w.start, w.now = g, start, start
	key := flightKey{digest, ask.Fingerprint}
	for first := true; ; first = false {
		leader, landed := g.flights.join(key, &w.flight)
		if leader == nil {
			break
		}
		limit := ask.Policy.Wait - time.Since(start)
		v, err := leader.wait(ctx, landed, limit)
		// The first flight may have read the record before this request came. In doubt
		// then can be finished by now, and a client may know it (INVARIANTS S7).
		again := err == nil && v.Action == Refuse &&
			(v.Reason == InProgress && time.Since(start) < ask.Policy.Wait || v.Reason == InDoubt && first)
		if !again {
			g.works.put(w)
			g.tellOutcome(ask, digest, v, err, start)
			return nil, v, err
		}
		w.now = time.Now()
	}
	w.prepare(ask, digest)
	return g.lead(ctx, w)
}

// lead makes the attempt that this process' duplicates wait for.
func (g *Guard) lead(ctx context.Context, w *work) (*Claim, Verdict, error) {
	a := &w.attempt
	w.enter(ctx)
	move := a.Begin(w.now, w.now.Add(time.Duration(g.ahead.Load())))
	a.waitEnd = w.start.Add(a.policy.Wait) // what was waited for a flight counts
	move, err := w.drive(ctx, move, time.Time{})
	if err != nil { // ctx ended while another's lease was waited for
		w.leave(false)
		g.flights.land(&w.flight, &Verdict{Action: Refuse, Reason: InProgress}, nil)
		return nil, Verdict{}, err
	}
	if move.Do == Run {
		c := &Claim{work: w, number: a.verdict.Attempt, digest: a.digest, unconfirmed: a.unconfirmed}
		c.ctx.parent, c.ctx.claim = ctx, c
		v := a.Verdict()
		w.fresh = v.Reason == Fresh
		g.tell(a, Claimed, w.start, nil)
		if a.bound {
			c.transactional = true
			c.begun(move)
		} else {
			c.granted(move)
		}
		return c, v, nil
	}
	w.leave(false)
	v, err := a.Verdict(), a.Err()
	if v.Reason == Damaged {
		err = nil
	}
	g.flights.land(&w.flight, &v, err)
	g.tellOutcome(a.ask, a.digest, v, a.Err(), w.start)
	if errors.Is(err, ErrUnavailable) && !a.bound {
		g.astray(func() { w.driveToEnd(ctx, a.Disown(time.Now())) }) // from here on the attempt is its own
	} else {
		g.works.put(w)
	}
	return nil, v, err
}

// astray runs fn behind the request, unless too many run already: then what
// fn would have tidied stays in the store until its lease ends.
func (g *Guard) astray(fn func()) bool {
	select {
	case g.stray <- struct{}{}:
	default:
		return false
	}
	g.busy.Add(1)
	go func() {
		defer g.busy.Done()
		defer func() { <-g.stray }()
		fn()
	}()
	return true
}

func (g *Guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.busy.Add(1)
	return true
}

// Close refuses new requests and waits until every claim has ended and every
// result that is still being stored is stored, or until ctx ends. It does not
// close the store.
func (g *Guard) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		g.busy.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("semel: operations were still running when the guard was closed: %w", context.Cause(ctx))
	}
}

// Answer is what Guard.Do gives back.
type Answer struct {
	Result
	// Replayed tells that this call did not execute: the result is an earlier one.
	Replayed bool
	// Attempt is the number of the attempt that gave the result.
	Attempt int
	// Unconfirmed tells that the authoritative store could not be asked, see
	// [Reading].
	Unconfirmed bool
}

// Do runs fn once for the ask and stores what it returns, or gives back the
// result stored before. It is Begin, fn and the end of the claim in one.
//
// If fn returns an error that is [ErrNotDone], the key is released and the next
// call runs fn again. After any other error, and after a panic, nobody knows
// what happened: the key is in doubt, or free for another run if the class says
// so, and the error (or the panic) goes on to the caller. A refusal is one of
// the sentinel errors of this package.
//
// With the class Transactional fn finds its transaction in its context. Any error
// of fn, and a panic, undo it: nothing happened, and the key stays unused. fn runs
// again where the database undid the transaction for another's sake.
func (g *Guard) Do(ctx context.Context, ask Ask, fn func(ctx context.Context) (Result, error)) (Answer, error) {
	claim, v, err := g.Begin(ctx, ask)
	if err != nil {
		return Answer{}, err
	}
	if claim == nil {
		answer := Answer{Result: Result{Code: v.Held.Code, Data: v.Held.Result}, Replayed: true, Attempt: v.Held.Attempt, Unconfirmed: v.Unconfirmed}
		return answer, v.Err()
	}
	returned := false
	defer func() {
		if !returned {
			_ = claim.Doubt() // fn panicked, and the panic goes on
		}
	}()
	for {
		returned = false
		result, err := fn(claim.Context())
		returned = true
		if result.Data == nil {
			result.Data = []byte{}
		}
		var record Record
		if err != nil {
			record, err = claim.fail(err)
		} else {
			record, err = claim.Complete(result)
		}
		switch {
		case err == ErrUndone: // the claim's own word, not one that fn wraps
			continue
		case err == ErrSettled:
			return Answer{Result: Result{Code: record.Code, Data: record.Result}, Replayed: true, Attempt: record.Attempt}, nil
		case err != nil:
			return Answer{}, err
		}
		return Answer{Result: result, Attempt: record.Attempt, Unconfirmed: claim.Unconfirmed()}, nil
	}
}

// Within runs fn once for the ask in a transaction that is the caller's own. tx is
// the guard's store bound to it, as an adapter's In gives it. Key, result and what
// fn writes there become visible together, when the caller commits; after an error
// the caller rolls back. Who may run into a duplicate that another transaction
// holds gets [ErrInProgress] after the adapter's lock wait. The policy's class has to be
// Transactional; its Wait has no meaning here.
func (g *Guard) Within(ctx context.Context, tx Store, ask Ask, fn func(ctx context.Context) (Result, error)) (Answer, error) {
	switch {
	case ask.Policy == nil || ask.Policy.Class != Transactional:
		return Answer{}, errors.New("semel: Within needs a policy of the class transactional: in any other its record would have to outlive the transaction")
	case !g.enter():
		return Answer{}, ErrClosed
	}
	defer g.busy.Done()
	policy := *ask.Policy
	// Whatever fails leaves the transaction to be rolled back: nothing is tried twice.
	policy.Wait, policy.ClaimWithin, policy.FinishWithin = -1, 0, -policy.Lease
	ask.Policy = &policy
	w := &work{guard: g, start: time.Now()}
	w.prepare(ask, g.Digest(ask.Key))
	w.store, w.attempt.bound, w.attempt.optimistic = tx, false, false
	a := &w.attempt
	w.now = w.start
	move, err := w.drive(ctx, a.Begin(w.now, w.now.Add(time.Duration(g.ahead.Load()))), time.Time{})
	if err != nil {
		return Answer{}, err
	}
	if move.Do != Run {
		v, err := a.Verdict(), a.Err()
		g.tellOutcome(ask, a.digest, v, err, w.start)
		if err == nil {
			err = v.Err()
		}
		return Answer{Result: Result{Code: v.Held.Code, Data: v.Held.Result}, Replayed: err == nil, Attempt: v.Held.Attempt}, err
	}
	result, err := fn(ctx)
	if err != nil {
		return Answer{}, err
	}
	if result.Data == nil {
		result.Data = []byte{}
	}
	w.now = time.Now()
	if _, err := w.drive(ctx, a.Finish(w.now, Ending{State: Done, Code: result.Code, Result: result.Data}), time.Time{}); err != nil {
		return Answer{}, err
	}
	if err := a.Err(); err != nil {
		return Answer{}, err
	}
	return Answer{Result: result, Attempt: a.held.Attempt}, a.Verdict().Err()
}

// newNonce needs to be unique, not secret.
func newNonce() Nonce {
	var n Nonce
	binary.NativeEndian.PutUint64(n[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(n[8:], rand.Uint64())
	return n
}

// selfTest claims a key of the guard's own, asks for it again as a duplicate
// would, and releases it: what production relies on, tried once at the start.
func (g *Guard) selfTest() error {
	key := Key{Scope: JoinScope("semel", "self-test"), ID: newNonce().String()}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	fail := func(what string, err error) error {
		return fmt.Errorf("semel: the store failed its self-test: %s: %w", what, errors.Join(ErrUnavailable, err))
	}
	next := Record{
		Digest: g.Digest(key), State: Pending, Class: AtLeastOnce, Nonce: newNonce(),
		Attempt: 1, TTL: time.Minute, Key: key, Owner: g.options.Owner,
	}
	first, err := g.store.CompareAndSwap(ctx, Version{}, next)
	if err != nil {
		return fail("a fresh key was not written", err)
	}
	g.ahead.Store(int64(time.Until(first.Now)))
	second := next
	second.Nonce = newNonce()
	held, err := g.store.CompareAndSwap(ctx, Version{}, second)
	if !errors.Is(err, ErrConflict) || held.Record.Nonce != next.Nonce {
		return fail("a duplicate was not recognised", err)
	}
	second.State, second.TTL = Released, time.Nanosecond
	if _, err := g.store.CompareAndSwap(ctx, first.Record.Version, second); err != nil {
		return fail("a key was not released", err)
	}
	if first.Unconfirmed {
		return nil // the store that knows the secret cannot be reached
	}
	return g.checkSecret(ctx)
}
