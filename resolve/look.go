package resolve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// look asks for one key, if it is this process' turn.
func (c *Completer) look(ctx context.Context, of *room, digest semel.Digest) {
	e := Event{Policy: of.policy.Name, Digest: digest}
	held, err := c.get(ctx, digest)
	r := &held.Record
	if err == nil && !r.InDoubt(held.Now) {
		c.suspectLater(digest, held)
		return
	}
	if wait := r.Expires().Add(c.o.After).Sub(held.Now); err == nil && wait > 0 {
		c.sleep(digest, wait)
		return
	}
	e.Key = r.Key
	var claim *semel.Claim
	var wait time.Duration
	if err == nil {
		claim, wait, err = c.takeLead(ctx, r)
	}
	switch {
	case err != nil:
		c.again(ctx, e, c.failed(digest), err)
		return
	case claim == nil: // another's turn, or too early
		c.sleep(digest, wait)
		return
	}
	// The record stays in doubt while nobody settles it; the settlement holds for
	// this version only.
	u := r.Unresolved()
	e.Looks = claim.Attempt()
	start := time.Now()
	s, err := c.ask(ctx, of, &u)
	e.Took = time.Since(start)
	// First, since nobody would tidy the claim of a key that is settled; others keep
	// the pause after a look. What stays held is free for them when its lease ends.
	_ = claim.Release(semel.Result{})
	moved := false
	if err == nil && s.State != 0 {
		moved, err = c.settle(ctx, of.policy, r, &s)
	}
	switch {
	case err == nil && s.State != 0:
		c.forget(digest)
		e.Kind, e.State, e.Why = Settled, s.State, s.Why
		c.o.Observe(e)
	case moved: // others have settled it, or it runs again
		c.forget(digest)
		c.Suspect(digest)
	default:
		e.Why = s.Why
		c.again(ctx, e, e.Looks, err)
	}
}

// suspectLater deals with a key that is not in doubt, or not any more.
func (c *Completer) suspectLater(digest semel.Digest, held semel.Reading) {
	c.forget(digest)
	if held.Record.State == semel.Pending && held.Record.Class == semel.AtMostOnce {
		c.Suspect(digest)
	}
}

// again tells of a look that settled nothing, and has the next one made.
func (c *Completer) again(ctx context.Context, e Event, looks int, err error) {
	e.Kind, e.Err, e.Next = Unknown, err, c.pause(looks)
	if err != nil {
		e.Kind = Failed
	}
	c.sleep(e.Digest, e.Next)
	if ctx.Err() == nil {
		c.o.Observe(e)
	}
}

// takeLead claims the right to ask for the key. Without a claim and an error it
// is not the time yet: then wait says when it may be. What is held under the
// claim's key counts the looks, and its time is that of the last one. Its name has
// the attempt in it: an operation that ran again and is in doubt again begins anew.
func (c *Completer) takeLead(ctx context.Context, r *semel.Record) (claim *semel.Claim, wait time.Duration, err error) {
	key := semel.Key{Scope: semel.JoinScope("semel", "resolve"), ID: r.Digest.String() + "." + strconv.Itoa(r.Attempt)}
	held, err := c.get(ctx, c.guard.Digest(key))
	if err != nil {
		return nil, 0, err
	}
	last := &held.Record
	switch {
	case last.State == semel.Pending:
		wait = last.Expires().Sub(held.Now)
	case last.Held():
		wait = last.WrittenAt.Add(c.shortest(last.Attempt)).Sub(held.Now)
	}
	if wait > 0 {
		return nil, c.later(wait), nil
	}
	claim, v, err := c.guard.Begin(ctx, semel.Ask{Key: key, Policy: &c.lead})
	switch {
	case err != nil:
		return nil, 0, err
	case claim == nil && v.Reason == semel.InProgress:
		return nil, c.later(v.RetryAfter), nil
	case claim == nil:
		return nil, 0, v.Err()
	case claim.Attempt() != last.Attempt+1: // another has asked meanwhile
		return nil, c.later(c.shortest(claim.Attempt())), claim.Release(semel.Result{})
	}
	return claim, 0, nil
}

// later adds to a pause that ends for several processes at the same time.
func (c *Completer) later(wait time.Duration) time.Duration {
	return max(wait, 0) + rand.N(c.o.Backoff/4+1)
}

// errHung: a resolver did not heed the end of its context.
var errHung = errors.New("resolve: the resolver gave no answer in time and still runs")

// grace is how long a resolver may take to heed the end of its context.
const grace = 100 * time.Millisecond

// maxHung is how many calls of one policy may be given up and still run.
const maxHung = 256

// ask calls the resolver, for Timeout at most. A call that goes on after that is
// given up, and until it has ended there is no other for its key.
func (c *Completer) ask(ctx context.Context, of *room, u *semel.Unresolved) (semel.Settlement, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	type answer struct {
		s   semel.Settlement
		err error
	}
	answered := make(chan answer, 1)
	c.mu.Lock()
	_, hangs := of.hung[u.Record.Digest]
	hangs = hangs || len(of.hung) >= maxHung
	c.mu.Unlock()
	if hangs {
		return semel.Settlement{}, errHung
	}
	go func() {
		var a answer
		defer func() {
			if v := recover(); v != nil {
				a = answer{err: fmt.Errorf("resolve: the resolver panicked: %v\n%s", v, debug.Stack())}
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(of.hung, u.Record.Digest)
			answered <- a
		}()
		a.s, a.err = of.policy.Resolve(ctx, *u)
	}()
	select {
	case a := <-answered:
		return a.s, a.err
	case <-ctx.Done():
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case a := <-answered:
		return a.s, a.err
	case <-patience.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case a := <-answered: // just now
		return a.s, a.err
	default:
	}
	of.hung[u.Record.Digest] = struct{}{}
	return semel.Settlement{}, errHung
}

// maxWhy is how much of the resolver's word is kept, in bytes.
const maxWhy = 512

// settle writes what the resolver has found out about r. moved tells that r has
// changed since it was looked at, and that nothing was written.
func (c *Completer) settle(ctx context.Context, p *semel.Policy, r *semel.Record, s *semel.Settlement) (moved bool, err error) {
	if !s.Version.IsZero() && s.Version != r.Version {
		return false, fmt.Errorf("resolve: the resolver was asked about the record of version %v and answered about that of %v: it is another key's, or another attempt's", r.Version, s.Version)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s.Version, s.Who = r.Version, c.who(p)
	if s.Why == "" {
		s.Why = "it gave no reason"
	}
	s.Why = strings.ToValidUTF8(s.Why[:min(len(s.Why), maxWhy)], "")
	if s.State == semel.Done && s.Result.Data == nil {
		s.Result.Data = []byte{} // an answer without bytes is one
	}
	_, err = c.guard.Resolve(ctx, r.Digest, *s, p)
	moved = errors.Is(err, semel.ErrSettled) || errors.Is(err, semel.ErrNotHeld) || errors.Is(err, semel.ErrInProgress)
	return moved, err
}
