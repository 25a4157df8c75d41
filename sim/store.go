package sim

import (
	"errors"
	"time"

	"github.com/semelhq/semel"
)

// store is a linearizable map with versions and one writing verb, as the root
// package describes stores. Its nodes fail over without losing what they
// acknowledged.
type store struct {
	w       *world
	held    []semel.Record // by the slot of the key
	damaged []int64        // until when the slot cannot be read
	epoch   uint64
	counter uint64
	step    int64 // how far this node's clock is off
	down    bool
	// undo holds what the last writes replaced, for planted bugs that lose them.
	undo []semel.Record
}

// clock is what leases and retentions are judged by.
func (s *store) clock() time.Time { return time.Unix(0, epoch+s.w.now+s.step) }

// get carries out a read.
func (s *store) get(c *call) (semel.Reading, error) {
	r := semel.Reading{Record: s.held[c.key.slot], Now: s.clock()}
	s.w.watchHolder(c.key, &r.Record)
	if s.broken(c) {
		return semel.Reading{Now: r.Now}, semel.ErrDamaged
	}
	return r, nil
}

// swap carries out a compare-and-swap.
func (s *store) swap(c *call) (semel.Reading, error) {
	w, now := s.w, s.clock()
	before := s.held[c.key.slot]
	w.watchHolder(c.key, &before)
	if s.broken(c) {
		return semel.Reading{Now: now}, semel.ErrDamaged
	}
	old, next := c.swap.Old, c.swap.Next
	if w.planted.swap != nil {
		w.planted.swap(&before, &old, &next)
	}
	if c.from != nil && c.from.rejects && len(next.Result) > 0 {
		return semel.Reading{Now: now}, semel.ErrRejected
	}
	if c.from != nil && old.IsZero() && w.strikes(RefusedForNow) {
		return semel.Reading{Now: now}, semel.ErrUnavailable
	}
	if before.Version != old {
		w.note(noteConflict, nil, c.key, int64(before.Version.Counter), int64(before.State))
		return semel.Reading{Record: before, Now: now}, semel.ErrConflict
	}
	next.Version = s.version(&before)
	next.WrittenAt = now
	s.held[c.key.slot] = next
	if w.planted.losesTail {
		before.Digest = c.key.digest
		s.undo = append(s.undo, before)
	}
	w.note(noteApply, nil, c.key, int64(next.Version.Counter), int64(next.State))
	w.applied(c, &before, &next)
	return semel.Reading{Record: next, Now: now}, nil
}

func (s *store) version(before *semel.Record) semel.Version {
	if s.w.planted.countsPerRecord {
		return semel.Version{Epoch: s.epoch, Counter: before.Version.Counter + 1}
	}
	s.counter++
	return semel.Version{Epoch: s.epoch, Counter: s.counter}
}

func (s *store) broken(c *call) bool {
	return !s.w.healed && s.damaged[c.key.slot] > s.w.now
}

// sweep deletes what has expired by the store's clock, never a pending record,
// and drops results that cannot be replayed any more.
func (s *store) sweep() {
	swept := false
	for _, k := range s.w.keys {
		r := s.held[k.slot]
		if !r.Held() || k.digest != r.Digest {
			continue
		}
		expired := r.State != semel.Pending && !s.clock().Before(r.Expires())
		if s.w.planted.sweeps != nil && s.w.planted.sweeps(&r, s.clock()) {
			expired = true
		}
		if !expired {
			if r.Spent(s.clock()) {
				s.held[k.slot] = r.Tombstone()
				swept = true
				s.w.note(noteSweep, nil, k, int64(r.Version.Counter), int64(r.State))
			}
			continue
		}
		s.held[k.slot] = semel.Record{}
		swept = true
		s.w.note(noteSweep, nil, k, int64(r.Version.Counter), int64(r.State))
		s.w.swept(k, &r)
	}
	if swept {
		s.w.faults[Sweep]++
	}
}

// outage lets the store answer errors for a while.
func (s *store) outage() {
	if s.down {
		return
	}
	w := s.w
	length := w.dice.spread(20*ms, 4*sec)
	s.down = true
	w.faults[Outage]++
	w.note(noteStore, nil, nil, 1, length)
	w.after(length, func() { s.down = false })
}

// failover lets another node go on: a new epoch, a counter that begins anew, and
// a clock that is a little off.
func (s *store) failover() {
	w := s.w
	s.counter = 0
	if !w.planted.keepsEpoch {
		s.epoch++
	}
	s.step = w.dice.between(-s.maxStep(), s.maxStep())
	if w.planted.losesTail {
		for range min(3, len(s.undo)) {
			last := s.undo[len(s.undo)-1]
			s.undo = s.undo[:len(s.undo)-1]
			for _, k := range w.keys {
				if k.digest == last.Digest {
					s.held[k.slot] = last
				}
			}
		}
	}
	w.faults[Failover]++
	w.note(noteFailover, nil, nil, int64(s.epoch), s.step)
}

