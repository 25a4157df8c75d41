package semel

import (
	"errors"
	"time"
)

// Renew extends the lease of a claim that is held. It stops at once if there
// is nothing to renew.
func (a *Attempt) Renew(now time.Time) Move {
	if a.phase != holding {
		return Move{Do: Stop}
	}
	a.phase = renewing
	return a.send(now, a.held.Version, a.pending(a.held.Attempt, a.policy.Lease))
}

func (a *Attempt) renewReply(now time.Time, r Reading, err error, mine bool) Move {
	switch {
	case err == nil || mine:
		return a.hold(now, r.Record)
	case errors.Is(err, ErrConflict), !now.Before(a.safe):
		return a.lose()
	}
	return a.backOff(now)
}

func (a *Attempt) lose() Move {
	if a.phase == renewing {
		a.unsure = a.next.Nonce
	}
	a.phase = lost
	return Move{Do: Stop}
}

// Finish ends a claim that was granted, also one that was lost since: the
// swap is fenced by the version, so it cannot touch an heir's record.
func (a *Attempt) Finish(now time.Time, e Ending) Move {
	switch a.phase {
	case renewing:
		a.unsure = a.next.Nonce
	case holding, lost:
	default:
		return Move{Do: Stop}
	}
	if a.bound && e.State != Done { // the end of the transaction undoes all
		return a.end(Verdict{Action: Replay, Reason: Finished, Held: a.held}, nil)
	}
	a.phase = finishing
	a.giveUp = now.Add(a.policy.FinishWithin + a.policy.Lease)
	next := a.pending(a.held.Attempt, 0)
	next.State = e.State
	if e.State != Pending {
		next.Result = nil // a memo is for those who find it pending
	}
	if e.State != Pending {
		next.TTL = retention(a.ask.Key.ID, a.held.WrittenAt, a.policy)
	}
	if e.State == Done {
		next.Code = e.Code
		if e.Result != nil && len(e.Result) <= a.policy.MaxResult {
			next.Result, next.Replay = e.Result, a.policy.Replay
		}
	}
	return a.send(now, a.held.Version, next)
}

func (a *Attempt) finishReply(now time.Time, r Reading, err error, mine bool) Move {
	switch {
	case err == nil || mine:
		a.held = r.Record
		return a.end(Verdict{Action: Replay, Reason: Finished, Held: r.Record}, nil)
	case a.bound:
		return a.undone(now, r, err)
	case errors.Is(err, ErrConflict) && a.unsure != Nonce{} && r.Record.Nonce == a.unsure:
		// The renewal had landed after all. The same write, over its version.
		a.old = r.Record.Version
		return a.resend()
	case errors.Is(err, ErrConflict):
		// Somebody settled or took over the key. If an answer is stored there, it is
		// the answer; else nobody can say what ours came to.
		v := Decide(r, a.ask)
		if v.Action != Replay && v.Reason != Gone {
			v = Verdict{Action: Refuse, Reason: InDoubt}
		}
		return a.end(v, nil)
	case errors.Is(err, ErrRejected) && a.next.Result != nil:
		a.next.Result, a.next.Replay = nil, 0
		return a.resend()
	case errors.Is(err, ErrRejected), errors.Is(err, ErrDamaged), !now.Before(a.giveUp):
		return a.end(Verdict{Action: Refuse, Reason: InDoubt}, err)
	}
	return a.backOff(now)
}

// maxReruns is how often in a row a transaction is begun again (INVARIANTS T5).
const maxReruns = 5

// Rerun goes on after the operation was told that the database has undone its
// transaction for another's sake: err is [ErrUndone]. Run means: execute again,
// in another transaction.
func (a *Attempt) Rerun(now time.Time, err error) Move {
	if a.phase != holding || !a.bound {
		return Move{Do: Stop}
	}
	return a.undone(now, Reading{}, err)
}

// undone goes on after a transaction that did not commit, or of which nobody
// knows whether it did: to take the key again waits until it has ended, and finds
// what it came to (INVARIANTS S13).
func (a *Attempt) undone(now time.Time, r Reading, err error) Move {
	conflict := errors.Is(err, ErrConflict)
	if v := Decide(r, a.ask); conflict && (v.Action == Replay || v.Reason == Gone) {
		return a.end(v, nil)
	}
	certain := conflict || errors.Is(err, ErrUndone)
	switch {
	case errors.Is(err, ErrNotDone):
		return a.end(Verdict{Action: Refuse, Reason: InProgress}, err)
	case a.reruns == maxReruns && certain:
		return a.end(Verdict{Action: Refuse, Reason: InProgress}, errors.Join(ErrNotDone, err))
	case a.reruns == maxReruns:
		return a.end(Verdict{Action: Refuse, Reason: InDoubt}, err)
	}
	a.reruns++
	a.unsure = a.next.Nonce
	a.phase = 0
	return a.take(now)
}

// disownLooks is how often a claim that may land yet is looked for.
const disownLooks = 6

// Disown goes on after a claim ended with [ErrUnavailable]: the claim may have
// landed, or may land yet, and nobody will run it. It looks for the claim and
// releases it, for one lease at most.
func (a *Attempt) Disown(now time.Time) Move {
	if a.phase != ended || !errors.Is(a.err, ErrUnavailable) {
		return Move{Do: Stop}
	}
	a.phase, a.tries, a.giveUp = disowning, 0, now.Add(a.policy.Lease)
	return Move{Do: ReadRecord}
}

func (a *Attempt) disownReply(now time.Time, r Reading, err error) Move {
	switch {
	case err == nil && r.Record.State == Pending && (r.Record.Nonce == a.next.Nonce || r.Record.Version == a.held.Version):
		// Our claim, or an earlier one of ours that it was to go over, and may yet.
		a.unsure, a.held, a.phase = a.next.Nonce, r.Record, holding
		return a.Finish(now, Ending{State: Released})
	case err == nil && (r.Record.Version.Compare(a.old) > 0 || a.tries >= disownLooks), !now.Before(a.giveUp):
		// Another's write stands where ours would have had to land, or ours is lost.
		return a.end(a.verdict, a.err)
	}
	return a.backOff(now)
}
