package sim

import (
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// truth is what is true of a key, whatever the store and the drivers believe.
// It is written by what happens, and read by the checks only.
type truth struct {
	newestCall int64
	newest     semel.Version // of all writes, deleted ones included
	writes     []write
	eras       []*era
	holder     *attempt // whose claim the pending record is, nil once it ended
	since      int64    // virtual time of the last write
	token      semel.Version
	accepted   semel.Version // the newest token that the effect's target took
}

// era is the life of a record from its insertion to its deletion: a key that
// was forgotten names a new operation.
type era struct {
	begun   bool
	payload semel.Fingerprint
	starts  []*attempt
	open    int // starts that were not settled as not done
	settled int // times that it was settled as not done, by a handler or an operator
	grants  int
	effects int
	doubted bool // "unknown" was told
	told    *told
}

// told is the first definitive answer of an era.
type told struct {
	code    int
	data    []byte
	version semel.Version
}

// write is one record that the store accepted.
type write struct {
	version semel.Version
	state   semel.State
	code    int
	data    []byte
	kept    bool // the result may be replayed
	by      *attempt
	era     *era
}

// ghost is what is true of an attempt.
type ghost struct {
	claimed  bool // a claim of it is in the store
	started  bool
	returned bool
	ending   ending
	stored   bool // its ending is in the store
	over     bool // it ended without a grant, for good
	era      *era // in which it started
	excused  bool // the store gave it no chance to store its ending
	heardOK  bool // the store has answered it without an error
	lastOK   bool // and did so the last time
	token    semel.Version
	seen     semel.Reading // what the store held when it answered last
	hasSeen  bool
	damaged  bool
}

func (t *truth) era() *era {
	if len(t.eras) == 0 {
		t.eras = append(t.eras, &era{})
	}
	return t.eras[len(t.eras)-1]
}

// effector is the attempt that had the effect.
func (e *era) effector() *attempt {
	for _, a := range e.starts {
		if a.handler.effect {
			return a
		}
	}
	return nil
}

// find gives the write of a version.
func (t *truth) find(v semel.Version) *write {
	for i := len(t.writes) - 1; i >= 0; i-- {
		if t.writes[i].version == v {
			return &t.writes[i]
		}
	}
	return nil
}

// alive tells whether the attempt's process still has it.
func (a *attempt) alive() bool { return a.p.life == a.life }

// applied judges a write that the store has carried out.
func (w *world) applied(c *call, before, after *semel.Record) {
	k, a := c.key, c.from
	t := &k.truth
	if after.Version.Compare(t.newest) <= 0 {
		w.fail("S2", "key %d: version %v was written after %v", k.number, after.Version, t.newest)
	}
	if before.State == semel.Done {
		w.fail("S4", "key %d: a finished record was overwritten as %v", k.number, after.State)
	}
	if before.Version != c.swap.Old {
		w.fail("S3", "key %d: a swap over %v went over %v", k.number, c.swap.Old, before.Version)
	}
	e := t.era()
	switch c.role {
	case claims:
		w.claimApplied(k, a, e, before, after)
	case renews:
		if t.holder != a || before.State != semel.Pending || after.State != semel.Pending {
			w.fail("S3", "key %d: a renewal of a claim that is not held", k.number)
		}
	case finishes:
		w.endApplied(k, a, e, before, after)
	case settles:
		w.settled(k, e, before, after)
	}
	t.newest, t.since = after.Version, w.now
	t.writes = append(t.writes, write{
		after.Version, after.State, after.Code, after.Result, after.Replay > 0, a, e,
	})
}

func (w *world) claimApplied(k *key, a *attempt, e *era, before, after *semel.Record) {
	t := &k.truth
	again := t.holder == a && before.State == semel.Pending // over its own claim
	switch {
	case after.State != semel.Pending || after.TTL != a.key.policy.Lease:
		w.fail("S3", "key %d: a claim was written as %v for %v", k.number, after.State, after.TTL)
	case before.State == semel.Pending && !again && w.store.clock().Before(before.Expires()):
		w.fail("S1", "key %d: claimed within another's lease", k.number)
	case before.State == semel.Pending && !again && before.Class == semel.AtMostOnce:
		w.fail("S5", "key %d: a lease that ended was taken over under at-most-once", k.number)
	case e.begun && e.payload != after.Fingerprint:
		w.fail("S8", "key %d: claimed with another payload", k.number)
	case a.ghost.over && before.Held():
		w.fail("L1", "key %d: a claim of an attempt that had given up landed", k.number)
	}
	switch {
	case again:
		w.paths[TakenAgain]++
	case before.State == semel.Pending:
		w.paths[TakenOver]++
		fallthrough
	default:
		e.grants++
	}
	if after.Attempt != e.grants {
		w.fail("S5", "key %d: attempt %d is counted as %d", k.number, e.grants, after.Attempt)
	}
	e.begun, e.payload = true, after.Fingerprint
	a.ghost.claimed = true
	t.holder = a
}

func (w *world) endApplied(k *key, a *attempt, e *era, before, after *semel.Record) {
	t := &k.truth
	g := &a.ghost
	if t.holder != a || before.State != semel.Pending {
		w.fail("S3", "key %d: a claim that is not held was ended as %v", k.number, after.State)
	}
	switch {
	case after.State != semel.Released:
	case a.handler.effect:
		w.fail("S10", "key %d: released although it had its effect", k.number)
	case g.started && !g.returned:
		w.fail("S10", "key %d: released under a running handler", k.number)
	case g.started && g.ending.state != semel.Released:
		w.fail("S13", "key %d: released after an outcome of %v", k.number, g.ending.state)
	}
	if after.State == semel.Released && g.started {
		g.era.open--
		g.era.settled++
	}
	switch {
	case a.stage == disowning:
		w.paths[TakenBack]++
	case a.machine.Record().Version != before.Version:
		w.paths[OverOwnRenewal]++
	}
	g.stored = true
	t.holder = nil
}

// settled judges an operator's write.
func (w *world) settled(k *key, e *era, before, after *semel.Record) {
	if !before.InDoubt(w.store.clock()) {
		w.fail("S3", "key %d: settled although it was not in doubt", k.number)
	}
	k.truth.holder = nil
	if after.State == semel.Released {
		e.open = 0
		e.settled++
		w.faults[SettledNotDone]++
		return
	}
	w.faults[SettledDone]++
}

// swept judges a deletion, and ends the era.
func (w *world) swept(k *key, r *semel.Record) {
	now := w.store.clock()
	switch {
	case r.State == semel.Pending || now.Before(r.Expires()):
		w.fail("X4", "key %d: a record in state %v was swept %v before its time", k.number, r.State, r.Expires().Sub(now))
	case now.Before(r.WrittenAt.Add(k.policy.Remember)):
		w.fail("X1", "key %d: forgotten %v after it ended as %v", k.number, now.Sub(r.WrittenAt), r.State)
	}
	k.truth.holder = nil
	k.truth.eras = append(k.truth.eras, &era{})
}

// watchHolder checks that nobody's context outlives its lease. A process that
// stands still cannot be expected to notice.
func (w *world) watchHolder(k *key, held *semel.Record) {
	a := k.truth.holder
	if a == nil || held.State != semel.Pending || !a.alive() || a.p.paused {
		return
	}
	if h := &a.handler; h.running && !h.cancelled && !w.store.clock().Before(held.Expires()) {
		w.fail("S1", "key %d: a handler runs, not cancelled, %v after its lease", k.number, w.store.clock().Sub(held.Expires()))
	}
}

// started judges the start of a handler.
func (a *attempt) started() {
	w, k, g := a.w, a.key, &a.ghost
	t := &k.truth
	e := t.era()
	held := &w.store.held[k.slot]
	g.started, g.era = true, e
	g.token = a.machine.Record().Version
	switch {
	case g.hasSeen && !g.heardOK:
		w.fail("S12", "key %d: started although the store only erred", k.number)
	case !g.claimed:
		w.fail("S11", "key %d: started before its claim was durable", k.number)
	case t.holder != a || held.Version != g.token || held.State != semel.Pending:
		w.fail("S1", "key %d: started with token %v while %v is held", k.number, g.token, held.Version)
	case !w.store.clock().Before(held.Expires()):
		w.fail("S1", "key %d: started %v after its lease", k.number, w.store.clock().Sub(held.Expires()))
	case e.payload != fingerprint(a.payload):
		w.fail("S8", "key %d: started with another payload", k.number)
	case g.token.Compare(t.token) <= 0:
		w.fail("S5", "key %d: started with token %v after %v", k.number, g.token, t.token)
	case k.policy.Class == semel.AtMostOnce && e.open > 0:
		w.fail("S5", "key %d: started again under at-most-once", k.number)
	case k.timed && w.startedBefore(t):
		w.fail("X1", "key %d: ran again after it was forgotten, while it was still accepted", k.number)
	}
	if e.open > 0 && k.policy.Class == semel.AtLeastOnce {
		w.extra++
	}
	t.token = g.token
	e.starts = append(e.starts, a)
	e.open++
}

// startedBefore tells whether an earlier era had a start that was not settled
// as not done.
func (w *world) startedBefore(t *truth) bool {
	return slices.ContainsFunc(t.eras[:len(t.eras)-1], func(e *era) bool { return e.open > 0 })
}

// accepted is the target of a Fenced effect: it refuses a token that is older
// than the newest it has seen. The holder of the key must not be refused.
func (a *attempt) accepted(token semel.Version) bool {
	t := &a.key.truth
	if token.Compare(t.accepted) < 0 {
		if t.holder == a {
			a.w.fail("S5", "key %d: the holder's token %v is refused after %v", a.key.number, token, t.accepted)
		}
		return false
	}
	t.accepted = token
	return true
}

// returned notes how the handler came back.
func (a *attempt) returned(e ending) { a.ghost.returned, a.ghost.ending = true, e }

// hearGhost notes what the store held when it answered.
func (a *attempt) hearGhost(c *call) {
	g := &a.ghost
	g.hasSeen, g.lastOK = true, false
	if c.done && c.err != errReset && c.err != errSilent && c.err != errOutage {
		g.heardOK, g.lastOK = true, true
		g.seen = c.truth
		g.damaged = c.err == semel.ErrDamaged
	}
}

// ended judges the end of an attempt without a grant: unless it says that the
// store or the record cannot be read, nothing of it may be left behind.
func (a *attempt) ended(err error) {
	if err != nil || a.ghost.damaged {
		return
	}
	a.ghost.over = true
	t := &a.key.truth
	if x := t.find(a.ghost.seen.Record.Version); x != nil && x.era != t.era() {
		return // the record it was refused by was swept, and its request landed once more
	}
	if held := &a.w.store.held[a.key.slot]; t.holder == a && held.State == semel.Pending {
		a.w.fail("L1", "key %d: an attempt gave up and left its claim behind", a.key.number)
	}
}

// disowned judges the end of taking a claim back: if the store showed it, it may
// not be there any more.
func (a *attempt) disowned() {
	g, held := &a.ghost, &a.w.store.held[a.key.slot]
	if a.key.truth.holder == a && held.State == semel.Pending && g.lastOK && !g.damaged && g.seen.Record.Version == held.Version {
		a.w.fail("L1", "key %d: a claim that was given up was seen and left behind", a.key.number)
	}
}

// leaseRuns tells whether the record is pending within its lease.
func (w *world) leaseRuns(k *key) bool {
	r := &w.store.held[k.slot]
	return r.State == semel.Pending && w.store.clock().Before(r.Expires())
}

// grace is the longest lease of the world.
func (w *world) grace() int64 {
	longest := time.Duration(0)
	for _, k := range w.keys {
		longest = max(longest, k.policy.Lease)
	}
	return int64(longest)
}
