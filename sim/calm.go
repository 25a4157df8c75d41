package sim

import "github.com/semelhq/semel"

// calm is the second phase: the faults stop, and whatever was promised for then
// has to come true.
func (w *world) calm() {
	if w.bad != nil {
		return
	}
	w.heal()
	fresh := w.addProcess()
	for _, k := range w.keys {
		w.probeHolder(k, fresh)
	}
	// A call that was lost in silence just now is noticed after its timeout.
	w.run(w.now + longestDelay + storeTimeout + w.grace() + 5*sec)
	w.stuck()
	w.probe(nil)
	for _, k := range w.keys {
		w.settle(k)
	}
	w.run(w.now + sec)
	w.probe(nil)
	w.reckon()
	w.afterlife()
}

// heal ends all faults. What is under way arrives yet.
func (w *world) heal() {
	w.healed = true
	w.store.down = false
	alive := int64(0)
	for _, p := range w.procs {
		p.cut = 0
		p.restart()
		if p.paused {
			p.resume()
		}
	}
	for _, a := range w.attempts {
		if a.alive() && a.stage != over {
			alive++
		}
		if a.alive() && a.handler.running {
			a.returns(w.dice.between(0, 50*ms))
		}
	}
	w.note(noteHeal, nil, nil, alive, 0)
}

// probe asks for every key once; each has to be answered within its Wait.
func (w *world) probe(to *process) {
	for _, k := range w.keys {
		answered := false
		c := w.prober(k, to)
		c.on = func(ans answer) {
			if ans.kind != unavailable && ans.kind != inProgress {
				answered = true
			}
		}
		c.send()
		w.run(w.now + sec)
		if !answered {
			w.fail("L1", "key %d: no answer when all was quiet", k.number)
		}
	}
}

// probeHolder asks for a key whose holder is dead until it gets a grant, an
// answer or "unknown", for which there is a lease and a second.
func (w *world) probeHolder(k *key, to *process) {
	if r := &w.store.held[k.slot]; r.State != semel.Pending || k.truth.holder != nil && k.truth.holder.alive() {
		return
	}
	done := false
	c := w.prober(k, to)
	c.on = func(ans answer) {
		if done = done || ans.kind != unavailable && ans.kind != inProgress; !done {
			w.after(20*ms, c.send)
		}
	}
	c.send()
	allowed := int64(k.policy.Lease) + sec
	var look func()
	look = func() {
		// A live attempt may have taken the key, or a late claim may have landed.
		if holder := k.truth.holder; !done && w.leaseRuns(k) && (holder != nil && holder.alive() || k.truth.since > w.now-allowed) {
			w.after(allowed, look)
		} else if !done {
			w.fail("L1", "key %d: neither a grant nor an answer a lease and a second after its holder died", k.number)
		}
	}
	w.after(allowed, look)
}

// prober is a client that waits for as long as it takes, with the payload that
// the key is known by.
func (w *world) prober(k *key, to *process) *client {
	c := &client{w: w, number: len(w.clients), key: k, to: to, patience: 60 * sec}
	if e := k.truth.era(); e.begun && e.payload == fingerprint(1) {
		c.payload = 1
	}
	w.clients = append(w.clients, c)
	return c
}

// afterlife asks again after keys were forgotten. One that carries its own time
// must be refused, or still be remembered; another is a new operation.
func (w *world) afterlife() {
	if w.weather[LateRetry] == 0 {
		return
	}
	for _, k := range w.keys {
		at := w.now + w.dice.spread(sec, 40*sec)
		if k.timed {
			at = k.born.Add(k.policy.Remember).UnixNano() - epoch + w.dice.between(-sec, 400*sec)
		}
		if at < w.now || w.bad != nil {
			continue
		}
		w.faults[LateRetry]++
		w.after(at-w.now, func() {
			w.store.sweep()
			c := w.prober(k, nil)
			c.on = func(answer) {}
			c.send()
		})
	}
	w.run(w.now + 900*sec)
}
