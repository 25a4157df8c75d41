package semel

import (
	"errors"
	"time"
)

// Verb is what an attempt asks of its driver.
type Verb uint8

const (
	// Stop: the attempt has come to its end, or to the end of a renewal.
	Stop Verb = iota
	// SwapRecord: call CompareAndSwap with Move.Swap, then Reply.
	SwapRecord
	// ReadRecord: call Get, then Reply.
	ReadRecord
	// Sleep: call Wake at Move.Until, or sooner if there is news.
	Sleep
	// Run: the claim is held; execute, and call Renew at Move.Until.
	Run
)

// Move is the next thing for the driver of an attempt to do.
type Move struct {
	Do    Verb
	Swap  Swap
	Until time.Time
}

// Ending is how the holder of a claim wants it to end.
type Ending struct {
	// State is Done, Released, or Pending for "nobody knows": the lease then ends
	// at once and the class says what follows.
	State State
	Code  int
	// Result is kept if it is not nil and not longer than the policy's MaxResult.
	Result []byte
}

type phase uint8

const (
	claiming  phase = iota + 1 // the claim's swap is under way
	waiting                    // another holds the key
	holding                    // ours, the operation runs
	renewing                   // ours, the renewal's swap is under way
	lost                       // was ours
	finishing                  // the last swap is under way
	disowning                  // gave up claiming; takes back a claim that may have landed
	looking                    // reads what is held, to run without a claim
	ended
)

// Attempt is the guard's control flow as a machine without I/O, clock or
// chance: it is told the time and the store's replies, and says what to do
// next. The Guard drives it with real stores, the simulator with a seeded
// scheduler; so what is simulated is what runs. At most one move is under way
// at any time. Its times are the driver's own clock, which is never compared
// with the store's.
type Attempt struct {
	ask    Ask
	policy *Policy
	digest Digest
	owner  string
	nonce  func() Nonce

	// bound: the claim and its end are swaps in a transaction of the application's,
	// which others see when it is committed, or never.
	bound bool
	// optimistic: nothing is claimed, and the record is written when it is done.
	optimistic bool
	reruns     int // transactions that did not commit
	// barred, if it is not 0: no room for a new key, until that has passed.
	barred time.Duration

	phase   phase
	old     Version   // what the swap under way goes over
	next    Record    // what the swap under way writes
	sent    time.Time // when the swap under way was first sent
	tries   int       // of the swap or read under way
	giveUp  time.Time // the end of claiming, finishing or disowning
	waitEnd time.Time // the end of waiting
	held    Record    // the record as we hold it
	safe    time.Time // until then nobody else can have been granted the key
	unsure  Nonce     // a renewal whose answer never came
	verdict Verdict
	err     error
	// unconfirmed is the last reading's.
	unconfirmed bool
}

// NewAttempt prepares an attempt at ask. The policy of ask must be filled in;
// owner names the process; nonce gives a new Nonce at each call.
func NewAttempt(ask Ask, digest Digest, owner string, nonce func() Nonce) Attempt {
	return Attempt{ask: ask, policy: ask.Policy, digest: digest, owner: owner, nonce: nonce}
}

// Bar has the attempt begin nothing, since its quota is used up: it answers for
// what is held already. It is called before Begin.
func (a *Attempt) Bar(retryAfter time.Duration) {
	a.barred = max(retryAfter, 1)
	a.bound, a.optimistic = false, false
}

// Begin starts the attempt. storeNow is the best estimate of the store's
// clock; it serves to judge keys that carry their own time, and nothing else.
//
// The first move is the insert itself: a fresh key and a duplicate both take
// one round trip, since a conflict brings what is held.
func (a *Attempt) Begin(now, storeNow time.Time) Move {
	a.waitEnd = now.Add(a.policy.Wait)
	if v, ok := Admit(a.ask.Key.ID, storeNow, a.policy); !ok {
		return a.end(v, nil)
	}
	return a.take(now)
}

// take begins to take the key, of which nothing is known yet.
func (a *Attempt) take(now time.Time) Move {
	if a.optimistic || a.barred > 0 {
		return a.look(now)
	}
	return a.claim(now, Verdict{Action: Execute, Reason: Fresh, Attempt: 1})
}

