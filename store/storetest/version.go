package storetest

import (
	"fmt"

	"github.com/semelhq/semel"
)

// versionChecks: versions grow and are never used again (INVARIANTS S2), so
// that only the current token writes (S3).
func versionChecks() []check {
	return []check{
		{"grows over claim, renewal, completion", 0, versionGrowsToDone},
		{"grows over release and another claim", 0, versionGrowsOverRelease},
		{"grows over a takeover", 0, versionGrowsOverTakeover},
		{"grows over tombstones", 0, versionGrowsOverTombstone},
		{"grows over 100 writes", 0, versionGrowsLong},
		{"grows after a done record was forgotten", 0, func(e *env) { versionNotReused(e, e.complete) }},
		{"grows after a released record was forgotten", 0, func(e *env) { versionNotReused(e, e.released) }},
		{"grows over ten lives of a key", 0, versionGrowsOverLives},
		{"grows while other keys come and go", 0, versionGrowsAmongOthers},
		{"a conflict does not use one up twice", 0, versionAfterConflict},
		{"a dead owner cannot complete its heir's claim", 0, func(e *env) { deadOwner(e, e.complete) }},
		{"a dead owner cannot release its heir's claim", 0, func(e *env) { deadOwner(e, e.released) }},
		{"a dead owner cannot renew its heir's claim", 0, func(e *env) { deadOwner(e, e.renewed) }},
		{"a dead owner cannot complete before its heir comes", 0, deadOwnerBeforeHeir},
		{"a dead owner cannot touch its heir's result", 0, deadOwnerAfterHeir},
		{"only the current token completes", 0, func(e *env) { oldToken(e, e.complete) }},
		{"only the current token releases", 0, func(e *env) { oldToken(e, e.released) }},
		{"only the current token renews", 0, func(e *env) { oldToken(e, e.renewed) }},
		{"a renewal makes the token before it old", 0, renewalOutdates},
		{"a finished claim's token is old", 0, finishedToken},
	}
}

func versionGrowsToDone(e *env) {
	r := e.insert(e.pending("k"))
	r = e.over(e.renewed(r))
	r = e.over(e.renewed(r))
	e.holds(e.over(e.done(r, "receipt")))
}

func versionGrowsOverRelease(e *env) {
	r := e.insert(e.pending("k"))
	for range 5 {
		r = e.over(e.released(r))
		r = e.swap(r.Version, e.heir(r))
	}
	e.holds(r)
}

func versionGrowsOverTakeover(e *env) {
	first := e.pending("k")
	first.Class, first.TTL = semel.AtLeastOnce, 0
	r := e.insert(first)
	for range 5 {
		r = e.swap(r.Version, e.heir(r))
	}
	e.holds(r)
}

func versionGrowsOverTombstone(e *env) {
	r := e.over(e.done(e.insert(e.pending("k")), "receipt"))
	r.Result, r.Replay, r.Nonce = nil, 0, e.nonce()
	r = e.over(r)
	r.Nonce = e.nonce()
	e.holds(e.over(r))
}

func versionGrowsLong(e *env) {
	r := e.insert(e.pending("k"))
	for range 99 {
		r = e.over(e.renewed(r))
	}
	e.holds(r)
}

// versionNotReused has a record end as end says, be forgotten, and come again.
func versionNotReused(e *env, end func(semel.Record) semel.Record) {
	e.Helper()
	r := e.insert(e.pending("k"))
	r = e.over(e.renewed(r))
	last := e.forget(end(r))
	again := e.insert(e.pending("k"))
	if again.Version.Compare(last.Version) <= 0 {
		e.Fatalf("the key was forgotten at version %v and came again at %v: it must be greater", last.Version, again.Version)
	}
	e.holds(again)
}

func versionGrowsOverLives(e *env) {
	var last semel.Record
	for life := range 10 {
		r := e.insert(e.pending("k"))
		if r.Version.Compare(last.Version) <= 0 {
			e.Fatalf("life %d begins at version %v, the one before ended at %v", life, r.Version, last.Version)
		}
		last = e.forget(e.done(r, fmt.Sprint("life ", life)))
	}
}

func versionGrowsAmongOthers(e *env) {
	last := e.forget(e.done(e.insert(e.pending("k")), "receipt"))
	for i := range 5 {
		e.forget(e.done(e.insert(e.pending(fmt.Sprint("other ", i))), "receipt"))
	}
	again := e.insert(e.pending("k"))
	if again.Version.Compare(last.Version) <= 0 {
		e.Fatalf("forgotten at version %v, came again at %v", last.Version, again.Version)
	}
}

func versionAfterConflict(e *env) {
	first := e.insert(e.pending("k"))
	for range 3 {
		e.refuse(semel.Version{}, e.pending("k"), first)
	}
	second := e.over(e.renewed(first))
	e.refuse(first.Version, e.renewed(first), second)
	e.holds(e.over(e.renewed(second)))
}

// deadOwner: an owner claims, its record ends and is forgotten, an heir claims
// the key anew; then the owner wakes and writes with the token that it had.
func deadOwner(e *env, write func(semel.Record) semel.Record) {
	e.Helper()
	owner := e.insert(e.pending("k"))
	e.forget(e.released(owner))
	heir := e.insert(e.heir(owner))
	e.refuse(owner.Version, write(owner), heir)
	e.holds(e.over(e.done(heir, "the heir's receipt")))
}

func deadOwnerBeforeHeir(e *env) {
	owner := e.insert(e.pending("k"))
	e.forget(e.released(owner))
	e.refuse(owner.Version, e.done(owner, "too late"), semel.Record{})
	e.insert(e.heir(owner))
}

func deadOwnerAfterHeir(e *env) {
	owner := e.insert(e.pending("k"))
	last := e.forget(e.released(owner))
	heir := e.over(e.done(e.insert(e.heir(owner)), "the heir's receipt"))
	e.refuse(owner.Version, e.done(owner, "too late"), heir)
	e.refuse(last.Version, e.done(owner, "too late"), heir)
}

// oldToken: an owner is taken over and writes with its token.
func oldToken(e *env, write func(semel.Record) semel.Record) {
	e.Helper()
	owner := e.insert(expired(e.pending("k")))
	heir := e.swap(owner.Version, e.heir(owner))
	e.refuse(owner.Version, write(owner), heir)
	done := e.over(e.done(heir, "the heir's receipt"))
	e.refuse(owner.Version, write(owner), done)
	e.refuse(heir.Version, write(heir), done)
}

func renewalOutdates(e *env) {
	first := e.insert(e.pending("k"))
	second := e.over(e.renewed(first))
	e.refuse(first.Version, e.done(first, "receipt"), second)
	e.holds(e.over(e.done(second, "receipt")))
}

func finishedToken(e *env) {
	claim := e.insert(e.pending("k"))
	done := e.over(e.done(claim, "receipt"))
	e.refuse(claim.Version, e.done(claim, "another receipt"), done)
	e.refuse(claim.Version, e.released(claim), done)
	e.refuse(claim.Version, e.renewed(claim), done)
}
