package storetest

import (
	"errors"
	"fmt"

	"github.com/semelhq/semel"
)

// reopenChecks: what was acknowledged outlives the store that acknowledged it.
func reopenChecks() []check {
	checks := []check{
		{"of nothing", 0, func(e *env) { e.reopen(); e.insert(e.pending("k")) }},
		{"a claim survives", 0, func(e *env) { reopenKeeps(e, e.renewed) }},
		{"a done record survives", 0, func(e *env) { reopenKeeps(e, e.complete) }},
		{"a released record survives", 0, func(e *env) { reopenKeeps(e, e.released) }},
		{"a record in doubt survives", 0, func(e *env) { reopenKeeps(e, expired) }},
		{"every field survives", 0, reopenFields},
		{"a 1 MiB result survives", 0, reopenLarge},
		{"a batch survives", Batches, reopenBatch},
		{"what was swept stays away", Sweeps, reopenSwept},
		{"a version from before still writes", 0, reopenVersion},
		{"versions grow over it", 0, reopenVersionsGrow},
		{"a forgotten key comes again with a greater version", 0, reopenForgotten},
		{"a forgotten newest key does not give its version away", 0, reopenForgottenNewest},
		{"a dead owner cannot complete its heir's claim", 0, reopenDeadOwner},
		{"ten times", 0, reopenTen},
		{"a list is the same", Lists, reopenList},
		{"a sweep goes on", Sweeps, reopenSweep},
	}
	for i := range checks {
		checks[i].needs |= Durable
	}
	return checks
}

func reopenKeeps(e *env, change func(semel.Record) semel.Record) {
	e.Helper()
	r := e.over(change(e.insert(e.pending("k"))))
	e.reopen()
	e.holds(r)
	e.refuse(semel.Version{}, e.heir(r), r)
}

func reopenFields(e *env) {
	var all []semel.Record
	for i, text := range texts() {
		next := e.done(e.pending(fmt.Sprint("k", i)), text.value)
		next.Key, next.Owner = semel.Key{Scope: text.value, ID: text.value}, text.value
		all = append(all, e.insert(next))
	}
	for _, d := range durations() {
		next := e.pending(d.name)
		next.TTL, next.Replay = d.value, d.value
		all = append(all, e.insert(next))
	}
	e.reopen()
	for _, r := range all {
		e.holds(r)
	}
}

func reopenLarge(e *env) {
	next := e.done(e.pending("k"), "")
	next.Result = noise(1 << 20)
	r := e.insert(next)
	e.reopen()
	e.holds(r)
}

func reopenBatch(e *env) {
	written := e.applied(e.claims(200))
	e.reopen()
	for _, r := range written {
		e.holds(r)
	}
}

func reopenSwept(e *env) {
	all := e.expiredMany(5)
	e.sweep(100, 5)
	e.reopen()
	if n := e.left(all); n != 0 {
		e.Fatalf("%d swept records came back", n)
	}
}

func reopenVersion(e *env) {
	r := e.insert(e.pending("k"))
	e.reopen()
	e.holds(e.over(e.complete(r)))
}

func reopenVersionsGrow(e *env) {
	first := e.insert(e.pending("k"))
	e.reopen()
	second := e.over(e.renewed(first))
	e.reopen()
	e.refuse(first.Version, e.complete(first), second)
	e.holds(e.over(e.complete(second)))
}

func reopenForgotten(e *env) {
	e.insert(e.pending("neighbour"))
	last := e.forget(e.complete(e.insert(e.pending("k"))))
	e.insert(e.pending("another neighbour"))
	e.reopen()
	if again := e.insert(e.pending("k")); again.Version.Compare(last.Version) <= 0 {
		e.Fatalf("forgotten at version %v, came again after a restart at %v", last.Version, again.Version)
	}
}

// A store that finds its counter again by the greatest version that it holds
// gives the forgotten one a second time.
func reopenForgottenNewest(e *env) {
	last := e.forget(e.complete(e.insert(e.pending("k"))))
	for range 3 {
		e.reopen()
	}
	if again := e.insert(e.pending("k")); again.Version.Compare(last.Version) <= 0 {
		e.Fatalf("forgotten at version %v, came again after restarts at %v", last.Version, again.Version)
	}
}