// look reads what is held.
func (a *Attempt) look(now time.Time) Move {
	a.phase, a.tries, a.giveUp = looking, 0, now.Add(a.policy.ClaimWithin)
	return Move{Do: ReadRecord}
}

// Reply hands the attempt the store's answer to the move under way.
func (a *Attempt) Reply(now time.Time, r Reading, err error) Move {
	mine := errors.Is(err, ErrConflict) && r.Record.Nonce == a.next.Nonce
	a.unconfirmed = r.Unconfirmed
	switch a.phase {
	case claiming, looking:
		return a.claimReply(now, r, err, mine)
	case waiting:
		return a.waitReply(now, r, err)
	case renewing:
		return a.renewReply(now, r, err, mine)
	case finishing:
		return a.finishReply(now, r, err, mine)
	case disowning:
		return a.disownReply(now, r, err)
	}
	return Move{Do: Stop}
}

// Wake tells the attempt that its sleep is over.
func (a *Attempt) Wake(now time.Time) Move {
	switch a.phase {
	case claiming, finishing:
		return a.resend()
	case renewing:
		if !now.Before(a.safe) {
			return a.lose()
		}
		return a.resend()
	case waiting:
		if !now.Before(a.waitEnd) {
			return a.end(a.verdict.refused(), nil)
		}
		return Move{Do: ReadRecord}
	case disowning, looking:
		return Move{Do: ReadRecord}
	}
	return Move{Do: Stop}
}

// claim sends the swap that takes the key.
func (a *Attempt) claim(now time.Time, v Verdict) Move {
	if a.phase != claiming {
		a.phase = claiming
		a.giveUp = now.Add(a.policy.ClaimWithin)
	}
	a.verdict = v
	return a.send(now, v.Over, a.pending(v.Attempt, a.policy.Lease))
}

func (a *Attempt) claimReply(now time.Time, r Reading, err error, mine bool) Move {
	switch {
	case err == nil && a.phase == looking, errors.Is(err, ErrConflict) && !mine:
		return a.judge(now, r)
	case err == nil || mine:
		return a.hold(now, r.Record)
	case errors.Is(err, ErrInProgress): // another's transaction holds it
		return a.wait(now, Verdict{Action: Wait, Reason: InProgress, RetryAfter: lockedRetry})
	case errors.Is(err, ErrDamaged):
		return a.end(Verdict{Action: Refuse, Reason: Damaged}, err)
	case errors.Is(err, ErrRejected), errors.Is(err, ErrUnavailable):
		return a.end(Verdict{}, err)
	case !now.Before(a.giveUp):
		return a.end(Verdict{}, errors.Join(ErrUnavailable, err))
	}
	return a.backOff(now)
}

// judge asks Decide about what is held and follows it.
func (a *Attempt) judge(now time.Time, r Reading) Move {
	v := Decide(r, a.ask)
	switch {
	case v.Action == Execute && a.barred > 0:
		return a.end(Verdict{Action: Refuse, Reason: OverQuota, RetryAfter: a.barred}, nil)
	case v.Action == Execute && a.phase == claiming && !now.Before(a.giveUp):
		// Others keep winning this key. Nothing of ours is in the store.
		return a.end(Verdict{Action: Refuse, Reason: InProgress}, nil)
	case v.Action == Execute && a.phase == looking:
		a.phase, a.verdict, a.sent = holding, v, now
		a.safe = now.Add(a.policy.Lease)
		a.held = Record{Version: v.Over, Attempt: v.Attempt, WrittenAt: r.Now, Nonce: a.next.Nonce}
		return a.run()
	case v.Action == Execute && a.optimistic:
		return a.look(now) // what others have committed meanwhile
	case v.Action == Execute:
		return a.claim(now, v)
	}
	return a.wait(now, v)
}

// lockedRetry is when asking again makes sense after a transaction was met: most
// end soon.
const lockedRetry = time.Second

// wait sleeps until the next look if the verdict is to wait and there is time
// left. Else the verdict stands.
func (a *Attempt) wait(now time.Time, v Verdict) Move {
	if v.Action != Wait || !now.Before(a.waitEnd) {
		return a.end(v.refused(), nil)
	}
	if a.phase != waiting {
		a.phase, a.tries = waiting, 0
	}
	a.verdict = v
	return a.poll(now, now.Add(v.RetryAfter))
}

