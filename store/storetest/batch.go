package storetest

import (
	"fmt"

	"github.com/semelhq/semel"
)

// batchChecks: many swaps in one call are as the same swaps one after the other.
func batchChecks() []check {
	checks := []check{
		{"of nothing", 0, func(e *env) { e.batch(nil); e.batch([]semel.Swap{}) }},
		{"of one insert", 0, func(e *env) { e.applied(e.claims(1)) }},
		{"of one conflict", 0, batchOneConflict},
		{"of one completion", 0, batchOneCompletion},
		{"answers in the order of the swaps", 0, func(e *env) { e.applied(e.claims(40)) }},
		{"of claims, completions, releases and renewals", 0, batchMixed},
		{"of 1000 inserts", 0, func(e *env) { e.applied(e.claims(1000)) }},
		{"of 1000 inserts of one key: the first wins", 0, batchThousandRivals},
		{"of 64 results of 64 KiB", 0, batchLarge},
		{"two inserts of one key: the first wins", 0, batchTwoInserts},
		{"two swaps over one version: the first wins", 0, batchTwoSwaps},
		{"a swap sees what the swaps before it wrote", 0, batchSeesEarlier},
		{"one key between others", 0, batchKeyBetweenOthers},
		{"a conflict first does not undo what follows", 0, func(e *env) { batchOneBad(e, 0) }},
		{"a conflict in the middle does not undo the others", 0, func(e *env) { batchOneBad(e, 2) }},
		{"a conflict last does not undo what went before", 0, func(e *env) { batchOneBad(e, 4) }},
		{"every other one conflicts", 0, batchAlternating},
		{"stale completions among fresh ones", 0, batchStaleAmong},
		{"all conflict: nothing changes", 0, batchAllConflict},
		{"over nothing held conflicts with nothing", 0, batchOverNothing},
		{"a conflict brings every field", 0, batchConflictWhole},
		{"ignores versions and times that the caller fills in", 0, batchIgnoresCaller},
		{"leaves the caller's slice alone, and does not keep it", 0, batchOwnSlice},
		{"versions grow from batch to batch", 0, batchVersions},
		{"a forgotten key comes again with a greater version", 0, batchAfterForget},
		{"keeps odd keys and results", 0, batchFields},
	}
	for i := range checks {
		checks[i].needs |= Batches
	}
	return checks
}

// batch hands swaps to the store and checks the form of the answer.
func (e *env) batch(swaps []semel.Swap) []semel.Swapped {
	e.Helper()
	b, ok := semel.As[semel.Batcher](e.store)
	if !ok {
		e.Fatal("the store is no Batcher")
	}
	out := b.SwapMany(e.ctx, swaps)
	if len(out) != len(swaps) {
		e.Fatalf("%d answers to %d swaps", len(out), len(swaps))
	}
	return out
}

// applied has swaps written, each of which must succeed.
func (e *env) applied(swaps []semel.Swap) []semel.Record {
	e.Helper()
	return e.judged(swaps, e.batch(swaps), nil)
}

// judged checks the answers to swaps: those that held names must be refused
// because of the record given there, all others must be written.
func (e *env) judged(swaps []semel.Swap, out []semel.Swapped, held map[int]semel.Record) []semel.Record {
	e.Helper()
	var written []semel.Record
	for i, s := range out {
		if h, refused := held[i]; refused {
			e.conflict(swaps[i].Old, s.Reading, s.Err, h)
			continue
		}
		if s.Err != nil {
			e.Fatalf("swap %d of %d: %v; want success", i, len(out), s.Err)
		}
		e.written(swaps[i].Old, swaps[i].Next, s.Reading)
		written = append(written, s.Reading.Record)
	}
	last := map[semel.Digest]semel.Record{}
	for _, r := range written {
		last[r.Digest] = r
	}
	for _, r := range last {
		e.holds(r)
	}
	return written
}

