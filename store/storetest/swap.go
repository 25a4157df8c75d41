package storetest

import (
	"fmt"
	"math"
	"time"

	"github.com/semelhq/semel"
)

// getChecks: reading.
func getChecks() []check {
	return []check{
		{"of nothing is no error", 0, getNothing},
		{"of nothing has the clock", 0, func(e *env) { e.now() }},
		{"of nothing writes nothing", 0, getWritesNothing},
		{"gives what was inserted", 0, func(e *env) { e.holds(e.insert(e.pending("k"))) }},
		{"gives the same twice", 0, getTwice},
		{"gives a pending record whose lease has ended", 0, getPendingPastLease},
		{"gives its own copy of the record", 0, getOwnCopy},
	}
}

func getNothing(e *env) {
	e.insert(e.pending("neighbour"))
	e.digestHolds(e.pending("k").Digest, semel.Record{})
}

func getWritesNothing(e *env) {
	next := e.pending("k")
	for range 3 {
		e.digestHolds(next.Digest, semel.Record{})
	}
	e.insert(next)
}

func getTwice(e *env) {
	want := e.over(e.done(e.insert(e.pending("k")), "receipt"))
	for range 3 {
		e.holds(want)
	}
}

// A pending record must never be lost, however long ago its lease ended: it is
// what says that the outcome is unknown.
func getPendingPastLease(e *env) {
	next := e.pending("k")
	next.TTL = e.maker.short()
	want := e.insert(next)
	e.pass(2 * next.TTL)
	if !e.maker.RealTime {
		e.clock.move(10 * 365 * 24 * time.Hour)
	}
	e.holds(want)
	e.refuse(semel.Version{}, e.pending("k"), want)
	e.holds(e.over(e.done(want, "settled at last")))
}

func getOwnCopy(e *env) {
	want := e.over(e.done(e.insert(e.pending("k")), "receipt"))
	r := e.get(want.Digest)
	r.Record.State, r.Record.Result, r.Record.Key.ID = semel.Released, nil, "changed"
	e.holds(want)
}

// insertChecks: the zero version is an insert.
func insertChecks() []check {
	return []check{
		{"of a claim", 0, func(e *env) { e.holds(e.insert(e.pending("k"))) }},
		{"of a done record", 0, func(e *env) { e.holds(e.insert(e.done(e.pending("k"), "receipt"))) }},
		{"of a released record", 0, func(e *env) { e.holds(e.insert(e.released(e.pending("k")))) }},
		{"over a claim conflicts", 0, func(e *env) { insertOver(e, e.pending("k")) }},
		{"over a claim past its lease conflicts", 0, func(e *env) { insertOver(e, expired(e.pending("k"))) }},
		{"over a done record conflicts", 0, func(e *env) { insertOver(e, e.done(e.pending("k"), "receipt")) }},
		{"over a released record conflicts", 0, func(e *env) { insertOver(e, e.released(e.pending("k"))) }},
		{"over a tombstone conflicts", 0, func(e *env) { insertOver(e, e.done(e.pending("k"), "")) }},
		{"of the very same record conflicts", 0, insertTwice},
		{"with another fingerprint conflicts", 0, insertOtherFingerprint},
		{"with the key withheld conflicts as well", 0, insertWithheld},
		{"ignores the version that the caller fills in", 0, insertIgnoresVersion},
		{"does not keep the caller's record", 0, insertOwnCopy},
		{"of 100 keys keeps them apart", 0, insertMany},
	}
}

// insertOver checks that an insert over held conflicts, brings held and leaves it.
func insertOver(e *env, first semel.Record) {
	e.Helper()
	held := e.insert(first)
	e.refuse(semel.Version{}, e.heir(held), held)
	e.refuse(semel.Version{}, e.done(held, "another"), held)
}

func insertTwice(e *env) {
	next := e.pending("k")
	held := e.insert(next)
	e.refuse(semel.Version{}, next, held)
}