func reopenDeadOwner(e *env) {
	owner := e.insert(e.pending("k"))
	e.forget(e.released(owner))
	e.reopen()
	heir := e.insert(e.heir(owner))
	e.refuse(owner.Version, e.complete(owner), heir)
	e.reopen()
	e.refuse(owner.Version, e.complete(owner), heir)
}

func reopenTen(e *env) {
	r := e.insert(e.pending("k"))
	for range 10 {
		e.reopen()
		e.holds(r)
		r = e.over(e.renewed(r))
	}
}

func reopenList(e *env) {
	all := e.mixed()
	e.reopen()
	e.lists(semel.Filter{}, all...)
	e.lists(semel.Filter{InDoubt: true}, all[1], all[2])
}

func reopenSweep(e *env) {
	e.expiredMany(4)
	e.sweep(1, 1)
	e.reopen()
	e.sweep(100, 3)
	e.sweep(100, 0)
}

// sharedChecks: two stores open at one place are one store.
func sharedChecks() []check {
	checks := []check{
		{"a write is seen at once", 0, sharedSees},
		{"a conflict brings the other's record", 0, sharedConflict},
		{"versions grow across both", 0, sharedVersions},
		{"16 inserts of one key through two: one wins", 0, sharedInsert},
		{"increments through two: none is lost", 0, sharedIncrement},
		{"forgotten through one, the key comes again through the other", 0, sharedForget},
		{"a herd at two guards runs once", 0, sharedHerd},
		{"closing one leaves the other at work", 0, sharedClose},
	}
	for i := range checks {
		checks[i].needs |= Shared
	}
	return checks
}

// second opens another store at the place, and gives an env that works with it.
func (e *env) second() *env {
	e.Helper()
	return &env{
		TB: e.TB, maker: e.maker, place: e.place, clock: e.clock, ctx: e.ctx,
		store: e.open(), nonces: 1 << 32,
	}
}

func sharedSees(e *env) {
	other := e.second()
	r := e.insert(e.pending("k"))
	other.holds(r)
	r = other.over(other.complete(r))
	e.holds(r)
}

func sharedConflict(e *env) {
	other := e.second()
	first := e.insert(e.pending("k"))
	other.refuse(semel.Version{}, other.heir(first), first)
	second := other.over(other.renewed(first))
	e.refuse(first.Version, e.complete(first), second)
}

func sharedVersions(e *env) {
	other := e.second()
	r := e.insert(e.pending("k"))
	for range 10 {
		r = other.over(other.renewed(r))
		r = e.over(e.renewed(r))
	}
	other.holds(r)
}

func sharedInsert(e *env) {
	stores := []semel.Store{e.store, e.second().store}
	won := make([]bool, 16)
	next := make([]semel.Record, len(won))
	for i := range next {
		next[i] = e.pending("k")
	}
	e.together(len(won), func(i int) error {
		_, err := stores[i%2].CompareAndSwap(e.ctx, semel.Version{}, next[i])
		won[i] = err == nil
		if errors.Is(err, semel.ErrConflict) {
			return nil
		}
		return err
	})
	wins := 0
	for i := range won {
		if won[i] {
			wins++
			e.recognised(next[i], e.get(next[i].Digest), semel.ErrConflict)
		}
	}
	if wins != 1 {
		e.Fatalf("%d of %d inserts won, want one", wins, len(won))
	}
}

func sharedIncrement(e *env) {
	const each = 10
	other := e.second()
	first := e.pending("k")
	first.Attempt = 0
	first = e.insert(first)
	e.together(4, func(i int) error {
		return []*env{e, other}[i%2].increment(first.Digest, each)
	})
	if got := other.get(first.Digest).Record.Attempt; got != 4*each {
		e.Fatalf("%d increments, the record counts %d", 4*each, got)
	}
}

func sharedForget(e *env) {
	other := e.second()
	owner := e.insert(e.pending("k"))
	last := other.forget(other.released(owner))
	e.digestHolds(owner.Digest, semel.Record{})
	heir := e.insert(e.heir(owner))
	if heir.Version.Compare(last.Version) <= 0 {
		e.Fatalf("forgotten at version %v, came again at %v", last.Version, heir.Version)
	}
	other.refuse(owner.Version, other.complete(owner), heir)
}

func sharedHerd(e *env) {
	e.herd(e.guard(e.store), e.guard(e.second().store))
}

func sharedClose(e *env) {
	other := e.second()
	r := other.insert(other.pending("k"))
	e.closers[len(e.closers)-1]()
	e.holds(e.over(e.complete(r)))
}
