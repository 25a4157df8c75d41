package storetest

import (
	"math"
	"time"

	"github.com/semelhq/semel"
)

// daysChecks: the journal by days (see semel.Days). A store whose journal is not
// kept so leaves them out.
func daysChecks() []check {
	checks := []check{
		{"of nothing", 0, func(e *env) { e.days() }},
		{"today", 0, daysToday},
		{"each has its own lines", 0, daysLines},
		{"lines of many keys, in the order of each", 0, daysMany},
		{"dropped, the records stay", 0, daysDropped},
		{"one that has no lines is dropped", 0, daysNone},
		{"today is not dropped", 0, daysNotToday},
		{"survive", Durable, daysReopened},
	}
	for i := range checks {
		checks[i].needs |= Journals
	}
	return checks
}

func (e *env) byDay() semel.Days {
	e.Helper()
	d, ok := semel.As[semel.Days](e.store)
	if !ok {
		e.Skip("left out: the store's journal is not kept by days")
	}
	return d
}

// days checks which days there are.
func (e *env) days(want ...time.Time) {
	e.Helper()
	got, err := e.byDay().Days(e.ctx)
	if err != nil {
		e.Fatalf("Days: %v", err)
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !got[i].Equal(want[i].UTC().Truncate(24*time.Hour)) {
			e.Fatalf("the journal has the days %v, want those of %v", got, want)
		}
	}
}

// lines checks that a day has the lines of these writes, those of one key in
// this order.
func (e *env) lines(day time.Time, writes ...semel.Record) {
	e.Helper()
	want := make(map[semel.Digest][]semel.Record)
	for _, r := range writes {
		want[r.Digest] = append(want[r.Digest], r)
	}
	n := 0
	for l, err := range e.byDay().Lines(e.ctx, day.UTC().Truncate(24*time.Hour)) {
		if err != nil {
			e.Fatalf("Lines: %v", err)
		}
		n++
		d := l.Record.Digest
		if len(want[d]) == 0 {
			e.Fatalf("the day %v has a line of version %v, which is not of it, or there already", day, l.Record.Version)
		}
		if r := want[d][0]; r.Entry().ResultSum != l.ResultSum || r.Version != l.Record.Version || !r.WrittenAt.Equal(l.Record.WrittenAt) ||
			r.State != l.Record.State || r.Key != l.Record.Key {
			e.Fatalf("the day has the line %+v, want one of %+v", l, r)
		}
		want[d] = want[d][1:]
	}
	if n != len(writes) {
		e.Fatalf("the day %v has %d lines, want %d", day, n, len(writes))
	}
}

func daysToday(e *env) {
	claim := e.insert(e.pending("k"))
	r := e.over(e.complete(claim))
	e.days(e.now())
	e.lines(e.now(), claim, r)
	e.lines(e.now().AddDate(0, 0, -1))
}

// nextDay moves the store's clock to the same time of the next day.
func (e *env) nextDay() time.Time {
	e.Helper()
	e.movable()
	e.clock.move(24 * time.Hour)
	return e.now()
}

func daysLines(e *env) {
	first := e.now()
	e.movable()
	claim := e.insert(e.pending("k"))
	second := e.nextDay()
	r := e.over(e.complete(claim))
	other := e.insert(e.pending("other"))
	e.days(first, second)
	e.lines(first, claim)
	e.lines(second, r, other)
}

func daysMany(e *env) {
	var all []semel.Record
	for _, r := range e.applied(e.claims(300)) {
		all = append(all, r, e.over(e.complete(r)))
	}
	e.lines(e.now(), all...)
}

func daysDropped(e *env) {
	first := e.now()
	e.movable()
	r := e.over(e.complete(e.insert(e.pending("k"))))
	second := e.nextDay()
	other := e.insert(e.pending("other"))
	day := first.UTC().Truncate(24 * time.Hour)
	for range 2 {
		if err := e.byDay().DropDay(e.ctx, day); err != nil {
			e.Fatalf("DropDay: %v", err)
		}
		e.days(second)
		e.lines(first)
		e.lines(second, other)
		e.holds(r)
		e.refuse(semel.Version{}, e.heir(r), r)
	}
	e.history(other)
}

