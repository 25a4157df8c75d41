package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// ending is how a handler came back.
type ending struct {
	state semel.State
	code  int
	data  []byte
}

// plan is what a handler is going to do.
type plan uint8

const (
	succeeds    plan = iota // effect, then 201
	declines                // no effect, a final 409
	panics                  // with or without its effect, a stored 500
	doesNothing             // no effect, released
	cannotDial              // no effect, released, and a 502 that is not stored
	cannotTell              // with or without its effect, nobody knows
	succeedsBig             // effect, then a 201 too large to keep
)

func (p plan) String() string {
	names := [...]string{"succeeds", "declines", "panics", "does nothing", "cannot dial", "cannot tell", "succeeds with a large result"}
	return names[p]
}

// handler is the operation under way: what people write, so it may be slow,
// deaf, or wrong.
type handler struct {
	plan      plan
	deaf      bool // it goes on after its context ended
	running   bool
	cancelled bool
	turn      int // which schedule of its end is the current one
	effect    bool
	refused   bool // by the target of a Fenced effect
	token     semel.Version
}

// start runs the handler.
func (a *attempt) start() {
	w, h := a.w, &a.handler
	for _, odd := range [...]struct {
		fault Fault
		plan  plan
	}{
		{Panicked, panics},
		{NothingDone, doesNothing},
		{DialError, cannotDial},
		{OutcomeUnknown, cannotTell},
		{Oversized, succeedsBig},
	} {
		if w.strikes(odd.fault) {
			h.plan = odd.plan
			break
		}
	}
	if h.plan == succeeds && w.dice.oneIn(8) {
		h.plan = declines
	}
	length := w.dice.spread(ms, 60*ms)
	if w.strikes(SlowHandler) {
		length = w.dice.between(int64(a.key.policy.Lease), 3*int64(a.key.policy.Lease))
	}
	h.deaf = w.strikes(DeafHandler)
	h.running = true
	a.started()
	w.note(noteStart, a.p, a.key, int64(a.number), int64(h.plan))
	none := h.plan == declines || h.plan == doesNothing || h.plan == cannotDial
	if maybe := h.plan == panics || h.plan == cannotTell; !none && (!maybe || w.dice.oneIn(2)) {
		a.p.in(w.dice.between(0, length), a.effect)
		if w.planted.sendsTwice {
			a.p.in(w.dice.between(0, length), a.effect)
		}
	}
	a.returns(length)
}

// effect changes the world, unless the handler heard before that it must not,
// or the target refuses its token.
func (a *attempt) effect() {
	h := &a.handler
	if !h.running || h.cancelled && !h.deaf {
		return
	}
	h.token = a.machine.Record().Version
	if a.machine.Record().Class == semel.Fenced && !a.accepted(h.token) {
		h.refused = true
		a.w.paths[RefusedEffects]++
		a.w.note(noteRefusedEffect, a.p, a.key, int64(a.number), int64(h.token.Counter))
		return
	}
	h.effect = true
	a.w.note(noteEffect, a.p, a.key, int64(a.number), int64(h.token.Counter))
	a.ghost.era.effects++
}

// returns lets the handler come back after d.
func (a *attempt) returns(d int64) {
	a.handler.turn++
	this := a.handler.turn
	a.p.in(d, func() {
		if a.handler.running && a.handler.turn == this {
			a.handler.running = false
			a.finish(a.handlerEnding())
		}
	})
}

// handlerEnding is what the transport makes of the handler's return.
func (a *attempt) handlerEnding() ending {
	h := &a.handler
	done := func(code int) ending {
		return ending{semel.Done, code, fmt.Appendf(nil, "%s %d by %d", a.key.label(), code, a.number)}
	}
	var e ending
	switch {
	case h.plan == panics:
		e = done(500)
	case h.plan == cannotTell:
		e = ending{state: semel.Pending}
	case h.plan == doesNothing:
		e = ending{state: semel.Released}
	case h.plan == cannotDial:
		e = ending{semel.Released, 502, []byte("bad gateway")}
	case h.plan == declines:
		e = done(409)
	case h.refused:
		e = done(412)
	case !h.effect: // the handler heard that its context ended
		e = [...]ending{done(503), {state: semel.Pending}, {state: semel.Released}}[a.number%3]
	default:
		e = done(201)
	}
	if h.plan == succeedsBig && e.code == 201 {
		e.data = append(e.data, make([]byte, 300)...)
	}
	if a.w.planted.ending != nil {
		e = a.w.planted.ending(a, e)
	}
	return e
}

// arm sets the timer for the next renewal.
func (a *attempt) arm(at time.Time) {
	a.beat++
	this := a.beat
	if a.w.planted.neverRenews {
		return
	}
	a.p.when(at, func() {
		if a.beat == this && !a.stopped {
			a.renew()
		}
	})
}