func insertOtherFingerprint(e *env) {
	held := e.insert(e.pending("k"))
	next := e.heir(held)
	next.Fingerprint = semel.FingerprintOf([]byte("another payload"))
	e.refuse(semel.Version{}, next, held)
}

func insertWithheld(e *env) {
	first := e.pending("k")
	first.Key = semel.Key{}
	held := e.insert(first)
	e.refuse(semel.Version{}, e.pending("k"), held)
}

func insertIgnoresVersion(e *env) {
	for id, v := range map[string]semel.Version{
		"a": {Epoch: 1 << 40, Counter: 1 << 40}, "b": {Epoch: math.MaxUint64, Counter: math.MaxUint64}, "c": {Counter: 1},
	} {
		next := e.pending(id)
		next.Version = v
		r := e.insert(next)
		if r.Version == v && v.Counter > 1 {
			e.Fatalf("the record was stored under the caller's version %v", v)
		}
		e.holds(r)
	}
}

func insertOwnCopy(e *env) {
	next := e.pending("k")
	want := e.insert(next)
	next.State, next.Owner, next.Key.ID = semel.Done, "changed", "changed"
	e.holds(want)
}

func insertMany(e *env) {
	var all []semel.Record
	for i := range 100 {
		r := e.pending(string(rune('A' + i)))
		r.Attempt = i + 1
		all = append(all, e.insert(r))
	}
	for _, want := range all {
		e.holds(want)
	}
}

// swapChecks: a swap writes if the version held is the one it names, and does
// nothing otherwise.
func swapChecks() []check {
	checks := []check{
		{"replaces every field", 0, swapReplacesAll},
		{"drops the fields that are empty now", 0, swapEmpties},
		{"leaves other keys alone", 0, swapLeavesOthers},
		{"ignores the version that the caller fills in", 0, swapIgnoresVersion},
		{"a version that is held by another key conflicts", 0, swapOtherKeysVersion},
		{"over nothing held conflicts", 0, swapOverNothing},
		{"over nothing held writes nothing, whatever the state", 0, swapOverNothingWritesNothing},
		{"conflicts do not add up to a write", 0, swapConflictsRepeated},
		{"a conflict brings a large result whole", 0, swapConflictLarge},
	}
	for _, w := range wrongVersions() {
		checks = append(checks, check{"over " + w.name + " conflicts", 0, func(e *env) { swapWrong(e, w.wrong) }})
	}
	states := [...]semel.State{semel.Pending, semel.Done, semel.Released}
	for _, from := range states {
		for _, to := range states {
			name := fmt.Sprintf("from %v to %v", from, to)
			checks = append(checks, check{name, 0, func(e *env) { swapStates(e, from, to) }})
		}
	}
	return checks
}

type wrongVersion struct {
	name  string
	wrong func(held semel.Version) semel.Version
}

// wrongVersions gives versions that are not the one held.
func wrongVersions() []wrongVersion {
	type version = semel.Version
	return []wrongVersion{
		{"the next version", func(v version) version { v.Counter++; return v }},
		{"the version before", func(v version) version { v.Counter--; return v }},
		{"the zero version", func(version) version { return version{} }},
		{"the next epoch", func(v version) version { v.Epoch++; return v }},
		{"a later epoch, the counter equal", func(v version) version { v.Epoch += 7; return v }},
		{"a counter 32 bits higher", func(v version) version { v.Counter += 1 << 32; return v }},
		{"epoch and counter exchanged", func(v version) version { return version{Epoch: v.Counter + 1, Counter: v.Epoch} }},
		{"the greatest version", func(version) version { return version{Epoch: math.MaxUint64, Counter: math.MaxUint64} }},
		{"a counter above the signed numbers", func(v version) version { v.Counter |= 1 << 63; return v }},
		{"an epoch above the signed numbers", func(v version) version { v.Epoch |= 1 << 63; return v }},
		{"a counter above 53 bits", func(v version) version { v.Counter |= 1 << 60; return v }},
	}
}

