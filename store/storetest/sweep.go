package storetest

import (
	"fmt"
	"math"
	"time"

	"github.com/semelhq/semel"
)

// sweepChecks: only what is finished and past its TTL is forgotten
// (INVARIANTS X4, X7).
func sweepChecks() []check {
	checks := []check{
		{"of nothing", 0, func(e *env) { e.sweep(100, 0) }},
		{"takes a done record past its TTL", 0, func(e *env) { sweepTakes(e, e.complete) }},
		{"takes a released record past its TTL", 0, func(e *env) { sweepTakes(e, e.released) }},
		{"takes a done record after a lifetime", 0, sweepAfterLifetime},
		{"leaves a done record before its TTL", 0, func(e *env) { sweepLeaves(e, e.complete) }},
		{"leaves a released record before its TTL", 0, func(e *env) { sweepLeaves(e, e.released) }},
		{"leaves a pending record within its lease", 0, func(e *env) { sweepLeaves(e, e.renewed) }},
		{"leaves a record of 292 years", 0, sweepLeavesLongest},
		{"hits the instant", 0, sweepInstant},
		{"goes by the newest write: a longer TTL", 0, sweepExtended},
		{"goes by the newest write: a shorter TTL", 0, sweepShortened},
		{"goes by the newest write: claimed again", 0, sweepReclaimed},
		{"goes by the store's clock, not the caller's", 0, sweepCallersClock},
		{"takes at most the limit", 0, sweepLimit},
		{"drains in several turns", 0, sweepDrains},
		{"twice is harmless", 0, sweepTwice},
		{"leaves the others as they are", 0, sweepLeavesOthers},
		{"gives the key free", 0, sweepFrees},
		{"a swap over a swept record conflicts with nothing", 0, sweepThenSwap},
	}
	for c := semel.AtMostOnce; c <= semel.Transactional; c++ {
		checks = append(checks, check{"never takes a pending record: " + c.String(), 0, func(e *env) { sweepPending(e, c) }})
	}
	for i := range checks {
		checks[i].needs |= Sweeps
	}
	return checks
}

// sweep sweeps and checks how many records went.
func (e *env) sweep(limit, want int) {
	e.Helper()
	s, ok := semel.As[semel.Sweeper](e.store)
	if !ok {
		e.Fatal("the store is no Sweeper")
	}
	got, err := s.Sweep(e.ctx, limit)
	if err != nil {
		e.Fatalf("Sweep: %v", err)
	}
	if got != want {
		e.Fatalf("Sweep with limit %d took %d records, want %d", limit, got, want)
	}
}

// expiredMany inserts n records that Sweep may take.
func (e *env) expiredMany(n int) []semel.Record {
	e.Helper()
	out := make([]semel.Record, n)
	for i := range out {
		out[i] = e.insert(expired(e.complete(e.pending(fmt.Sprint("expired ", i)))))
	}
	return out
}

// left counts how many of the records are still held.
func (e *env) left(records []semel.Record) int {
	e.Helper()
	n := 0
	for _, r := range records {
		if got := e.get(r.Digest).Record; got.Held() {
			n++
		}
	}
	return n
}

func sweepTakes(e *env, end func(semel.Record) semel.Record) {
	e.Helper()
	next := end(e.insert(e.pending("k")))
	next.TTL = e.maker.short()
	r := e.over(next)
	e.pass(next.TTL + coarsest)
	e.sweep(100, 1)
	e.digestHolds(r.Digest, semel.Record{})
	zero := e.insert(expired(end(e.pending("k"))))
	e.sweep(100, 1)
	e.digestHolds(zero.Digest, semel.Record{})
}

func sweepAfterLifetime(e *env) {
	e.movable()
	r := e.over(e.complete(e.insert(e.pending("k"))).Tombstone())
	e.clock.move(r.TTL - time.Second)
	e.sweep(100, 0)
	e.holds(r)
	e.clock.move(2 * time.Second)
	e.sweep(100, 1)
	e.digestHolds(r.Digest, semel.Record{})
}

func sweepLeaves(e *env, change func(semel.Record) semel.Record) {
	e.Helper()
	r := e.over(change(e.insert(e.pending("k"))))
	e.sweep(100, 0)
	e.holds(r)
}

func sweepPending(e *env, c semel.Class) {
	e.Helper()
	a, b := e.pending("a"), expired(e.pending("b"))
	a.Class, b.Class, a.TTL = c, c, e.maker.short()
	a, b = e.insert(a), e.insert(b)
	e.pass(a.TTL + coarsest)
	if !e.maker.RealTime {
		e.clock.move(10 * 365 * 24 * time.Hour)
	}
	e.sweep(100, 0)
	e.holds(a)
	e.holds(b)
}

