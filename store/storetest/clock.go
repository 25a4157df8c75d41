package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/semelhq/semel"
)

// clockChecks: times are the store's own, and only its own.
func clockChecks() []check {
	return []check{
		{"an insert is written now", 0, func(e *env) { writtenNow(e, semel.Version{}, e.pending("k")) }},
		{"a renewal is written now", 0, clockRenewal},
		{"a caller an hour ahead changes nothing", 0, func(e *env) { clockCaller(e, time.Hour) }},
		{"a caller an hour behind changes nothing", 0, func(e *env) { clockCaller(e, -time.Hour) }},
		{"a caller 290 years behind changes nothing", 0, func(e *env) { clockCaller(e, -290*365*24*time.Hour) }},
		{"reading does not touch WrittenAt", 0, clockReading},
		{"a conflict does not touch WrittenAt", 0, clockConflict},
		{"Now goes on while WrittenAt stays", 0, clockGoesOn},
		{"Now of a conflict is the time of the conflict", 0, clockOfConflict},
		{"a lease ends TTL after WrittenAt", 0, clockLeaseEnds},
		{"times far apart stay exact", 0, clockFar},
		{"versions grow though the clock goes back", 0, clockBack},
		{"a clock that stands still tells writes apart", 0, clockStill},
	}
}

// writtenNow checks that a swap is stamped between two readings of the clock.
func writtenNow(e *env, old semel.Version, next semel.Record) semel.Record {
	e.Helper()
	before := e.now()
	r := e.swap(old, next)
	after := e.now()
	if r.WrittenAt.Before(before) || r.WrittenAt.After(after) {
		e.Fatalf("written at %v, between readings of %v and %v", r.WrittenAt, before, after)
	}
	return r
}

func clockRenewal(e *env) {
	first := e.insert(e.pending("k"))
	e.pass(e.maker.short())
	second := writtenNow(e, first.Version, e.renewed(first))
	if !second.WrittenAt.After(first.WrittenAt) {
		e.Fatalf("renewed at %v, inserted at %v: want later", second.WrittenAt, first.WrittenAt)
	}
}

func clockCaller(e *env, off time.Duration) {
	e.Helper()
	next := e.pending("k")
	next.WrittenAt = e.now().Add(off)
	r := writtenNow(e, semel.Version{}, next)
	next = e.renewed(r)
	next.WrittenAt = e.now().Add(off)
	e.holds(writtenNow(e, r.Version, next))
}

func clockReading(e *env) {
	want := e.insert(e.pending("k"))
	for range 3 {
		e.pass(e.maker.short())
		e.holds(want)
	}
}

func clockConflict(e *env) {
	want := e.insert(e.pending("k"))
	for range 3 {
		e.pass(e.maker.short())
		e.refuse(semel.Version{}, e.pending("k"), want)
	}
}

func clockGoesOn(e *env) {
	d := e.maker.short()
	r := e.insert(e.pending("k"))
	e.pass(d)
	later := e.get(r.Digest)
	if gone := later.Now.Sub(later.Record.WrittenAt); gone < d-coarsest {
		e.Fatalf("%v passed, Now is %v after WrittenAt", d, gone)
	}
}

func clockOfConflict(e *env) {
	d := e.maker.short()
	held := e.insert(e.pending("k"))
	e.pass(d)
	r, err := e.store.CompareAndSwap(e.ctx, semel.Version{}, e.pending("k"))
	e.conflict(semel.Version{}, r, err, held)
	if gone := r.Now.Sub(r.Record.WrittenAt); gone < d-coarsest {
		e.Fatalf("%v passed, the conflict's Now is %v after WrittenAt", d, gone)
	}
}

func clockLeaseEnds(e *env) {
	next := e.pending("k")
	next.TTL = e.maker.short()
	next = e.insert(next)
	if r := e.get(next.Digest); !e.maker.RealTime && r.Record.InDoubt(r.Now) {
		e.Fatalf("in doubt at %v, the lease ends at %v", r.Now, r.Record.Expires())
	}
	e.pass(next.TTL + coarsest)
	if r := e.get(next.Digest); !r.Record.InDoubt(r.Now) {
		e.Fatalf("not in doubt at %v, the lease ended at %v", r.Now, r.Record.Expires())
	}
}

func clockFar(e *env) {
	e.movable()
	for i, years := range []int{0, 1, 10, 100} {
		e.clock.move(time.Duration(years) * 365 * 24 * time.Hour)
		e.holds(e.insert(e.pending(string(rune('a' + i)))))
	}
}

func clockBack(e *env) {
	e.movable()
	r := e.insert(e.pending("k"))
	for range 5 {
		e.clock.move(-time.Hour)
		r = e.over(e.renewed(r))
		e.holds(r)
	}
}

