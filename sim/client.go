package sim

import (
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// client wants one operation done, and asks until it hears what came of it.
type client struct {
	w        *world
	number   int
	key      *key
	payload  int
	first    int64 // when it asks first
	tries    int
	patience int64 // how long it waits for one answer
	current  *request
	// on, if set, takes the answers instead of the client's own habits.
	on func(answer)
	to *process // where it asks, nil for anywhere
}

// request is one arrival of the client's request at a process.
type request struct {
	client  *client
	key     *key
	payload int
	p       *process
	life    int
	arrived time.Time
	leads   *attempt
	joins   int
	gone    bool // the client left
	told    bool // the process is through with it
}

// addClients lets clients want the key: some at once, some late, some with a
// payload that is not the key's.
func (w *world) addClients(k *key) {
	d := w.dice
	start := d.between(0, 6*sec)
	herd := w.strikes(Herd)
	n := d.between(3, 9)
	if herd {
		n = d.between(6, 20)
	}
	for range n {
		c := &client{w: w, number: len(w.clients), key: k, patience: d.spread(100*ms, 6*sec), first: start}
		if !herd {
			c.first += d.spread(ms, 5*sec)
		}
		if w.strikes(ChangedPayload) {
			c.payload, k.wide = 1, true
		}
		w.clients = append(w.clients, c)
	}
}

// send asks once.
func (c *client) send() {
	w := c.w
	p := c.to
	if p == nil {
		p = w.one()
	}
	if c.on == nil {
		if w.healed {
			return
		}
		c.tries++
	}
	if !p.up {
		c.again(50*ms, 500*ms)
		return
	}
	r := &request{client: c, key: c.key, payload: c.payload, p: p, life: p.life}
	c.current = r
	w.note(noteClient, p, c.key, int64(c.number), int64(c.tries))
	p.in(w.latency(), func() {
		r.arrived = p.clock()
		w.requests = append(w.requests, r)
		w.note(noteAsk, p, c.key, int64(c.number), int64(c.payload))
		p.begin(r)
	})
	if w.strikes(ClientGone) {
		w.after(w.dice.spread(ms, 2*sec), func() { c.leave(r) })
		return
	}
	w.after(c.patience, func() { c.leave(r) })
}

// leave gives up waiting for an answer; the process notices.
func (c *client) leave(r *request) {
	if c.current != r {
		return
	}
	c.current = nil
	w := c.w
	w.note(noteGone, r.p, c.key, int64(c.number), 0)
	r.gone = true
	if r.p.life == r.life {
		r.p.in(w.latency(), r.left)
	}
	c.again(10*ms, sec)
}

// left is the end of the request's context in the process.
func (r *request) left() {
	switch a := r.leads; {
	case r.told:
	case a == nil: // it waits in a flight
		r.told = true
	case a.stage == asking && a.napping && a.waiting():
		a.abandon()
	}
}

// again asks once more after a while, unless the client has had enough.
func (c *client) again(lo, hi int64) {
	if c.on != nil {
		if c.current == nil {
			c.on(answer{kind: unavailable})
		}
		return
	}
	if c.tries < 10 {
		c.w.after(c.w.dice.spread(lo, hi), c.send)
	}
}

// tell is the process' answer. It is checked even if nobody is there to hear it.
func (r *request) tell(a *attempt, ans answer) {
	if r.told {
		return
	}
	r.told = true
	c, w := r.client, r.client.w
	if w.planted.told != nil {
		ans = w.planted.told(a, ans)
	}
	w.note(noteTell, r.p, r.key, int64(c.number), int64(ans.kind))
	w.answered(r, a, ans)
	if r.gone || w.strikes(AnswerNotSeen) {
		return
	}
	w.after(w.latency(), func() {
		if c.current == r {
			c.current = nil
			c.hears(ans)
		}
	})
}

// hears is what the client makes of an answer.
func (c *client) hears(ans answer) {
	if c.on != nil {
		c.on(ans)
		return
	}
	switch ans.kind {
	case inProgress, unavailable, notStored:
		c.again(10*ms, sec)
	case unknown:
		c.again(100*ms, 3*sec)
	default:
		if c.w.dice.oneIn(3) { // a user who clicks once more
			c.again(ms, 4*sec)
		}
	}
}

// operate lets an operator look at a key and settle it if it is in doubt.
func (w *world) operate() {
	w.settle(w.keys[w.dice.below(int64(len(w.keys)))])
}

func (w *world) settle(k *key) {
	w.dispatch(&call{key: k, read: true, role: settles, back: func(c *call) {
		r := c.reading.Record
		if c.err != nil || !r.Held() {
			return
		}
		held := c.reading
		if w.planted.settlesAnything != nil && w.planted.settlesAnything(&r) {
			held.Now = r.Expires()
		}
		if !r.InDoubt(held.Now) {
			return
		}
		old, nonce := r.Version, w.nonce()
		s := semel.Settlement{State: semel.Released, Version: old, Who: "operator", Why: "the ledger"}
		switch a := k.truth.era().effector(); {
		case a != nil:
			s.State = semel.Done
			s.Result = semel.Result{Code: 201, Data: fmt.Appendf(nil, "%s 201 by %d", k.label(), a.number)}
		case !w.healed && w.dice.oneIn(4):
			return // not even the operator knows
		}
		next, err := semel.Settle(held, s, k.policy, nonce)
		if err != nil {
			w.fail("S5", "key %d: what is in doubt was not settled: %v", k.number, err)
			return
		}
		w.note(noteSettle, nil, k, int64(next.State), int64(old.Counter))
		w.dispatch(&call{key: k, role: settles, swap: semel.Swap{Old: old, Next: next}, back: func(*call) {}})
	}})
}