// WrittenAt plus this TTL is beyond what 64 bits of nanoseconds since 1970 hold.
func sweepLeavesLongest(e *env) {
	next := e.complete(e.pending("k"))
	next.TTL = math.MaxInt64
	r := e.insert(next)
	e.sweep(100, 0)
	e.holds(r)
}

func sweepInstant(e *env) {
	e.movable()
	r := e.over(e.complete(e.insert(e.pending("k"))).Tombstone())
	e.clock.move(r.TTL - 2*coarsest)
	e.sweep(100, 0)
	e.holds(r)
	e.clock.move(4 * coarsest)
	e.sweep(100, 1)
}

func sweepExtended(e *env) {
	next := e.complete(e.pending("k"))
	next.TTL = e.maker.short()
	r := e.insert(next)
	next = e.complete(r)
	next.TTL = time.Hour
	r = e.over(next)
	e.pass(e.maker.short() + coarsest)
	e.sweep(100, 0)
	e.holds(r)
}

func sweepShortened(e *env) {
	r := e.insert(e.complete(e.pending("k")))
	r = e.over(expired(e.complete(r)))
	e.sweep(100, 1)
	e.digestHolds(r.Digest, semel.Record{})
}

func sweepReclaimed(e *env) {
	r := e.insert(expired(e.released(e.pending("k"))))
	r = e.swap(r.Version, expired(e.heir(r)))
	e.sweep(100, 0)
	e.holds(r)
}

func sweepCallersClock(e *env) {
	next := e.complete(e.pending("k"))
	next.WrittenAt = e.now().AddDate(-50, 0, 0)
	r := e.insert(next)
	past := expired(e.complete(e.pending("past")))
	past.WrittenAt = e.now().AddDate(50, 0, 0)
	e.insert(past)
	e.sweep(100, 1)
	e.holds(r)
}

func sweepLimit(e *env) {
	all := e.expiredMany(7)
	e.sweep(0, 0)
	e.sweep(3, 3)
	if n := e.left(all); n != 4 {
		e.Fatalf("%d of 7 are left after a sweep with limit 3, want 4", n)
	}
	e.sweep(4, 4)
	if n := e.left(all); n != 0 {
		e.Fatalf("%d of 7 are left after sweeps with limits 3 and 4", n)
	}
}

func sweepDrains(e *env) {
	all := e.expiredMany(25)
	e.sweep(10, 10)
	e.sweep(10, 10)
	e.sweep(10, 5)
	e.sweep(10, 0)
	if n := e.left(all); n != 0 {
		e.Fatalf("%d of 25 are left", n)
	}
}

func sweepTwice(e *env) {
	kept := e.over(e.complete(e.insert(e.pending("kept"))))
	e.expiredMany(3)
	e.sweep(100, 3)
	e.sweep(100, 0)
	e.holds(kept)
}

func sweepLeavesOthers(e *env) {
	doubt, lease := e.insert(expired(e.pending("in doubt"))), e.insert(e.pending("lease"))
	done, free := e.insert(e.complete(e.pending("done"))), e.insert(e.released(e.pending("free")))
	e.expiredMany(5)
	e.sweep(100, 5)
	for _, r := range []semel.Record{doubt, lease, done, free} {
		e.holds(r)
		e.refuse(semel.Version{}, e.heir(r), r)
	}
}

func sweepFrees(e *env) {
	r := e.expiredMany(1)[0]
	e.refuse(semel.Version{}, e.heir(r), r)
	e.sweep(100, 1)
	e.holds(e.insert(e.heir(r)))
}

func sweepThenSwap(e *env) {
	r := e.expiredMany(1)[0]
	e.sweep(100, 1)
	e.refuse(r.Version, e.heir(r), semel.Record{})
}

// tombstoneChecks: a sweep drops results that cannot be replayed any more, and
// nothing else of their records (INVARIANTS X3).
func tombstoneChecks() []check {
	checks := []check{
		{"of a done record past its replay", 0, func(e *env) { tombstoneOf(e, "receipt") }},
		{"not before the replay ends", 0, func(e *env) { sweepLeaves(e, e.complete) }},
		{"at the instant", 0, tombstoneInstant},
		{"of an empty result", 0, func(e *env) { tombstoneOf(e, "") }},
		{"of a large result", 0, func(e *env) { tombstoneOf(e, string(noise(300_000))) }},
		{"not where no result was kept", 0, tombstoneOfNone},
		{"not of what is pending or released", 0, tombstoneOfOthers},
		{"counts for the limit", 0, tombstoneLimit},
		{"is forgotten when its time comes", 0, tombstoneForgotten},
		{"a record past both is forgotten", 0, tombstoneOfExpired},
		{"can be written over", 0, tombstoneOver},
		{"is listed", Lists, tombstoneListed},
		{"leaves the journal alone", Journals, tombstoneJournal},
		{"survives", Durable, tombstoneReopened},
		{"another store sees it", Shared, tombstoneShared},
	}
	for i := range checks {
		checks[i].needs |= Sweeps
	}
	return checks
}