// hold takes the key, if enough of the lease is left to start with.
func (a *Attempt) hold(now time.Time, r Record) Move {
	a.held = r
	// The store wrote no earlier than we first sent, so on our clock the lease ends
	// no earlier than this. A sixth is kept for clocks that run apart.
	a.safe = a.sent.Add(a.policy.Lease - a.policy.Lease/6)
	if now.Before(a.safe) {
		a.phase = holding
		return a.run()
	}
	if a.phase == claiming && !now.Before(a.giveUp) {
		return a.end(Verdict{}, ErrUnavailable)
	}
	// The answer took so long that the lease is all but over. Nothing was started:
	// take the key again, over our own claim.
	return a.send(now, r.Version, a.pending(r.Attempt, a.policy.Lease))
}

// run says when to renew: after a third of the lease.
func (a *Attempt) run() Move {
	return Move{Do: Run, Until: a.sent.Add(a.policy.Lease / 3)}
}

// poll sleeps until the next look at the holder's record, or until the lease
// ends if that is sooner.
func (a *Attempt) poll(now, leaseEnd time.Time) Move {
	until := now.Add(min(5*time.Millisecond<<min(a.tries, 3), 40*time.Millisecond))
	a.tries++
	for _, t := range [...]time.Time{leaseEnd, a.waitEnd} {
		if t.Before(until) {
			until = t
		}
	}
	return Move{Do: Sleep, Until: until}
}

func (a *Attempt) waitReply(now time.Time, r Reading, err error) Move {
	switch {
	case errors.Is(err, ErrDamaged):
		return a.end(Verdict{Action: Refuse, Reason: Damaged}, err)
	case err == nil:
		return a.judge(now, r)
	case !now.Before(a.waitEnd):
		return a.end(a.verdict.refused(), nil)
	}
	return a.poll(now, a.waitEnd)
}

// pending is a record that says "ours" for ttl.
func (a *Attempt) pending(attempt int, ttl time.Duration) Record {
	r := Record{
		Digest: a.digest, Fingerprint: a.ask.Fingerprint, State: Pending, Class: a.policy.Class,
		Nonce: a.nonce(), Attempt: attempt, TTL: ttl, Owner: a.owner,
	}
	if !a.policy.WithholdKey {
		r.Key = a.ask.Key
	}
	r.Result = a.ask.memo()
	return r
}

// send starts a new swap.
func (a *Attempt) send(now time.Time, old Version, next Record) Move {
	a.old, a.next, a.sent, a.tries = old, next, now, 0
	return a.resend()
}

// resend repeats the swap under way, with the same nonce.
func (a *Attempt) resend() Move {
	return Move{Do: SwapRecord, Swap: Swap{Old: a.old, Next: a.next}}
}

// backOff sleeps before the same move is repeated: 10 ms, doubling up to
// 640 ms, plus up to half as much again so that many do not knock together.
func (a *Attempt) backOff(now time.Time) Move {
	pause := 10 * time.Millisecond << min(a.tries, 6)
	pause += pause / 2 * time.Duration(a.next.Nonce[a.tries%len(Nonce{})]) / 255
	a.tries++
	until := now.Add(pause)
	end := a.giveUp
	if a.phase == renewing {
		end = a.safe
	}
	if end.Before(until) {
		until = end
	}
	return Move{Do: Sleep, Until: until}
}

func (a *Attempt) end(v Verdict, err error) Move {
	a.phase, a.verdict, a.err = ended, v, err
	return Move{Do: Stop}
}

// Verdict is what the attempt came to, once it has stopped or runs: Execute
// while the claim is held; after Finish, Replay with the record as stored, by
// us or by whoever settled the key before us.
func (a *Attempt) Verdict() Verdict {
	v := a.verdict
	v.Unconfirmed = a.unconfirmed
	return v
}

// Err is the store's error that ended the attempt; nil if it has a verdict.
func (a *Attempt) Err() error { return a.err }

// Record is the record as the attempt holds it; zero before a grant.
func (a *Attempt) Record() Record { return a.held }

// Safe is the time, on the driver's clock, up to which nobody else can have
// been granted the key. The operation's context ends no later.
func (a *Attempt) Safe() time.Time { return a.safe }

// Lost tells whether the claim was lost, or may be.
func (a *Attempt) Lost() bool { return a.phase == lost }
