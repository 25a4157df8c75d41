package sim

import (
	"bytes"
	"strings"

	"github.com/semelhq/semel"
)

// kind is what a client is told.
type kind uint8

const (
	stored      kind = iota + 1 // a stored answer: definitive
	gone                        // it ran, the answer is not kept: definitive
	unknown                     // nobody knows: definitive, and may be refined once
	notStored                   // a failure that had no effect and is not stored
	inProgress                  // ask again
	unavailable                 // the store cannot be reached, nothing was started
	mismatch                    // another payload
	expired                     // the key's own time is past
	early                       // the key's own time is to come
)

func (k kind) String() string {
	names := [...]string{"", "stored", "gone", "unknown", "not-stored", "in-progress", "unavailable", "mismatch", "expired", "early"}
	return names[k]
}

// answer is what a process tells a client.
type answer struct {
	kind     kind
	code     int
	data     []byte
	version  semel.Version // of the record it is told from, zero if there is none
	own      bool          // told by the attempt that executed
	follower bool          // told to one who waited in a flight
}

// answered judges an answer at the moment it is given.
func (w *world) answered(r *request, a *attempt, ans answer) {
	k := r.key
	if !ans.own && !ans.follower {
		w.payloadRespected(r, a, ans)
	}
	switch ans.kind {
	case stored, gone:
		w.definitive(r, a, ans)
		if !ans.own {
			w.paths[Replays]++
		}
	case unknown:
		w.doubted(k, a, ans)
	case notStored:
		if ans.follower {
			w.paths[SharedFailure]++
		}
		if a.handler.effect || !a.ghost.started || a.ghost.ending.state != semel.Released {
			w.fail("SILENT", "key %d: told as not done although it may have had its effect", k.number)
		}
	case mismatch:
		if a.ghost.seen.Record.State == semel.Pending {
			w.paths[MismatchInFlight]++
		}
		if !k.wide {
			w.fail("S8", "key %d: told that payloads differ although all are equal", k.number)
		}
		if len(ans.data) > 0 || ans.code != 0 {
			w.fail("S8", "key %d: a mismatch was told the stored answer", k.number)
		}
	case expired, early:
		if a.ghost.hasSeen {
			w.fail("X2", "key %d: refused by its own time after the store was asked", k.number)
		}
		w.timeRespected(k, ans)
	}
}

// payloadRespected checks that another payload under the key is told nothing
// but that (S8), also while the first is in flight.
func (w *world) payloadRespected(r *request, a *attempt, ans answer) {
	g := &a.ghost
	held := &g.seen.Record
	if !g.heardOK || g.damaged || !held.Held() || ans.kind == unavailable || ans.kind == notStored {
		return
	}
	if other := held.Fingerprint != fingerprint(r.payload); other != (ans.kind == mismatch) {
		w.fail("S8", "key %d: another payload: %t, and the answer is %v", r.key.number, other, ans.kind)
	}
}

// timeRespected checks that only the store's clock judges a key's own time; two
// minutes are left for estimates of it.
func (w *world) timeRespected(k *key, ans answer) {
	now := w.store.clock()
	age := now.Sub(k.born)
	const slack = 2 * 60 * sec
	if ans.kind == early && int64(age) > slack || ans.kind == expired && int64(age-k.policy.Remember) < -slack {
		w.fail("X5", "key %d: %v although its age is %v", k.number, ans.kind, age)
	}
}

