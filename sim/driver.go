package sim

import (
	"errors"
	"time"

	"github.com/semelhq/semel"
)

// stage is what the driver of an attempt is about.
type stage uint8

const (
	asking    stage = iota + 1 // claiming the key or waiting for it
	holding                    // the handler runs, or its claim was lost
	renewing                   // the handler runs, a renewal is under way
	finishing                  // the end of the claim is being stored
	disowning                  // a claim that may have landed is taken back
	over
)

// attempt drives one semel.Attempt as the Guard and the Claim do: what they do
// with goroutines, contexts and timers is done here with events.
type attempt struct {
	w       *world
	p       *process
	life    int
	number  int
	key     *key
	payload int
	machine semel.Attempt
	stage   stage

	leader    *request
	followers []*request

	last     semel.Nonce // of the swap that was sent last
	sleeping int         // which sleep is the current one
	napping  bool
	limit    time.Time // how long the leader waits for its result to be stored
	behind   bool      // storing goes on, the leader was answered

	beat    int // which renewal timer is the current one
	stopped bool
	wanted  *ending // the handler returned while a renewal was under way
	handler handler
	rejects bool // the store takes no result of this attempt
	muddled bool // for planted bugs that remember an error
	ghost   ghost
}

// begin is Guard.Begin: join the flight of this process, or lead.
func (p *process) begin(r *request) {
	if r.told {
		return // whoever asked has left, and nothing has begun
	}
	payload := r.payload
	if p.w.planted.sharesFlights {
		payload = 0
	}
	at := flightKey{r.key.slot, payload}
	if leader := p.flights[at]; leader != nil {
		p.follow(leader, r)
		return
	}
	w := p.w
	a := w.room.attempts.get()
	a.w, a.p, a.life, a.number = w, p, p.life, len(w.attempts)
	a.key, a.payload, a.leader, a.stage = r.key, r.payload, r, asking
	a.rejects = w.strikes(RejectedResult)
	w.attempts = append(w.attempts, a)
	p.flights[at] = a
	r.leads = a
	ask := semel.Ask{Key: r.key.name, Fingerprint: fingerprint(r.payload), Policy: r.key.policy}
	a.machine = semel.NewAttempt(ask, r.key.digest, "sim", w.nonce)
	now := p.clock()
	a.do(a.machine.Begin(now, now.Add(p.ahead)))
}

func fingerprint(payload int) semel.Fingerprint {
	return semel.Fingerprint{byte(payload + 1)}
}

// follow waits for the flight of another, for what is left of the policy's Wait.
func (p *process) follow(leader *attempt, r *request) {
	left := r.key.policy.Wait - p.clock().Sub(r.arrived)
	if left <= 0 {
		r.tell(leader, answer{kind: inProgress, follower: true})
		return
	}
	leader.followers = append(leader.followers, r)
	r.joins++
	joined := r.joins
	p.when(p.clock().Add(left), func() {
		if r.joins == joined && !r.told {
			r.joins++ // it has left the flight
			r.tell(leader, answer{kind: inProgress, follower: true})
		}
	})
}

// land ends the flight and answers all who wait for it, but those who may wait
// on: they begin anew.
func (a *attempt) land(ans answer) {
	payload := a.payload
	if a.w.planted.sharesFlights {
		payload = 0
	}
	at := flightKey{a.key.slot, payload}
	if a.p.flights[at] == a {
		delete(a.p.flights, at)
	}
	followers := a.followers
	a.followers = nil
	ans.follower = true
	for _, r := range followers {
		if r.told {
			continue
		}
		r.joins++
		if ans.kind == inProgress && a.p.clock().Sub(r.arrived) < r.key.policy.Wait {
			a.p.begin(r)
			continue
		}
		r.tell(a, ans)
	}
}

// do carries out a move, as Guard.drive does.
func (a *attempt) do(m semel.Move) {
	if a.w.bad != nil {
		return
	}
	if a.w.planted.move != nil {
		m = a.w.planted.move(a, m)
	}
	switch m.Do {
	case semel.SwapRecord:
		a.last = m.Swap.Next.Nonce
		a.w.note(noteSend, a.p, a.key, int64(a.number), int64(m.Swap.Old.Counter))
		c := a.w.room.calls.get()
		c.swap = m.Swap
		a.call(c)
	case semel.ReadRecord:
		a.w.note(noteRead, a.p, a.key, int64(a.number), a.w.sent)
		c := a.w.room.calls.get()
		c.read = true
		a.call(c)
	case semel.Sleep:
		a.sleep(m.Until)
	case semel.Run:
		a.runs(m.Until)
	case semel.Stop:
		a.stops()
	}
}

