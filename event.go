package semel

import "time"

// EventKind says what happened.
type EventKind uint8

const (
	// Claimed: a grant was made durable; the operation starts.
	Claimed EventKind = iota + 1
	// Renewed: the lease was extended while the operation runs.
	Renewed
	// Completed: the result is durable.
	Completed
	// ReleasedClaim: nothing happened, and the key is free again.
	ReleasedClaim
	// Doubted: the operation ended without anybody knowing its outcome.
	Doubted
	// Lost: the claim was lost, or may be: the operation's context is cancelled.
	Lost
	// Replayed: a duplicate was answered with the stored result.
	Replayed
	// Refused: a request was refused; Reason says why.
	Refused
	// Unavailable: the store did not answer in time.
	Unavailable
)

// String gives the kind in lower case.
func (k EventKind) String() string {
	names := [...]string{"", "claimed", "renewed", "completed", "released", "doubted", "lost", "replayed", "refused", "unavailable"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Event tells what happened to one request. Nothing reads events to decide.
type Event struct {
	Kind   EventKind
	Reason Reason
	Policy string
	// Key is empty where the policy withholds it.
	Key     Key
	Digest  Digest
	Version Version
	Attempt int
	// Took is the time since the request came to the guard, on the local clock.
	Took time.Duration
	// Unconfirmed tells that the authoritative store could not be asked: count it.
	Unconfirmed bool
	// Err is the store's last error, if one had a part in it.
	Err error
}

// tell observes an event of an attempt.
func (g *Guard) tell(a *Attempt, kind EventKind, start time.Time, err error) {
	if g.options.Observe == nil {
		return
	}
	r := a.Record()
	g.options.Observe(Event{
		Kind: kind, Reason: a.Verdict().Reason, Policy: a.policy.Name, Key: r.Key, Digest: a.digest,
		Version: r.Version, Attempt: r.Attempt, Took: time.Since(start), Unconfirmed: a.unconfirmed, Err: err,
	})
}

// tellOutcome observes the event of a request that did not execute.
func (g *Guard) tellOutcome(ask Ask, digest Digest, v Verdict, err error, start time.Time) {
	if g.options.Observe == nil {
		return
	}
	e := Event{
		Kind: Refused, Reason: v.Reason, Policy: ask.Policy.Name, Digest: digest,
		Version: v.Held.Version, Attempt: v.Held.Attempt, Took: time.Since(start), Unconfirmed: v.Unconfirmed, Err: err,
	}
	switch {
	case v.Action == Replay:
		e.Kind = Replayed
	case v.Reason == 0:
		e.Kind = Unavailable
	}
	if !ask.Policy.WithholdKey {
		e.Key = ask.Key
	}
	g.options.Observe(e)
}
