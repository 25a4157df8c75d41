package semel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Resolver finds out how an operation that is in doubt ended: by asking the
// provider for the derived key, or by looking for the row. The zero Settlement,
// and an error, mean that it is still unknown.
type Resolver func(ctx context.Context, u Unresolved) (Settlement, error)

// Unresolved is an operation whose outcome nobody knows.
type Unresolved struct {
	// Record is what is held. Its Key is empty where the policy withholds it.
	Record Record
	// Policy is the name of the policy that the operation ran under, if that has a
	// resolver or the ask had a memo; else it is not known.
	Policy string
	// Memo is the ask's.
	Memo []byte
}

// Unresolved takes apart what a pending record tells about its operation.
func (r *Record) Unresolved() Unresolved {
	u := Unresolved{Record: *r}
	n, width := binary.Uvarint(r.Result)
	if rest := r.Result[max(0, width):]; width > 0 && n <= uint64(len(rest)) {
		u.Policy, u.Memo = string(rest[:n]), rest[n:]
	}
	return u
}

// memo is what a pending record has for a result: the policy's name with its
// length, then what the ask has for the resolver. It is nil if there is nothing.
func (a *Ask) memo() []byte {
	if a.Policy.Resolve == nil && len(a.Memo) == 0 {
		return nil
	}
	b := binary.AppendUvarint(make([]byte, 0, 1+len(a.Policy.Name)+len(a.Memo)), uint64(len(a.Policy.Name)))
	return append(append(b, a.Policy.Name...), a.Memo...)
}

// DerivedKey is the key that the operation's step of this name used for its
// downstream call, see [Claim.Step].
func (u *Unresolved) DerivedKey(step string) string { return derivedKey(u.Record.Digest, step) }

// Settlement is how an operation that was in doubt ended, as somebody found out.
type Settlement struct {
	// State is Done, with Result as the answer to every retry, or Released: nothing
	// happened, and the next retry executes. Zero: still unknown.
	State  State
	Result Result
	// Version is that of the record that was looked at: if the key has moved since,
	// the settlement does not hold. The zero Version means whichever is held. A
	// Resolver that looks at many keys gives back that of its Unresolved: an answer
	// for another key is refused by it.
	Version Version
	// Who says so, and why, for the audit: both are needed, and stay in the journal.
	Who, Why string
}

// ErrNotHeld is told by [Settle]: nothing is remembered under the key.
var ErrNotHeld = errors.New("semel: nothing is held under this key")

// maxWhy bounds the text that a settlement leaves in the journal, in bytes.
const maxWhy = 1 << 10

// Settle gives the record to swap over held, or says why a person's or a
// resolver's word does not count: [ErrNotHeld]; [ErrSettled] if the key has an
// outcome already; [ErrInProgress] while its lease runs, since the operation may
// still end by itself. p is the policy of the route, whose retentions hold.
func Settle(held Reading, s Settlement, p *Policy, nonce Nonce) (Record, error) {
	r := held.Record
	switch {
	case s.State != Done && s.State != Released:
		return Record{}, fmt.Errorf("semel: a settlement says done or released, not %v", s.State)
	case s.Who == "" || s.Why == "":
		return Record{}, errors.New("semel: a settlement needs Who and Why: they are what an audit finds later")
	case len(s.Who)+len(s.Why) > maxWhy:
		return Record{}, fmt.Errorf("semel: Who and Why have %d bytes together; at most %d are kept", len(s.Who)+len(s.Why), maxWhy)
	case !r.Held():
		return Record{}, ErrNotHeld
	case r.State != Pending:
		return Record{}, fmt.Errorf("%w: it is %v", ErrSettled, r.State)
	case !s.Version.IsZero() && s.Version != r.Version:
		return Record{}, fmt.Errorf("%w: version %v was looked at, and now it is %v", ErrSettled, s.Version, r.Version)
	case held.Now.Before(r.Expires()):
		return Record{}, fmt.Errorf("%w: the lease of %s runs for another %v", ErrInProgress, r.Owner, r.Expires().Sub(held.Now).Round(time.Millisecond))
	}
	next := r
	next.State, next.Nonce, next.Owner = s.State, nonce, s.Who+": "+s.Why
	next.TTL, next.Result = retention(r.Key.ID, r.WrittenAt, p), nil
	if s.State == Done {
		next.Code = s.Result.Code
		if s.Result.Data != nil && len(s.Result.Data) <= p.MaxResult {
			next.Result, next.Replay = s.Result.Data, p.Replay
		}
	}
	return next, nil
}

// Resolve settles an operation whose outcome nobody knew, under the policy of
// its route; nil means the default policy. It gives the record as it is stored:
// with [ErrSettled] the one that somebody else was quicker with, or that the
// operation left after all. Its other errors are those of [Settle], and the store's.
//
// A policy that withholds keys and takes keys with a time of their own remembers
// what is settled here for Remember from now.
func (g *Guard) Resolve(ctx context.Context, digest Digest, s Settlement, p *Policy) (Record, error) {
	if !g.enter() {
		return Record{}, ErrClosed
	}
	defer g.busy.Done()
	return Resolve(ctx, g.store, digest, s, p)
}

// Resolve is that of a Guard, for tools that have a store and not the secret of
// its keys.
func Resolve(ctx context.Context, store Store, digest Digest, s Settlement, p *Policy) (Record, error) {
	if p == nil {
		p = new(Policy)
	}
	filled, err := p.Filled()
	if err != nil {
		return Record{}, err
	}
	held, err := store.Get(ctx, digest)
	if err != nil {
		return Record{}, err
	}
	next, err := Settle(held, s, &filled, newNonce())
	if err != nil {
		return held.Record, err
	}
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		now, err := store.CompareAndSwap(ctx, held.Record.Version, next)
		switch {
		case err == nil, errors.Is(err, ErrConflict) && now.Record.Nonce == next.Nonce:
			return now.Record, nil
		case errors.Is(err, ErrConflict):
			return now.Record, fmt.Errorf("%w: it is %v", ErrSettled, now.Record.State)
		case errors.Is(err, ErrRejected), errors.Is(err, ErrUnavailable), errors.Is(err, ErrDamaged), pause > time.Second:
			return Record{}, err
		}
		select {
		case <-ctx.Done():
			return Record{}, errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