func daysNone(e *env) {
	if err := e.byDay().DropDay(e.ctx, e.now().AddDate(-1, 0, 0).UTC().Truncate(24*time.Hour)); err != nil {
		e.Fatalf("DropDay: %v", err)
	}
}

func daysNotToday(e *env) {
	claim := e.insert(e.pending("k"))
	if err := e.byDay().DropDay(e.ctx, e.now().UTC().Truncate(24*time.Hour)); err == nil {
		e.Fatal("today was dropped")
	}
	e.lines(e.now(), claim)
}

func daysReopened(e *env) {
	claim := e.insert(e.pending("k"))
	e.byDay()
	e.reopen()
	e.days(claim.WrittenAt)
	e.lines(claim.WrittenAt, claim)
}

// measureChecks: how much there is (see semel.Measurer). A store that cannot tell
// leaves them out.
func measureChecks() []check {
	return []check{
		{"of nothing", 0, measureNothing},
		{"counts records", 0, measureCounts},
		{"tells the oldest pending record", 0, measureOldest},
		{"tells what the sweeper is behind with", Sweeps, measureOverdue},
		{"tells of a result that waits for the sweeper", Sweeps, measureSpent},
	}
}

func (e *env) measure() semel.Measure {
	e.Helper()
	s, ok := semel.As[semel.Measurer](e.store)
	if !ok {
		e.Skip("left out: the store is no Measurer")
	}
	m, err := s.Measure(e.ctx)
	if err != nil {
		e.Fatalf("Measure: %v", err)
	}
	if now := e.now(); m.At.IsZero() || m.At.After(now) || now.Sub(m.At) > time.Minute {
		e.Fatalf("Measure is of %v, and the store's clock says %v", m.At, now)
	}
	return m
}

func measureNothing(e *env) {
	if m := e.measure(); !m.Estimated && m.Records != 0 || !m.OldestPending.IsZero() || !m.Overdue.IsZero() {
		e.Fatalf("an empty store measures %+v", m)
	}
}

func measureCounts(e *env) {
	e.measure()
	const n = 400
	e.applied(e.claims(n))
	m := e.measure()
	if off := math.Abs(float64(m.Records - n)); off > 0 && (!m.Estimated || off > n/2) {
		e.Fatalf("%d records are %+v", n, m)
	}
	if m.Bytes == 0 || m.Bytes < -1 || m.JournalBytes < -1 {
		e.Fatalf("%d records take %d bytes, and the journal %d", n, m.Bytes, m.JournalBytes)
	}
}

func measureOldest(e *env) {
	e.measure()
	e.insert(e.complete(e.pending("done")))
	oldest := e.insert(e.pending("k"))
	e.pass(e.maker.short())
	e.insert(e.pending("younger"))
	if m := e.measure(); !m.OldestPending.Equal(oldest.WrittenAt) {
		e.Fatalf("the oldest pending record is of %v, want %v", m.OldestPending, oldest.WrittenAt)
	}
	e.over(e.complete(oldest))
	if m := e.measure(); m.OldestPending.Equal(oldest.WrittenAt) || m.OldestPending.IsZero() {
		e.Fatalf("once that is done, the oldest pending record is of %v", m.OldestPending)
	}
}

func measureOverdue(e *env) {
	e.measure()
	e.insert(e.complete(e.pending("kept")))
	r := e.insert(expired(e.complete(e.pending("k"))))
	e.pass(coarsest)
	if m := e.measure(); m.Overdue.IsZero() || m.Overdue.Sub(r.Expires()).Abs() > coarsest {
		e.Fatalf("what is due has been so since %v, want %v", m.Overdue, r.Expires())
	}
	e.sweep(100, 1)
	if m := e.measure(); !m.Overdue.IsZero() {
		e.Fatalf("after a sweep something is due since %v", m.Overdue)
	}
}

func measureSpent(e *env) {
	e.measure()
	e.insert(e.complete(e.pending("kept")))
	r := e.spent("k", "receipt")
	over := r.WrittenAt.Add(r.Replay)
	if m := e.measure(); m.Overdue.IsZero() || m.Overdue.Sub(over).Abs() > coarsest {
		e.Fatalf("what is due has been so since %v, want %v", m.Overdue, over)
	}
	e.sweep(100, 1)
	if m := e.measure(); !m.Overdue.IsZero() {
		e.Fatalf("after a sweep something is due since %v", m.Overdue)
	}
}