func batchOneConflict(e *env) {
	held := e.insert(e.pending("k"))
	swaps := []semel.Swap{{Next: e.heir(held)}}
	e.judged(swaps, e.batch(swaps), map[int]semel.Record{0: held})
	e.holds(held)
}

func batchOneCompletion(e *env) {
	held := e.insert(e.pending("k"))
	written := e.applied([]semel.Swap{{Old: held.Version, Next: e.complete(held)}})
	e.holds(written[0])
}

func batchMixed(e *env) {
	a, b, c := e.insert(e.pending("a")), e.insert(e.pending("b")), e.insert(e.pending("c"))
	written := e.applied([]semel.Swap{
		{Old: b.Version, Next: e.released(b)},
		{Next: e.pending("d")},
		{Old: a.Version, Next: e.complete(a)},
		{Old: c.Version, Next: e.renewed(c)},
	})
	for _, r := range written {
		e.holds(r)
	}
}

func batchThousandRivals(e *env) {
	swaps := make([]semel.Swap, 1000)
	for i := range swaps {
		swaps[i].Next = e.pending("k")
		swaps[i].Next.Attempt = i + 1
	}
	out := e.batch(swaps)
	if out[0].Err != nil {
		e.Fatalf("the first of 1000: %v", out[0].Err)
	}
	winner := out[0].Reading.Record
	for i, s := range out[1:] {
		e.conflict(semel.Version{}, s.Reading, s.Err, winner)
		if i%100 == 0 {
			e.holds(winner)
		}
	}
}

func batchLarge(e *env) {
	swaps := e.claims(64)
	for i := range swaps {
		swaps[i].Next = e.done(swaps[i].Next, "")
		swaps[i].Next.Result = noise(64<<10 + i)
	}
	e.applied(swaps)
}

func batchTwoInserts(e *env) {
	swaps := []semel.Swap{{Next: e.pending("k")}, {Next: e.pending("k")}}
	out := e.batch(swaps)
	e.judged(swaps, out, map[int]semel.Record{1: out[0].Reading.Record})
	e.holds(out[0].Reading.Record)
}

func batchTwoSwaps(e *env) {
	held := e.insert(e.pending("k"))
	swaps := []semel.Swap{
		{Old: held.Version, Next: e.released(held)},
		{Old: held.Version, Next: e.complete(held)},
	}
	out := e.batch(swaps)
	e.judged(swaps, out, map[int]semel.Record{1: out[0].Reading.Record})
	e.holds(out[0].Reading.Record)
}

// A completion, then an insert that must meet it, then a stale renewal.
func batchSeesEarlier(e *env) {
	held := e.insert(e.pending("k"))
	swaps := []semel.Swap{
		{Old: held.Version, Next: e.complete(held)},
		{Next: e.heir(held)},
		{Old: held.Version, Next: e.renewed(held)},
	}
	out := e.batch(swaps)
	done := out[0].Reading.Record
	e.judged(swaps, out, map[int]semel.Record{1: done, 2: done})
	e.holds(done)
}

func batchKeyBetweenOthers(e *env) {
	swaps := e.claims(5)
	swaps[3].Next.Digest = swaps[1].Next.Digest
	out := e.batch(swaps)
	e.judged(swaps, out, map[int]semel.Record{3: out[1].Reading.Record})
}

func batchOneBad(e *env, bad int) {
	e.Helper()
	swaps := e.claims(5)
	held := e.insert(e.renewed(swaps[bad].Next))
	e.judged(swaps, e.batch(swaps), map[int]semel.Record{bad: held})
	e.holds(held)
}

func batchAlternating(e *env) {
	swaps := e.claims(20)
	held := map[int]semel.Record{}
	for i := 0; i < len(swaps); i += 2 {
		held[i] = e.insert(e.renewed(swaps[i].Next))
	}
	if written := e.judged(swaps, e.batch(swaps), held); len(written) != 10 {
		e.Fatalf("%d of 20 were written, want 10", len(written))
	}
}

