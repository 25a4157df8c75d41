package semel

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// ErrStep is told by [Claim.Step]: the steps are not those of the attempt before, or
// one name was used twice. The operation's code has to be mended; nothing was run.
var ErrStep = errors.New("semel: the steps do not fit")

// Step runs one part of an operation, once over all attempts: what fn returned is
// recorded, and an attempt that takes over is given that and does not run fn
// (INVARIANTS O1). name is unique within the operation. Steps come one after the
// other, in the same order in every attempt: another order is [ErrStep].
//
// An attempt may die between fn's effect and its record; then the next one runs
// fn again. So fn's effect has to be safe under the derived key, which is the same
// in every attempt (INVARIANTS O2) and is in fn's context, see [DerivedKey]:
// semelhttp's Transport sends it by itself. One step makes one call.
//
// With the class Transactional a step's record is written beside the transaction, and
// stays if that is undone. Where the database has one writer at a time, as SQLite
// does, that cannot be, and the step is refused with [ErrRejected].
//
// A step does not start once the lease of its claim has ended: another attempt may
// hold the key, and the error is [ErrInDoubt].
//
// An error of fn is given back and not recorded. A result longer than the policy's
// MaxResult is an error, and the step remains done. Code and bytes of a result are
// kept as long as the key is remembered.
func (c *Claim) Step(ctx context.Context, name string, fn func(ctx context.Context) (Result, error)) (Result, error) {
	w, root, again, err := c.nextStep(name)
	if err != nil {
		return Result{}, err
	}
	defer w.guard.works.put(w)
	a := &w.attempt
	var move Move
	if again {
		move, err = w.drive(ctx, a.Begin(w.now, w.now), time.Time{})
	} else { // nobody can have been here before
		move = a.judge(w.now, Reading{Now: w.now})
	}
	switch {
	case err != nil:
		return Result{}, err
	case move.Do == Run:
	case a.Err() != nil:
		return Result{}, a.Err()
	case a.verdict.Action == Replay:
		_, result, err := splitStep(a.verdict.Held.Result)
		return Result{Code: a.verdict.Held.Code, Data: result}, err
	case a.verdict.Reason == Mismatch:
		return Result{}, w.guard.otherStep(ctx, a.digest, name)
	default:
		return Result{}, a.verdict.Err()
	}
	result, err := fn(context.WithValue(ctx, derivedKeyOf{}, derivedKey(root, name)))
	if err != nil {
		return Result{}, err
	}
	if most := a.policy.MaxResult; len(result.Data) > most {
		err = fmt.Errorf("semel: step %q gave %d bytes and the policy keeps %d: raise its MaxResult, or keep a reference", name, len(result.Data), most)
	}
	return w.endStep(ctx, name, result, err)
}

// nextStep prepares the attempt at the claim's next step. again tells that an
// earlier attempt may have run it.
func (c *Claim) nextStep(name string) (w *work, root Digest, again bool, err error) {
	lost := c.current().Err() != nil
	c.reading.Lock()
	defer c.reading.Unlock()
	switch {
	case c.work == nil:
		return nil, root, false, errors.New("semel: a step of a claim that has ended")
	case lost, !time.Now().Before(c.safe):
		return nil, root, false, fmt.Errorf("%w: step %q was not started, since the lease has ended and another attempt may hold the key", ErrInDoubt, name)
	case c.transactional && oneWriter(c.guard.transactor):
		return nil, root, false, fmt.Errorf("%w: step %q was not started: its record is written beside the operation's transaction, and this database has one writer at a time; "+
			"stage a job in the transaction and call from there, or take the class Fenced", ErrRejected, name)
	case name == "":
		return nil, root, false, fmt.Errorf("%w: a step needs a name", ErrStep)
	case slices.Contains(c.steps, name):
		return nil, root, false, fmt.Errorf("%w: %q was used twice in one operation: a derived key belongs to one call", ErrStep, name)
	}
	g, whole := c.guard, &c.attempt.ask
	policy := *whole.Policy
	policy.Class, policy.Wait, policy.Replay, policy.Resolve = Fenced, -1, policy.Remember, nil
	key := Key{Scope: JoinScope(whole.Key.Scope, "step", strconv.Itoa(len(c.steps)+1)), ID: whole.Key.ID}
	ask := Ask{Key: key, Fingerprint: FingerprintOf([]byte(name)), Policy: &policy}
	c.steps = append(c.steps, name)
	w = g.works.get()
	w.guard, w.start = g, time.Now()
	w.now = w.start
	w.prepare(ask, g.Digest(key))
	a := &w.attempt
	a.optimistic, a.phase = true, looking
	return w, c.attempt.digest, c.number > 1 || c.transactional, nil
}