// renew is Claim.renew: the context ends at Safe, however long the store takes.
func (a *attempt) renew() {
	a.stage = renewing
	this := a.beat
	if !a.w.planted.neverCancels {
		a.p.when(a.machine.Safe(), func() {
			if a.beat == this && a.stage == renewing {
				a.cancel()
			}
		})
	}
	a.do(a.machine.Renew(a.p.clock()))
}

// cancel ends the handler's context. One that listens comes back soon.
func (a *attempt) cancel() {
	h := &a.handler
	if h.cancelled || a.w.planted.neverCancels {
		return
	}
	h.cancelled = true
	deaf := int64(0)
	if h.deaf {
		deaf = 1
	} else if h.running {
		a.returns(a.w.dice.between(0, 5*ms))
	}
	a.w.note(noteCancel, a.p, a.key, int64(a.number), deaf)
}

// finish is Claim.finish: it waits for a renewal under way.
func (a *attempt) finish(e ending) {
	a.returned(e)
	if a.w.planted.strands != nil && a.w.planted.strands(a) {
		return
	}
	a.stopped = true
	if a.w.planted.followsClient && a.leader.gone {
		a.stage, a.leader.told = over, true
		a.land(answer{kind: unknown})
		return
	}
	a.wanted = &e
	a.returnNow()
}

func (a *attempt) returnNow() {
	if a.wanted == nil || a.stage != holding {
		return
	}
	e := *a.wanted
	a.stage = finishing
	now := a.p.clock()
	a.limit = now.Add(a.key.policy.FinishWithin)
	a.w.note(noteReturn, a.p, a.key, int64(a.number), int64(e.state))
	if a.w.planted.tellsEarly && e.state == semel.Done {
		a.leader.tell(a, answer{kind: stored, code: e.code, data: e.data, own: true})
	}
	a.do(a.machine.Finish(now, semel.Ending{State: e.state, Code: e.code, Result: e.data}))
}

// linger answers the leader that nobody knows, while storing goes on. It gives
// false if there is no room for that.
func (a *attempt) linger() bool {
	a.behind = true
	a.w.paths[Lingering]++
	a.w.note(noteLinger, a.p, a.key, int64(a.number), 0)
	a.leader.tell(a, answer{kind: unknown, own: true})
	if a.w.planted.triesOnce || a.w.strikes(StrayFull) {
		a.ghost.excused = !a.w.planted.triesOnce
		a.stage = over
		a.land(answer{kind: unknown})
		return false
	}
	return true
}

// settled is Claim.settled together with what the transport answers.
func (a *attempt) settled() {
	v, err, e := a.machine.Verdict(), a.machine.Err(), a.wanted
	ours := err == nil && v.Reason == semel.Finished && v.Held.Nonce == a.last
	shared := answerOf(v, nil)
	if shared.kind == stored && v.Held.Replay == 0 {
		shared.kind = gone
	}
	var mine answer
	switch {
	case ours && e.state == semel.Done:
		mine = answer{kind: stored, code: e.code, data: e.data, version: v.Held.Version, own: true}
	case ours && e.state == semel.Released && e.data != nil:
		mine = answer{kind: notStored, code: e.code, data: e.data, own: true}
		shared = mine
	case ours && e.state == semel.Released:
		mine = answer{kind: notStored, code: 503, own: true}
		shared = answer{kind: inProgress}
	case ours:
		mine = answer{kind: unknown, own: true}
		shared = mine
	case e.state == semel.Done && (shared.kind == stored || shared.kind == gone):
		mine = shared // somebody settled the key before us: theirs is the answer
		mine.own = true
		a.w.paths[SettledByOther]++
	default:
		mine = answer{kind: unknown, own: true}
	}
	a.w.note(noteSettled, a.p, a.key, int64(a.number), int64(v.Reason))
	a.ghost.excused = a.ghost.excused || err != nil
	a.stage = over
	a.leader.tell(a, mine)
	shared.own = false
	a.land(shared)
}

// answerOf is what the transport makes of a verdict, or of an error.
func answerOf(v semel.Verdict, err error) answer {
	ans := answer{code: v.Held.Code, data: v.Held.Result, version: v.Held.Version}
	switch {
	case err != nil:
		ans.kind = unavailable
	case v.Action == semel.Replay:
		ans.kind = stored
	case v.Reason == semel.Gone:
		ans.kind, ans.data = gone, nil
	default:
		switch e := v.Err(); {
		case errors.Is(e, semel.ErrMismatch):
			ans.kind = mismatch
		case errors.Is(e, semel.ErrInProgress):
			ans.kind = inProgress
		case errors.Is(e, semel.ErrExpired):
			ans.kind = expired
		case errors.Is(e, semel.ErrEarly):
			ans.kind = early
		default:
			ans.kind = unknown
		}
	}
	return ans
}