// spent is a finished record whose result cannot be replayed any more.
func (e *env) spent(id, result string) semel.Record {
	e.Helper()
	next := e.done(e.insert(e.pending(id)), result)
	next.Replay = e.maker.short()
	r := e.over(next)
	e.pass(next.Replay + coarsest)
	return r
}

func tombstoneOf(e *env, result string) {
	e.Helper()
	r := e.spent("k", result)
	e.holds(r)
	e.sweep(100, 1)
	e.holds(r.Tombstone())
	e.sweep(100, 0)
	e.refuse(semel.Version{}, e.heir(r), r.Tombstone())
}

func tombstoneInstant(e *env) {
	e.movable()
	r := e.over(e.complete(e.insert(e.pending("k"))))
	e.clock.move(r.Replay - 2*coarsest)
	e.sweep(100, 0)
	e.holds(r)
	e.clock.move(4 * coarsest)
	e.sweep(100, 1)
	e.holds(r.Tombstone())
}

func tombstoneOfNone(e *env) {
	next := e.complete(e.insert(e.pending("k")))
	next.Result, next.Replay = nil, 0
	r := e.over(next)
	e.sweep(100, 0)
	e.holds(r)
}

func tombstoneOfOthers(e *env) {
	memo, free := e.pending("memo"), e.released(e.pending("free"))
	memo.Result, memo.Replay, free.Replay = []byte("memo"), e.maker.short(), e.maker.short()
	memo, free = e.insert(memo), e.insert(free)
	e.pass(e.maker.short() + coarsest)
	e.sweep(100, 0)
	e.holds(memo)
	e.holds(free)
}

func tombstoneLimit(e *env) {
	e.spent("a", "receipt")
	e.spent("b", "receipt")
	e.spent("c", "receipt")
	e.expiredMany(2)
	e.sweep(4, 4)
	e.sweep(4, 1)
	e.sweep(4, 0)
}

func tombstoneForgotten(e *env) {
	next := e.complete(e.insert(e.pending("k")))
	next.Replay, next.TTL = e.maker.short(), 3*e.maker.short()
	r := e.over(next)
	e.pass(next.Replay + coarsest)
	if !e.maker.RealTime { // else the rest may be over as well
		e.sweep(100, 1)
		e.holds(r.Tombstone())
	}
	e.pass(next.TTL)
	e.sweep(100, 1)
	e.digestHolds(r.Digest, semel.Record{})
	e.holds(e.insert(e.heir(r)))
}

func tombstoneOfExpired(e *env) {
	next := expired(e.complete(e.insert(e.pending("k"))))
	next.Replay = 1
	r := e.over(next)
	e.pass(coarsest)
	e.sweep(100, 1)
	e.digestHolds(r.Digest, semel.Record{})
}

func tombstoneOver(e *env) {
	r := e.spent("k", "receipt")
	e.sweep(100, 1)
	again := e.swap(r.Version, e.complete(r))
	e.sweep(100, 0)
	e.holds(again)
}

func tombstoneListed(e *env) {
	r := e.spent("k", "receipt")
	e.sweep(100, 1)
	e.lists(semel.Filter{State: semel.Done}, r.Tombstone())
}

func tombstoneJournal(e *env) {
	claim := e.insert(e.pending("k"))
	next := e.complete(claim)
	next.Replay = e.maker.short()
	r := e.over(next)
	e.pass(next.Replay + coarsest)
	e.sweep(100, 1)
	e.history(claim, r)
}

func tombstoneReopened(e *env) {
	r := e.spent("k", "receipt")
	e.sweep(100, 1)
	e.reopen()
	e.holds(r.Tombstone())
	e.sweep(100, 0)
	e.refuse(semel.Version{}, e.heir(r), r.Tombstone())
}

func tombstoneShared(e *env) {
	var all []semel.Record
	for i := range 3 {
		all = append(all, e.spent(fmt.Sprint("k", i), "receipt"))
	}
	other := e.second()
	for _, r := range all {
		other.holds(r)
	}
	e.sweep(100, 3)
	for _, r := range all {
		other.holds(r.Tombstone())
	}
	other.sweep(100, 0)
}