func (a *attempt) call(c *call) {
	c.from, c.key, c.back = a, a.key, a.heard
	switch a.stage {
	case asking:
		c.role = claims
	case holding, renewing:
		c.role = renews
	default:
		c.role = finishes
	}
	if !c.read && a.stage == asking && a.w.planted.startsEarly && !a.ghost.started {
		a.start()
	}
	a.w.dispatch(c)
}

// heard is Guard.reply.
func (a *attempt) heard(c *call) {
	p, r, err := a.p, c.reading, c.err
	if a.stage == over || p.life != a.life {
		return
	}
	a.hearGhost(c)
	if !r.Now.IsZero() {
		p.ahead = r.Now.Sub(p.clock())
		a.w.note(noteAnswer, p, a.key, int64(a.number), int64(r.Record.Version.Counter))
	} else {
		a.w.note(noteError, p, a.key, int64(a.number), int64(c.role))
	}
	if a.w.planted.reply != nil {
		r, err = a.w.planted.reply(a, c, r, err)
	}
	a.do(a.machine.Reply(p.clock(), r, err))
}

func (a *attempt) waiting() bool { return a.machine.Verdict().Action == semel.Wait }

func (a *attempt) sleep(until time.Time) {
	if a.stage == finishing && !a.behind && (until.After(a.limit) || a.w.planted.triesOnce) && !a.linger() {
		return
	}
	if a.stage == asking && a.waiting() {
		if a.leader.gone {
			a.abandon()
			return
		}
		if a.w.planted.sleepsForever {
			return
		}
	}
	a.w.note(noteSleep, a.p, a.key, int64(a.number), int64(until.Sub(a.p.clock())))
	a.sleeping++
	this := a.sleeping
	a.napping = true
	a.p.when(until, func() {
		if a.napping && a.sleeping == this {
			a.napping = false
			a.do(a.machine.Wake(a.p.clock()))
		}
	})
}

// abandon is what a leader's duplicates see when it leaves while it waits for
// another's lease.
func (a *attempt) abandon() {
	a.ended(nil)
	a.napping, a.stage = false, over
	a.leader.told = true
	a.land(answer{kind: inProgress})
}

// runs is told that the claim is held: for the first time, or again.
func (a *attempt) runs(renewAt time.Time) {
	switch a.stage {
	case asking:
		a.w.note(noteGrant, a.p, a.key, int64(a.number), int64(a.machine.Record().Version.Counter))
		a.stage = holding
		a.w.paths[Granted]++
		a.arm(renewAt)
		if !a.ghost.started {
			a.start()
		}
	case renewing:
		a.w.note(noteRenewed, a.p, a.key, int64(a.number), int64(a.machine.Record().Version.Counter))
		a.stage = holding
		a.w.paths[Renewals]++
		a.arm(renewAt)
		a.returnNow()
	}
}

// stops is told that the machine has come to an end.
func (a *attempt) stops() {
	switch a.stage {
	case asking:
		a.refused()
	case renewing:
		a.w.note(noteLost, a.p, a.key, int64(a.number), int64(a.machine.Record().Version.Counter))
		a.stage = holding
		a.w.paths[LeasesLost]++
		a.beat++
		a.cancel()
		a.returnNow()
	case finishing:
		a.settled()
	case disowning:
		a.stage = over
		a.disowned()
	}
}

// refused is the end of Guard.lead without a grant.
func (a *attempt) refused() {
	v, err := a.machine.Verdict(), a.machine.Err()
	if v.Reason == semel.Damaged {
		err = nil
	}
	ans := answerOf(v, err)
	a.ended(err)
	a.w.note(noteSettled, a.p, a.key, int64(a.number), int64(v.Reason))
	a.stage = over
	if errors.Is(err, semel.ErrUnavailable) {
		if a.w.planted.failsOpen && !a.ghost.started {
			a.stage = holding
			a.start()
			return
		}
		if !a.w.strikes(StrayFull) {
			a.stage = disowning
			a.w.note(noteDisown, a.p, a.key, int64(a.number), 0)
			a.do(a.machine.Disown(a.p.clock()))
		}
	}
	a.leader.tell(a, ans)
	a.land(ans)
}