func clockStill(e *env) {
	r := e.insert(e.pending("k"))
	for range 20 {
		old := r
		r = e.over(e.renewed(r))
		e.refuse(old.Version, e.complete(old), r)
	}
}

// cancelChecks: a call whose context has ended gives an error that claims
// nothing about what is held.
func cancelChecks() []check {
	return []check{
		{"before Get", 0, cancelGet},
		{"before an insert", 0, func(e *env) { cancelInsert(e, e.ended(context.Canceled)) }},
		{"past the deadline of an insert", 0, func(e *env) { cancelInsert(e, e.ended(context.DeadlineExceeded)) }},
		{"before an insert over a held record", 0, cancelOverHeld},
		{"before a completion", 0, cancelSwap},
		{"before a batch", Batches, cancelBatch},
		{"before a sweep", Sweeps, cancelSweep},
		{"before a list", Lists, cancelList},
		{"before a history", Journals, cancelHistory},
		{"the store goes on after it", 0, cancelGoesOn},
	}
}

// ended gives a context that has ended for the reason given.
func (e *env) ended(reason error) context.Context {
	var ctx context.Context
	var cancel context.CancelFunc
	if errors.Is(reason, context.DeadlineExceeded) {
		ctx, cancel = context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	} else {
		ctx, cancel = context.WithCancel(e.ctx)
	}
	cancel()
	return ctx
}

// unclear checks that err is an error and says nothing about the store.
func (e *env) unclear(err error) {
	e.Helper()
	for _, wrong := range []error{semel.ErrConflict, semel.ErrRejected, semel.ErrDamaged} {
		if err == nil || errors.Is(err, wrong) {
			e.Fatalf("under a context that has ended: got error %v; want one that is not %v", err, wrong)
		}
	}
}

func cancelGet(e *env) {
	held := e.insert(e.pending("k"))
	_, err := e.store.Get(e.ended(context.Canceled), held.Digest)
	e.unclear(err)
}

// Whether the insert landed is unknown. If it did, it is whole.
func cancelInsert(e *env, ctx context.Context) {
	e.Helper()
	next := e.pending("k")
	_, err := e.store.CompareAndSwap(ctx, semel.Version{}, next)
	e.unclear(err)
	r, err := e.store.CompareAndSwap(e.ctx, semel.Version{}, next)
	if err != nil {
		e.recognised(next, r, err)
		return
	}
	e.written(semel.Version{}, next, r)
}

func cancelOverHeld(e *env) {
	held := e.insert(e.pending("k"))
	_, err := e.store.CompareAndSwap(e.ended(context.Canceled), semel.Version{}, e.pending("k"))
	e.unclear(err)
	e.holds(held)
}

func cancelSwap(e *env) {
	held := e.insert(e.pending("k"))
	next := e.complete(held)
	_, err := e.store.CompareAndSwap(e.ended(context.Canceled), held.Version, next)
	e.unclear(err)
	if r := e.get(held.Digest).Record; r.Version == held.Version {
		e.holds(held)
	} else {
		e.recognised(next, semel.Reading{Record: r}, semel.ErrConflict)
	}
}

func cancelBatch(e *env) {
	held := e.insert(e.pending("held"))
	swaps := append(e.claims(3), semel.Swap{Next: e.heir(held)})
	b, _ := semel.As[semel.Batcher](e.store)
	out := b.SwapMany(e.ended(context.Canceled), swaps)
	if len(out) != len(swaps) {
		e.Fatalf("%d answers to %d swaps", len(out), len(swaps))
	}
	for _, s := range out {
		e.unclear(s.Err)
	}
	e.holds(held)
}

func cancelSweep(e *env) {
	pending := e.insert(e.pending("k"))
	s, _ := semel.As[semel.Sweeper](e.store)
	_, err := s.Sweep(e.ended(context.Canceled), 10)
	e.unclear(err)
	e.holds(pending)
}

func cancelList(e *env) {
	e.insert(e.pending("k"))
	l, _ := semel.As[semel.Lister](e.store)
	_, err := l.List(e.ended(context.Canceled), semel.Filter{})
	e.unclear(err)
}

func cancelHistory(e *env) {
	held := e.insert(e.pending("k"))
	j, _ := semel.As[semel.Journal](e.store)
	_, err := j.History(e.ended(context.Canceled), held.Digest)
	e.unclear(err)
}

func cancelGoesOn(e *env) {
	held := e.insert(e.pending("k"))
	for range 10 {
		_, err := e.store.CompareAndSwap(e.ended(context.Canceled), semel.Version{}, e.pending("k"))
		e.unclear(err)
	}
	e.holds(e.over(e.complete(held)))
}