// definitive checks an answer that claims to know what came of the operation.
func (w *world) definitive(r *request, a *attempt, ans answer) {
	k := r.key
	t := &k.truth
	if ans.data != nil && !strings.HasPrefix(string(ans.data), k.label()+" ") {
		w.fail("LEAK", "key %d: got %q", k.number, ans.data)
		return
	}
	x := t.find(ans.version)
	switch {
	case a.ghost.started && (x == nil || x.state != semel.Done):
		w.fail("SILENT", "key %d: told as done while that was not stored", k.number)
		return
	case x == nil || x.state != semel.Done:
		w.fail("SWALLOWED", "key %d: told as done although no result was stored", k.number)
		return
	case len(x.era.starts) == 0:
		w.fail("SWALLOWED", "key %d: told as done although nothing ever ran", k.number)
		return
	case x.era.payload != fingerprint(r.payload):
		w.fail("S8", "key %d: another payload was told the stored answer", k.number)
	case x.era == t.era() && w.store.held[k.slot].Version != ans.version:
		w.fail("LOST", "key %d: told what the store does not hold", k.number)
	case ans.code == 201 && x.era.effects == 0:
		w.fail("LOST", "key %d: told a success without an effect", k.number)
	case ans.code != x.code || ans.kind == stored && x.kept && !bytes.Equal(ans.data, x.data):
		w.fail("FLIP", "key %d: told %d %q, stored is %d %q", k.number, ans.code, ans.data, x.code, x.data)
	}
	e := x.era
	switch {
	case e.told == nil:
		e.told = &told{ans.code, ans.data, ans.version}
		if e.doubted {
			w.paths[Refinements]++
		}
	case e.told.code != ans.code || e.told.data != nil && ans.data != nil && !bytes.Equal(e.told.data, ans.data):
		w.fail("FLIP", "key %d: told %d %q, before that %d %q", k.number, ans.code, ans.data, e.told.code, e.told.data)
	case e.told.data == nil:
		e.told.data = ans.data
	}
}

// doubted checks that "unknown" is told of a lease that has ended by the
// store's clock, and never after an answer was.
func (w *world) doubted(k *key, a *attempt, ans answer) {
	g := &a.ghost
	k.truth.era().doubted = true
	if ans.own || ans.follower || g.damaged {
		return
	}
	w.paths[DoubtTold]++
	if !g.seen.Record.InDoubt(g.seen.Now) {
		w.fail("X5", "key %d: told as unknown while the store held %v", k.number, g.seen.Record.State)
	}
	x := k.truth.find(ans.version)
	if x != nil && x.era.told != nil && x.era.told.version.Compare(ans.version) < 0 {
		w.fail("FLIP", "key %d: unknown again after it was answered", k.number)
	}
}

// reckon looks at everything once more when all is quiet.
func (w *world) reckon() {
	for _, k := range w.keys {
		r := &w.store.held[k.slot]
		e := k.truth.era()
		if k.policy.Class == semel.AtMostOnce && e.effects > 1+e.settled {
			w.fail("DOUBLE", "key %d: %d effects, settled as not done %d times", k.number, e.effects, e.settled)
		}
		if e.told != nil && (r.State != semel.Done || r.Version != e.told.version || r.Code != e.told.code) {
			w.fail("LOST", "key %d: was told %d, and the store holds %v %d", k.number, e.told.code, r.State, r.Code)
		}
		if r.InDoubt(w.store.clock()) || w.leaseRuns(k) {
			w.fail("STUCK", "key %d: pending at the end", k.number)
		}
	}
}

// stuck looks for what should have ended by now.
func (w *world) stuck() {
	for _, k := range w.keys {
		if w.leaseRuns(k) {
			w.fail("STUCK", "key %d: still pending %v after the faults ended", k.number, w.store.clock().Sub(w.store.held[k.slot].WrittenAt))
		}
	}
	for _, r := range w.requests {
		if r.p.life == r.life && !r.told {
			w.fail("STUCK", "key %d: a request was never answered", r.key.number)
		}
	}
	for _, a := range w.attempts {
		if a.alive() && a.stage != over && a.stage != holding {
			w.fail("STUCK", "key %d: an attempt never ends, stage %d", a.key.number, a.stage)
		}
	}
	for _, a := range w.attempts {
		g := &a.ghost
		if !g.returned || g.stored || g.excused || !a.alive() {
			continue
		}
		if last := a.key.truth.newest; last.Compare(a.machine.Record().Version) <= 0 {
			w.fail("LOST", "key %d: attempt %d returned, and its outcome was never stored", a.key.number, a.number)
		}
	}
}
