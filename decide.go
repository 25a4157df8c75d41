package semel

import "time"

// Action is what a verdict tells the asker to do.
type Action uint8

const (
	// Refuse: do not run; Reason says why. It is the zero value, so nobody runs by
	// accident.
	Refuse Action = iota
	// Wait: another attempt holds the key; read again later.
	Wait
	// Replay: answer with the record's result.
	Replay
	// Execute: claim the key over Verdict.Over, then run.
	Execute
)

// String gives the action in lower case.
func (a Action) String() string {
	names := [...]string{"refuse", "wait", "replay", "execute"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// Reason says why a verdict is what it is.
type Reason uint8

const (
	// Fresh: nothing was held. Execute.
	Fresh Reason = iota + 1
	// Again: an earlier attempt was released. Execute.
	Again
	// TakenOver: the lease had ended and the class allows another run. Execute.
	TakenOver
	// Finished: the record is done and its result is kept. Replay.
	Finished
	// Shared: the attempt that this request waited for ended without effect; its
	// answer is handed on, and is not stored. Replay.
	Shared
	// InProgress: a lease is running. Wait, then Refuse.
	InProgress
	// Mismatch: the key was used with another payload. Refuse.
	Mismatch
	// InDoubt: nobody knows the outcome. Refuse.
	InDoubt
	// Gone: done, and the result is not kept. Refuse.
	Gone
	// Expired: the key's own time lies before the window. Refuse.
	Expired
	// Early: the key's own time lies in the future. Refuse.
	Early
	// Damaged: the stored record cannot be read; it is in doubt. Refuse.
	Damaged
	// OverQuota: the key is new, and its tenant has used up its quota. Refuse.
	OverQuota
)

// String gives the reason in lower case, words joined by hyphens.
func (r Reason) String() string {
	names := [...]string{"", "fresh", "again", "taken-over", "finished", "shared", "in-progress", "mismatch", "in-doubt", "gone", "expired", "early", "damaged", "over-quota"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Ask is one request, as the guard sees it.
type Ask struct {
	Key         Key
	Fingerprint Fingerprint
	// Memo is kept in the record's Result while the operation is pending, for whoever
	// has to find out later what became of it, see [Policy.Resolve]. Nobody changes
	// its bytes. Default: none.
	Memo []byte
	// Tenant is whose quota the operation counts for, if the policy has one.
	Tenant string
	// Policy must come from [Policy.Filled]; nil means the default policy.
	Policy *Policy
}

// Verdict is what Decide says.
type Verdict struct {
	Action Action
	Reason Reason
	// Over is the version to swap against, for Execute.
	Over Version
	// Attempt is the number of the attempt to be made, for Execute.
	Attempt int
	// Held is the record to replay, or whose Code to tell when it is Gone. It is the
	// zero Record for a mismatch: nothing of it is disclosed.
	Held Record
	// RetryAfter is when asking again makes sense, for a lease that runs and for a
	// quota.
	RetryAfter time.Duration
	// Unconfirmed is the Reading's, set by the Attempt.
	Unconfirmed bool
}

// Err gives the sentinel error of a refusal, and nil for other verdicts.
func (v Verdict) Err() error {
	if v.Action != Refuse && v.Action != Wait {
		return nil
	}
	switch v.Reason {
	case InProgress:
		return ErrInProgress
	case Mismatch:
		return ErrMismatch
	case Gone:
		return ErrGone
	case Expired:
		return ErrExpired
	case Early:
		return ErrEarly
	case OverQuota:
		return ErrOverQuota
	}
	return ErrInDoubt
}

// refused turns a wait that may not go on into a refusal.
func (v Verdict) refused() Verdict {
	if v.Action == Wait {
		v.Action = Refuse
	}
	return v
}

// Decide is the whole of the policy: from what is held and what is asked to a
// verdict. It reads no clock: a lease is judged by the store's clock alone,
// which comes with the Reading (INVARIANTS X5).
//
// A record that is done never leads to a run, whatever its age: only absence,
// a release, or a lease that ended under a class that allows it does.
func Decide(held Reading, ask Ask) Verdict {
	r := held.Record
	switch {
	case !r.Held():
		return Verdict{Action: Execute, Reason: Fresh, Attempt: 1}
	case r.Fingerprint != ask.Fingerprint:
		return Verdict{Action: Refuse, Reason: Mismatch}
	case r.State == Released:
		return Verdict{Action: Execute, Reason: Again, Over: r.Version, Attempt: r.Attempt + 1}
	case r.State == Done && held.Now.Before(r.WrittenAt.Add(r.Replay)):
		return Verdict{Action: Replay, Reason: Finished, Held: r}
	case r.State == Done:
		return Verdict{Action: Refuse, Reason: Gone, Held: r}
	case r.State == Pending && held.Now.Before(r.Expires()):
		return Verdict{Action: Wait, Reason: InProgress, RetryAfter: r.Expires().Sub(held.Now)}
	case r.State == Pending && r.Class.takesOver():
		return Verdict{Action: Execute, Reason: TakenOver, Over: r.Version, Attempt: r.Attempt + 1}
	case r.State == Pending:
		return Verdict{Action: Refuse, Reason: InDoubt, Held: r}
	}
	return Verdict{Action: Refuse, Reason: Damaged}
}

// Admit judges a key by the time that it carries in itself, without any
// storage (INVARIANTS X2). It gives false and a refusal if the key lies before
// the window in which keys are remembered, or too far ahead.
func Admit(id string, now time.Time, p *Policy) (Verdict, bool) {
	at, timed := KeyTime(id)
	switch {
	case !timed:
	case at.Before(now.Add(-p.Remember)):
		return Verdict{Action: Refuse, Reason: Expired}, false
	case at.After(now.Add(maxAhead)):
		return Verdict{Action: Refuse, Reason: Early}, false
	}
	return Verdict{}, true
}

// retention tells how long an ended record is remembered after its last write.
// A key that carries its own time is accepted until that time plus Remember, and
// must not be forgotten sooner (INVARIANTS X1). claimed is the store's clock at
// the claim: the key's time may lie ahead of it, since clients' clocks run fast.
// What Admit allows is added for the store's clock being estimated there.
func retention(id string, claimed time.Time, p *Policy) time.Duration {
	at, timed := KeyTime(id)
	if !timed {
		return p.Remember
	}
	return p.Remember + maxAhead + max(0, at.Sub(claimed))
}