// oneWriter tells whether the transactor's database lets one transaction write at a
// time, whatever it writes. A transactor says so by a method OneWriter.
func oneWriter(t Transactor) bool {
	w, ok := t.(interface{ OneWriter() bool })
	return ok && w.OneWriter()
}

// endStep records what a step came to. tooLong is the error of a result that is
// not kept.
func (w *work) endStep(ctx context.Context, name string, result Result, tooLong error) (Result, error) {
	e := Ending{State: Done, Code: result.Code}
	if tooLong == nil {
		e.Result = joinStep(name, result.Data)
	}
	a := &w.attempt
	now := time.Now()
	w.now = now
	limit := *a.policy
	limit.MaxResult += len(name) + binary.MaxVarintLen64
	a.policy = &limit
	move, err := w.drive(ctx, a.Finish(now, e), now.Add(a.policy.FinishWithin))
	v := a.Verdict()
	switch {
	case err != nil:
		return Result{}, err
	case move.Do != Stop:
		return Result{}, ErrInDoubt
	case a.Err() != nil:
		return Result{}, fmt.Errorf("semel: step %q happened and was not recorded: %w", name, errors.Join(ErrInDoubt, a.Err()))
	case tooLong != nil:
		return Result{}, tooLong
	case v.Action == Replay: // ours, or that of another attempt that was quicker
		_, data, err := splitStep(v.Held.Result)
		return Result{Code: v.Held.Code, Data: data}, err
	}
	return Result{}, v.Err()
}

// otherStep is the error for a step under whose number another is recorded.
func (g *Guard) otherStep(ctx context.Context, digest Digest, name string) error {
	held, err := g.store.Get(ctx, digest)
	if err != nil {
		return err
	}
	recorded, _, err := splitStep(held.Record.Result)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: an earlier attempt ran %q at the place where now %q is: the operation's code has changed meanwhile; "+
		"run it with the code of before, or settle the key by hand (INVARIANTS O3)", ErrStep, recorded, name)
}

func joinStep(name string, data []byte) []byte {
	b := binary.AppendUvarint(make([]byte, 0, len(name)+len(data)+2), uint64(len(name)))
	return append(append(b, name...), data...)
}

func splitStep(b []byte) (name string, data []byte, err error) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > uint64(len(b)-width) {
		return "", nil, fmt.Errorf("%w: a step's result does not decode, or was too long to be kept", ErrGone)
	}
	return string(b[width : width+int(n)]), b[width+int(n):], nil
}

// claimOf is the context key of the claim that an operation runs under.
type claimOf struct{}

// ClaimFrom gives the claim under which the code that has ctx executes: for the
// steps of an operation that Guard.Do or a handler of semelhttp runs, which end
// the claim themselves.
func ClaimFrom(ctx context.Context) (*Claim, bool) {
	c, ok := ctx.Value(claimOf{}).(*Claim)
	return c, ok
}

// derivedKeyOf is the context key of a step's derived key.
type derivedKeyOf struct{}

// DerivedKey gives the key that a step's downstream call is to carry, if ctx is
// a step's: a UUID that depends on the operation and the step's name alone.
func DerivedKey(ctx context.Context) (string, bool) {
	id, ok := ctx.Value(derivedKeyOf{}).(string)
	return id, ok
}

// derivedKey makes a UUID of version 8 out of an operation's digest and a step's
// name.
func derivedKey(root Digest, name string) string {
	h := sha256.New()
	h.Write([]byte("semel derived key"))
	h.Write(root[:])
	h.Write([]byte(name))
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
