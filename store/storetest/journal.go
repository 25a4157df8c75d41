package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/semelhq/semel"
)

// journalChecks: every transition leaves exactly one entry, and the entries
// rebuild the record (INVARIANTS S16).
func journalChecks() []check {
	checks := []check{
		{"of a key that never was is empty", 0, journalNothing},
		{"an insert leaves one entry", 0, func(e *env) { e.history(e.insert(e.pending("k"))) }},
		{"every transition leaves one entry, oldest first", 0, journalLife},
		{"a conflict leaves none", 0, journalConflict},
		{"a conflict over nothing held leaves none", 0, journalConflictOverNothing},
		{"a lost answer, repeated, leaves none more", 0, journalLostAnswer},
		{"reading leaves none", 0, journalReading},
		{"keeps the sum of a result, not the result", 0, journalSum},
		{"keeps every field", 0, journalFields},
		{"keeps the keys apart", 0, journalApart},
		{"outlives a sweep", Sweeps, journalSweep},
		{"goes on when the key comes again", Sweeps, journalComesAgain},
		{"outlives a restart", Durable, journalRestart},
		{"of a batch", Batches, journalBatch},
		{"of a batch with conflicts", Batches, journalBatchConflicts},
		{"of one key written by many", 0, journalRace},
		{"of a guard's claim and completion", 0, journalGuard},
		{"of 100 renewals is whole", 0, journalLong},
	}
	for i := range checks {
		checks[i].needs |= Journals
	}
	return checks
}

// entries reads the journal of one key.
func (e *env) entries(d semel.Digest) []semel.Entry {
	e.Helper()
	j, ok := semel.As[semel.Journal](e.store)
	if !ok {
		e.Fatal("the store is no Journal")
	}
	entries, err := j.History(e.ctx, d)
	if err != nil {
		e.Fatalf("History: %v", err)
	}
	return entries
}

// history checks that the journal of a key is exactly these writes, which must
// be all of them, oldest first.
func (e *env) history(writes ...semel.Record) {
	e.Helper()
	entries := e.entries(writes[0].Digest)
	if len(entries) != len(writes) {
		e.Fatalf("%d entries for %d writes", len(entries), len(writes))
	}
	for i, entry := range entries {
		want := writes[i]
		if entry.ResultSum != resultSum(want) {
			e.Fatalf("entry %d has the result sum %x, want %x", i, entry.ResultSum, resultSum(want))
		}
		want.Result = nil
		if d := describe(entry.Record, want); d != "" {
			e.Fatalf("entry %d of %d:%s", i, len(entries), d)
		}
	}
}

// resultSum is what an entry says of a record's result.
func resultSum(r semel.Record) [32]byte {
	if len(r.Result) == 0 {
		return [32]byte{}
	}
	return sha256.Sum256(r.Result)
}

func journalNothing(e *env) {
	e.insert(e.pending("neighbour"))
	if n := len(e.entries(e.pending("k").Digest)); n != 0 {
		e.Fatalf("%d entries for a key that never was", n)
	}
}

// life writes every transition that there is, and gives the writes.
func (e *env) life(id string) []semel.Record {
	e.Helper()
	writes := []semel.Record{e.insert(e.pending(id))}
	for _, change := range []func(semel.Record) semel.Record{
		e.renewed, e.released, e.heir, e.renewed, e.complete, expired,
	} {
		last := writes[len(writes)-1]
		writes = append(writes, e.swap(last.Version, change(last)))
	}
	return writes
}

func journalLife(e *env) {
	e.history(e.life("k")...)
}

func journalConflict(e *env) {
	first := e.insert(e.pending("k"))
	second := e.over(e.renewed(first))
	for range 3 {
		e.refuse(semel.Version{}, e.heir(second), second)
		e.refuse(first.Version, e.complete(first), second)
	}
	e.history(first, second)
}

func journalConflictOverNothing(e *env) {
	next := e.pending("k")
	e.refuse(semel.Version{Epoch: 1, Counter: 1}, next, semel.Record{})
	if n := len(e.entries(next.Digest)); n != 0 {
		e.Fatalf("%d entries for a write that was refused", n)
	}
}

func journalLostAnswer(e *env) {
	first := lostAnswer(e, semel.Version{}, e.pending("k"))
	second := lostAnswer(e, first.Version, e.complete(first))
	e.history(first, second)
}

func journalReading(e *env) {
	r := e.insert(e.pending("k"))
	for range 3 {
		e.holds(r)
		e.history(r)
	}
}

