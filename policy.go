package semel

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Policy holds a route's numbers and its guarantee class. The zero value is
// usable: it is AtMostOnce with the defaults below. A Policy is copied freely
// and not changed once in use.
type Policy struct {
	// Name tells the route in logs and events.
	Name string
	// Class is the guarantee; the default is AtMostOnce.
	Class Class
	// Lease is how long a claim lasts unless it is renewed, which happens every
	// third of it while the handler runs. It bounds how long a crash stays unseen.
	// Default 30 s, at least 50 ms.
	Lease time.Duration
	// Wait is how long a duplicate waits for the first one's answer before it is
	// told "in progress". Default 10 s; negative means not at all.
	Wait time.Duration
	// Replay is how long a result can be replayed. Default 24 h.
	Replay time.Duration
	// Remember is how long the key is remembered, at least Replay. Between the two
	// a retry is told that the operation ran (410). Default 72 h, or Replay if that
	// is longer.
	Remember time.Duration
	// ClaimWithin bounds how long a claim is attempted while the store errs; after
	// that the request is refused and nothing was started. Default 5 s.
	ClaimWithin time.Duration
	// FinishWithin bounds how long the caller waits for its result to be stored;
	// after that it is told that the outcome is unknown, and storing goes on behind
	// it for another Lease. Default 10 s.
	FinishWithin time.Duration
	// MaxResult is the longest result in bytes that is stored; a longer one is
	// remembered as done without it. Default 1 MiB.
	MaxResult int
	// Optimistic is for the class Transactional: the key is read at the beginning and
	// written once, when the operation commits, so that two that meet both execute
	// and the later one is undone. It saves a write where duplicates are rare.
	// Default: the key is taken first, and a duplicate waits for it.
	Optimistic bool
	// Resolve finds out what became of an operation of this policy that is in doubt;
	// a completer calls it, see the package resolve. Policies that have one need names
	// of their own. Default: nobody does but people.
	Resolve Resolver
	// Quota bounds what one tenant may begin. Default: nothing does.
	Quota Quota
	// WithholdKey leaves Record.Key empty: stores and journals then hold digests
	// only, and people cannot look a key up by its name.
	WithholdKey bool
}

// Quota bounds what one tenant may begin, see [Ask.Tenant]. A guard asks it before
// anything of a request is written or runs. Who is refused there and repeats a
// request that has begun before is answered all the same: the guard then looks for
// the key, and refuses new ones alone. A Quota is safe for concurrent use.
type Quota interface {
	// Enter asks for room for one operation. If there is none, ok is false, and
	// retryAfter says when to ask again. The request waits for Enter.
	Enter(ctx context.Context, tenant string) (retryAfter time.Duration, ok bool)
	// Leave follows each Enter that was ok, once the operation has ended or was not
	// begun. fresh tells that its key was a new one; else the request was a duplicate
	// or another attempt, and uses up nothing.
	Leave(tenant string, fresh bool)
}

// maxAhead is how far in the future a key's own time may lie (INVARIANTS X2).
const maxAhead = 5 * time.Minute

// Filled gives p with its defaults filled in, or an error that names each
// number that is unsafe and what would be safe.
func (p Policy) Filled() (Policy, error) {
	fill := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	fill(&p.Lease, 30*time.Second)
	fill(&p.Wait, 10*time.Second)
	fill(&p.Replay, 24*time.Hour)
	fill(&p.Remember, max(72*time.Hour, p.Replay))
	fill(&p.ClaimWithin, 5*time.Second)
	fill(&p.FinishWithin, 10*time.Second)
	if p.MaxResult == 0 {
		p.MaxResult = 1 << 20
	}
	return p, p.check()
}

// check looks at a policy whose defaults are filled in.
func (p *Policy) check() error {
	var wrong []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf("semel: policy %q: "+format, append([]any{p.Name}, args...)...))
		}
	}
	refuse(p.Class > Transactional, "%v is unknown", p.Class)
	refuse(p.Optimistic && p.Class != Transactional, "optimistic needs the class transactional: in any other an operation starts when its claim is durable, and not before")
	refuse(p.Resolve != nil && p.Name == "", "it has a resolver and no name; what is left in doubt names its policy, so give it one")
	refuse(p.Resolve != nil && p.Class == Transactional, "a transaction leaves nothing in doubt; take the resolver away")
	refuse(p.Lease < 50*time.Millisecond, "a lease of %v is too short to be renewed in time; take at least 50ms", p.Lease)
	refuse(p.Replay < 0, "replay %v is negative", p.Replay)
	refuse(p.Remember < p.Replay, "remember %v is shorter than replay %v: the key would be forgotten before its result; make remember at least %v", p.Remember, p.Replay, p.Replay)
	refuse(p.Remember < p.Lease, "remember %v is shorter than the lease %v: a retry after a long run would run again; make remember at least %v", p.Remember, p.Lease, p.Lease)
	refuse(p.ClaimWithin < 0, "claim-within %v is negative", p.ClaimWithin)
	refuse(p.FinishWithin < 0, "finish-within %v is negative", p.FinishWithin)
	refuse(p.MaxResult < 0, "max-result %d is negative", p.MaxResult)
	return errors.Join(wrong...)
}