// maxStep keeps the clocks of two nodes within a fiftieth of the shortest lease
// of each other: with drift, that is less than the sixth that holders keep.
func (s *store) maxStep() int64 {
	least := sec
	for _, k := range s.w.keys {
		least = min(least, int64(k.policy.Lease))
	}
	return least / 100
}

// damage makes one record unreadable for a while.
func (s *store) damage() {
	w := s.w
	k := w.keys[w.dice.below(int64(len(w.keys)))]
	if s.held[k.slot].Held() {
		s.damaged[k.slot] = w.now + w.dice.spread(10*ms, 2*sec)
		w.faults[DamagedRecord]++
		w.note(noteFault, nil, k, int64(DamagedRecord), s.damaged[k.slot]-w.now)
	}
}

// role is what a call is for, as its driver knows it: the ledger judges by it.
type role uint8

const (
	claims role = iota + 1
	renews
	finishes
	settles // by an operator
)

// storeTimeout is how long a driver waits for one call, as the Guard does.
const storeTimeout = 5 * sec

// longestDelay is the longest way of a request or an answer.
const longestDelay = 4 * sec

var (
	errReset  = errors.New("connection reset")
	errSilent = errors.New("no answer in time")
	errOutage = errors.New("the store is down")
)

// call is one operation on its way to the store and back.
type call struct {
	number int64
	from   *attempt // nil: an operator
	role   role
	key    *key
	read   bool
	swap   semel.Swap
	sent   int64
	heard  bool // an answer or an error has come back

	reading semel.Reading
	err     error
	// truth is what the store held when it carried out the call, and clock its
	// clock: the ledger goes by them, whatever a planted bug tells the driver.
	truth semel.Reading
	done  bool
	// back takes the answer; it runs in the caller's process.
	back func(*call)
}

// dispatch sends a call on its way.
func (w *world) dispatch(c *call) {
	w.sent++
	c.number, c.sent = w.sent, w.now
	if c.from != nil && c.from.p.cut > w.now {
		w.miss(c)
		return
	}
	if w.strikes(RequestLost) {
		w.miss(c)
		return
	}
	way := w.latency()
	if w.strikes(RequestDelayed) {
		way += w.dice.spread(10*ms, longestDelay)
	}
	w.after(way, func() { w.arrive(c, true) })
	if w.strikes(RequestDuplicated) {
		w.after(way+w.dice.spread(ms, longestDelay), func() { w.arrive(c, false) })
	}
}

// latency is one way to the store, or back.
func (w *world) latency() int64 { return w.dice.spread(50_000, 2*ms) }

// arrive carries a call out. A duplicate's answer interests nobody.
func (w *world) arrive(c *call, answered bool) {
	w.operations++
	if c.key.truth.newestCall > c.number {
		w.faults[Reordered]++
	}
	c.key.truth.newestCall = max(c.key.truth.newestCall, c.number)
	if w.store.down {
		if answered {
			w.bring(c, semel.Reading{}, errOutage)
		}
		return
	}
	truth := semel.Reading{Record: w.store.held[c.key.slot], Now: w.store.clock()}
	var r semel.Reading
	var err error
	if c.read {
		r, err = w.store.get(c)
	} else {
		r, err = w.store.swap(c)
	}
	if !answered {
		return
	}
	c.truth, c.done = truth, true
	switch {
	case w.strikes(AnswerLost):
		w.miss(c)
	case !c.read && err == nil && w.strikes(ErrorAfterWrite):
		w.bring(c, semel.Reading{}, errOutage)
	default:
		w.bring(c, r, err)
	}
}

// bring takes an answer back to the caller.
func (w *world) bring(c *call, r semel.Reading, err error) {
	c.reading, c.err = r, err
	way := w.latency()
	if w.strikes(AnswerDelayed) {
		way += w.dice.spread(10*ms, longestDelay)
	}
	if late := c.sent + storeTimeout; w.now+way > late {
		w.miss(c)
		return
	}
	w.hear(c, way)
}

// miss lets the caller find out that no answer will come: at once by a reset
// connection, or by its timeout.
func (w *world) miss(c *call) {
	if w.dice.oneIn(3) {
		c.reading, c.err = semel.Reading{}, errSilent
		w.hear(c, c.sent+storeTimeout-w.now)
		return
	}
	c.reading, c.err = semel.Reading{}, errReset
	w.hear(c, w.dice.spread(ms, 100*ms))
}

// hear hands the answer to the caller's process.
func (w *world) hear(c *call, way int64) {
	e := event{do: func() {
		if !c.heard {
			c.heard = true
			c.back(c)
		}
	}}
	if c.from != nil {
		e.home, e.life = c.from.p, c.from.life
	}
	w.queue.push(w.now+max(way, 0), e)
}