func journalSum(e *env) {
	for i, result := range results() {
		next := e.done(e.pending(fmt.Sprint("k", i)), "")
		next.Result = result.value
		if len(result.value) > 0 { // of an empty result the entry may say either
			e.history(e.insert(next))
		}
	}
}

func journalFields(e *env) {
	for i, text := range texts() {
		next := e.pending(fmt.Sprint("k", i))
		next.Key, next.Owner = semel.Key{Scope: text.value, ID: text.value}, text.value
		e.history(e.insert(next))
	}
	for _, d := range durations() {
		next := e.complete(e.pending(d.name))
		next.State, next.Class = semel.Pending, semel.Fenced
		next.TTL, next.Replay = d.value, d.value
		e.history(e.insert(next))
	}
}

func journalApart(e *env) {
	a, b := e.life("a"), e.life("b")
	e.history(a...)
	e.history(b...)
}

func journalSweep(e *env) {
	writes := e.life("k")
	e.sweep(100, 1)
	e.digestHolds(writes[0].Digest, semel.Record{})
	e.history(writes...)
}

func journalComesAgain(e *env) {
	writes := e.life("k")
	e.sweep(100, 1)
	writes = append(writes, e.life("k")...)
	e.history(writes...)
	for i := 1; i < len(writes); i++ {
		if writes[i].Version.Compare(writes[i-1].Version) <= 0 {
			e.Fatalf("entry %d has version %v, the one before it %v", i, writes[i].Version, writes[i-1].Version)
		}
	}
}

func journalRestart(e *env) {
	writes := e.life("k")
	e.reopen()
	e.history(writes...)
	writes = append(writes, e.over(e.renewed(writes[len(writes)-1])))
	e.history(writes...)
}

func journalBatch(e *env) {
	written := e.applied(e.claims(20))
	swaps := make([]semel.Swap, len(written))
	for i, r := range written {
		swaps[i] = semel.Swap{Old: r.Version, Next: e.complete(r)}
	}
	for i, r := range e.applied(swaps) {
		e.history(written[i], r)
	}
}

func journalBatchConflicts(e *env) {
	swaps := e.claims(6)
	held := map[int]semel.Record{1: e.insert(e.renewed(swaps[1].Next)), 4: e.insert(e.renewed(swaps[4].Next))}
	for _, r := range e.judged(swaps, e.batch(swaps), held) {
		e.history(r)
	}
	e.history(held[1])
	e.history(held[4])
	twice := []semel.Swap{{Next: e.pending("twice")}, {Next: e.pending("twice")}}
	e.history(e.batch(twice)[0].Reading.Record)
}

func journalRace(e *env) {
	const writers, each = 4, 10
	first := e.pending("k")
	first.Attempt = 0
	first = e.insert(first)
	e.together(writers, func(int) error { return e.increment(first.Digest, each) })
	entries := e.entries(first.Digest)
	if len(entries) != writers*each+1 {
		e.Fatalf("%d entries for %d writes", len(entries), writers*each+1)
	}
	for i, entry := range entries {
		if entry.Record.Attempt != i {
			e.Fatalf("entry %d is write %d", i, entry.Record.Attempt)
		}
	}
	if d := describe(e.get(first.Digest).Record, entries[len(entries)-1].Record); d != "" {
		e.Fatalf("the last entry is not what is held:%s", d)
	}
}

func journalGuard(e *env) {
	g := e.guard(e.store)
	c, _, err := g.Begin(e.ctx, e.ask("k"))
	if err != nil || c == nil {
		e.Fatal("the key was not granted: ", err)
	}
	if _, err := c.Complete(semel.Result{Code: 201, Data: []byte("receipt")}); err != nil {
		e.Fatal(err)
	}
	if _, v, err := g.Begin(e.ctx, e.ask("k")); err != nil || v.Action != semel.Replay {
		e.Fatal("no replay: ", v, errors.Join(err))
	}
	d := g.Digest(semel.Key{Scope: scope, ID: "k"})
	entries := e.entries(d)
	if len(entries) != 2 || entries[0].Record.State != semel.Pending || entries[1].Record.State != semel.Done ||
		entries[1].ResultSum != sha256.Sum256([]byte("receipt")) {
		e.Fatalf("got %+v, want a claim and a completion", entries)
	}
}

func journalLong(e *env) {
	writes := []semel.Record{e.insert(e.pending("k"))}
	for i := range 100 {
		writes = append(writes, e.over(e.renewed(writes[i])))
	}
	e.history(writes...)
}