// batchStaleAmong completes ten keys, every third of which another took over
// meanwhile: each completion stands for itself.
func batchStaleAmong(e *env) {
	var swaps []semel.Swap
	heirs := map[int]semel.Record{}
	for i := range 10 {
		held := e.insert(e.pending(fmt.Sprint("k", i)))
		swaps = append(swaps, semel.Swap{Old: held.Version, Next: e.complete(held)})
		if i%3 == 1 {
			heirs[i] = e.swap(held.Version, e.heir(held))
		}
	}
	e.judged(swaps, e.batch(swaps), heirs)
	for _, heir := range heirs {
		e.holds(heir)
	}
}

func batchAllConflict(e *env) {
	swaps := e.claims(10)
	held := map[int]semel.Record{}
	for i := range swaps {
		held[i] = e.insert(e.renewed(swaps[i].Next))
	}
	e.judged(swaps, e.batch(swaps), held)
	for _, r := range held {
		e.holds(r)
	}
}

func batchOverNothing(e *env) {
	swaps := e.claims(3)
	for i := range swaps {
		swaps[i].Old = semel.Version{Epoch: 1, Counter: uint64(i + 1)}
	}
	e.judged(swaps, e.batch(swaps), map[int]semel.Record{0: {}, 1: {}, 2: {}})
	e.applied([]semel.Swap{{Next: swaps[0].Next}})
}

func batchConflictWhole(e *env) {
	next := e.done(e.pending("k"), "")
	next.Result, next.Class = noise(1<<20), semel.Transactional
	held := e.insert(next)
	swaps := []semel.Swap{{Next: e.pending("other")}, {Next: e.heir(held)}}
	e.judged(swaps, e.batch(swaps), map[int]semel.Record{1: held})
}

func batchIgnoresCaller(e *env) {
	swaps := e.claims(3)
	for i := range swaps {
		swaps[i].Next.Version = semel.Version{Epoch: 1 << 40, Counter: uint64(i)}
		swaps[i].Next.WrittenAt = e.now().AddDate(1, 0, 0)
	}
	for i, r := range e.applied(swaps) {
		if r.Version == swaps[i].Next.Version {
			e.Fatalf("stored under the caller's version %v", r.Version)
		}
	}
}

func batchOwnSlice(e *env) {
	swaps := e.claims(5)
	before := append([]semel.Swap(nil), swaps...)
	written := e.applied(swaps)
	for i := range swaps {
		if d := describe(swaps[i].Next, before[i].Next); d != "" || swaps[i].Old != before[i].Old {
			e.Fatalf("the store changed the caller's swap %d:%s", i, d)
		}
		swaps[i] = semel.Swap{Next: semel.Record{Owner: "changed"}}
	}
	for _, r := range written {
		e.holds(r)
	}
}

func batchVersions(e *env) {
	swaps := e.claims(10)
	for range 5 {
		written := e.applied(swaps) // each version is checked to be greater than the old one
		for i, r := range written {
			swaps[i] = semel.Swap{Old: r.Version, Next: e.renewed(r)}
		}
	}
}

func batchAfterForget(e *env) {
	first := e.applied([]semel.Swap{{Next: e.pending("k")}})[0]
	last := e.forget(e.complete(first))
	again := e.applied([]semel.Swap{{Next: e.pending("k")}})[0]
	if again.Version.Compare(last.Version) <= 0 {
		e.Fatalf("forgotten at version %v, came again at %v", last.Version, again.Version)
	}
	e.refuse(first.Version, e.complete(first), again)
}

func batchFields(e *env) {
	var swaps []semel.Swap
	for i, text := range texts() {
		next := e.done(e.pending(fmt.Sprint("k", i)), text.value)
		next.Key, next.Owner = semel.Key{Scope: text.value, ID: text.value}, text.value
		swaps = append(swaps, semel.Swap{Next: next})
	}
	for _, d := range durations() {
		next := e.pending("duration " + d.name)
		next.TTL, next.Replay = d.value, d.value
		swaps = append(swaps, semel.Swap{Next: next})
	}
	e.applied(swaps)
}