func swapWrong(e *env, wrong func(semel.Version) semel.Version) {
	held := e.over(e.renewed(e.insert(e.pending("k"))))
	v := wrong(held.Version)
	if v == held.Version {
		e.Fatalf("the case is wrong: %v is held", v)
	}
	e.refuse(v, e.done(held, "receipt"), held)
	e.holds(e.over(e.done(held, "receipt")))
}

func swapStates(e *env, from, to semel.State) {
	first := e.done(e.pending("k"), "first")
	first.State = from
	r := e.insert(first)
	next := e.done(r, "second")
	next.State = to
	e.holds(e.over(next))
}

func swapReplacesAll(e *env) {
	e.insert(e.pending("neighbour"))
	r := e.over(e.done(e.insert(e.pending("k")), "first"))
	next := semel.Record{
		Digest: r.Digest, Fingerprint: semel.FingerprintOf([]byte("other")), State: semel.Released,
		Class: semel.Transactional, Nonce: e.nonce(), Attempt: 77, Code: 418, Result: []byte("second"),
		TTL: 200*time.Hour + 11, Replay: 7, Key: semel.Key{Scope: "other scope", ID: "other id"}, Owner: "other owner",
	}
	e.holds(e.swap(r.Version, next))
}

func swapEmpties(e *env) {
	r := e.over(e.done(e.insert(e.pending("k")), "first"))
	next := semel.Record{Digest: r.Digest, State: semel.Pending}
	e.holds(e.swap(r.Version, next))
}

func swapLeavesOthers(e *env) {
	a, b, c := e.insert(e.pending("a")), e.insert(e.pending("b")), e.insert(e.pending("c"))
	b = e.over(e.done(b, "receipt"))
	e.refuse(semel.Version{}, e.pending("a"), a)
	e.holds(a)
	e.holds(b)
	e.holds(c)
}

func swapIgnoresVersion(e *env) {
	r := e.insert(e.pending("k"))
	for _, v := range []semel.Version{{}, {Epoch: 1 << 40, Counter: 1 << 40}, {Epoch: math.MaxUint64, Counter: math.MaxUint64}} {
		next := e.renewed(r)
		next.Version = v
		old := r
		r = e.swap(old.Version, next)
		if r.Version == v {
			e.Fatalf("the record was stored under the caller's version %v", v)
		}
	}
	e.holds(r)
}

func swapOtherKeysVersion(e *env) {
	a := e.insert(e.pending("a"))
	b := e.insert(e.pending("b"))
	for range 3 {
		a = e.over(e.renewed(a))
	}
	if a.Version != b.Version {
		e.refuse(a.Version, e.done(b, "receipt"), b)
	}
	e.refuse(a.Version, e.pending("c"), semel.Record{})
}

func swapOverNothing(e *env) {
	e.insert(e.pending("neighbour"))
	for _, v := range []semel.Version{{Counter: 1}, {Epoch: 1}, {Epoch: 1, Counter: 1}, {Epoch: math.MaxUint64, Counter: math.MaxUint64}} {
		e.refuse(v, e.pending("k"), semel.Record{})
	}
	e.insert(e.pending("k"))
}

func swapOverNothingWritesNothing(e *env) {
	p := e.pending("k")
	for _, next := range []semel.Record{p, e.done(p, "receipt"), e.released(p)} {
		e.refuse(semel.Version{Epoch: 1, Counter: 1}, next, semel.Record{})
	}
}

func swapConflictsRepeated(e *env) {
	first := e.insert(e.pending("k"))
	held := e.over(e.renewed(first))
	for range 5 {
		e.refuse(first.Version, e.done(first, "receipt"), held)
	}
}

func swapConflictLarge(e *env) {
	claim := e.insert(e.pending("k"))
	next := e.done(claim, "")
	next.Result = noise(1 << 20)
	held := e.over(next)
	e.refuse(claim.Version, e.done(claim, "another"), held)
}
