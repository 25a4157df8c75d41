package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// movable is a clock that a test sets.
type movable struct{ at atomic.Int64 }

func newMovable() *movable {
	c := new(movable)
	c.at.Store(time.Date(2031, 2, 3, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *movable) now() time.Time       { return time.Unix(0, c.at.Load()) }
func (c *movable) move(d time.Duration) { c.at.Add(int64(d)) }

// linesOf gives the versions of a day's lines.
func linesOf(t testing.TB, s *Store, day time.Time) (out []uint64) {
	t.Helper()
	for e, err := range s.Lines(t.Context(), day) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Record.Version.Counter)
	}
	return out
}

func mustDrop(t testing.TB, s *Store, day time.Time) {
	t.Helper()
	if err := s.DropDay(t.Context(), day); err != nil {
		t.Fatal(err)
	}
}

// A clock that is set back over midnight has the lines of two days take turns.
func TestDaysOfAClockThatGoesBack(t *testing.T) {
	clock := newMovable()
	s := openTest(t, newPath(t), Options{Now: clock.now})
	first := clock.now()
	var day [2]int
	for i := range 12 {
		mustSwap(t, s, semel.Version{}, pending(i))
		day[i/2%2]++
		if i%2 == 1 {
			clock.move([]time.Duration{24 * time.Hour, -24 * time.Hour}[i/2%2])
		}
	}
	second := first.Add(24 * time.Hour)
	if a, b := linesOf(t, s, first), linesOf(t, s, second); len(a) != day[0] || len(b) != day[1] {
		t.Fatalf("the days have the lines %v and %v, want %d and %d", a, b, day[0], day[1])
	}
	clock.move(48 * time.Hour)
	mustDrop(t, s, first)
	if a, b := linesOf(t, s, first), linesOf(t, s, second); len(a) != 0 || len(b) != day[1] {
		t.Fatalf("once the first is dropped: %v and %v, want none and %d", a, b, day[1])
	}
	days, err := s.Days(t.Context())
	if err != nil || len(days) != 1 || dayOf(days[0]) != dayOf(second) {
		t.Fatalf("days: %v, %v", days, err)
	}
}

// No version comes twice, though the newest line of the journal goes with its day:
// not for who has the file open, nor for another, nor for who opens it again.
func TestDroppedDayLeavesTheCounter(t *testing.T) {
	clock, path := newMovable(), newPath(t)
	a, b := openTest(t, path, Options{Now: clock.now}), openTest(t, path, Options{Now: clock.now})
	r := mustSwap(t, a, semel.Version{}, pending(1))
	for i := range 3 {
		day := clock.now()
		r = mustSwap(t, a, r.Version, pending(1))
		clock.move(24 * time.Hour)
		mustDrop(t, []*Store{a, b, a}[i], day)
		if got := linesOf(t, b, day); len(got) != 0 {
			t.Fatalf("lines %v are left of the day", got)
		}
		mustDrop(t, b, day)
		if history, err := a.History(t.Context(), r.Digest); err != nil || len(history) != 0 {
			t.Fatalf("the journal still has %d lines, %v", len(history), err)
		}
		for k := range 3 {
			s := b
			switch k {
			case 1:
				s = a
			case 2: // an opening raises the epoch
				s = openTest(t, path, Options{Now: clock.now})
			}
			next := mustSwap(t, s, r.Version, pending(1))
			if next.Version.Compare(r.Version) <= 0 {
				t.Fatalf("version %v after %v", next.Version, r.Version)
			}
			r = next
		}
		if got := linesOf(t, a, clock.now()); len(got) != 3 {
			t.Fatalf("the next day has the lines %v, want 3", got)
		}
	}
}

// What a drop has done when it is stopped stays done, and the next goes on.
func TestDropIsResumed(t *testing.T) {
	clock := newMovable()
	s := openTest(t, newPath(t), Options{Now: clock.now})
	day := clock.now()
	const n = 5*tidyMost + 7
	fill(t, s, 0, n, pending)
	clock.move(24 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.DropDay(ctx, day); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	for range 2 {
		if more, err := s.file.dropSome(dayOf(day)); err != nil || !more {
			t.Fatal(more, err)
		}
	}
	if got := len(linesOf(t, s, day)); got > n-2*tidyLeast || got < n-2*tidyMost {
		t.Fatalf("%d of %d lines are left after two transactions", got, n)
	}
	mustDrop(t, s, day)
	if got := linesOf(t, s, day); len(got) != 0 {
		t.Fatalf("%d lines are left", len(got))
	}
	mustHold(t, s, mustSwap(t, s, semel.Version{}, pending(n)))
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDaysOfAFileForReading(t *testing.T) {
	clock, path := newMovable(), newPath(t)
	s := openTest(t, path, Options{Now: clock.now})
	day := clock.now()
	mustSwap(t, s, semel.Version{}, pending(1))
	clock.move(24 * time.Hour)
	r := openTest(t, path, Options{Now: clock.now, ReadOnly: true})
	if got := linesOf(t, r, day); len(got) != 1 {
		t.Errorf("lines %v, want one", got)
	}
	if m, err := r.Measure(t.Context()); err != nil || m.Records != 1 || !m.OldestPending.Equal(day) {
		t.Errorf("measure %+v, %v", m, err)
	}
	if err := r.DropDay(t.Context(), day); err == nil {
		t.Error("a day was dropped through a file that is open for reading")
	}
}

// A damaged line ends the lines of its day, so that nobody takes the rest for all.
func TestDamagedLine(t *testing.T) {
	clock, path := newMovable(), newPath(t)
	s := openTest(t, path, Options{Now: clock.now})
	fill(t, s, 0, 10, pending)
	execSQL(t, openSQL(t, path), "UPDATE journal SET meta = x'00' WHERE n = (SELECT max(n) - 4 FROM journal)")
	n := 0
	var last error
	for _, err := range s.Lines(t.Context(), clock.now()) {
		if last != nil {
			t.Fatal("lines go on after an error")
		}
		if last = err; err == nil {
			n++
		}
	}
	if n != 5 || !errors.Is(last, semel.ErrDamaged) {
		t.Fatalf("%d lines, %v; want 5 and ErrDamaged", n, last)
	}
}

// A measure and a search for what is in doubt read through neither table, but the
// index that counts.
func TestMeasureReadsLittle(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	fill(t, s, 0, 100, done)
	db := openSQL(t, path)
	for sql, may := range map[string]string{
		sqlRecords: "COVERING INDEX", sqlLength: "", sqlOldest: "record_pending", sqlOverdue: "", sqlDays: "journal_day",
		sqlPending: "record_pending", sqlExpired: "", sqlNext: "", sqlDrop: "", sqlLines: "", sqlTail: "journal",
	} {
		n := strings.Count(sql, "?")
		if strings.Contains(sql, "?5") { // they are numbered
			n = 5
		}
		rows, err := db.Query("EXPLAIN QUERY PLAN "+sql, make([]any, n)...)
		if err != nil {
			t.Fatal(err)
		}
		used := false
		for rows.Next() {
			var a, b, c int
			var step string
			if err := rows.Scan(&a, &b, &c, &step); err != nil {
				t.Fatal(err)
			}
			used = used || strings.Contains(step, may)
			if strings.HasPrefix(step, "SCAN") && (may == "" || !strings.Contains(step, may)) && step != "SCAN CONSTANT ROW" {
				t.Errorf("%s: %s", sql, step)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil || !used {
			t.Fatalf("%s: does not use %s; %v", sql, may, err)
		}
	}
}

// The application's tables are none of the store's bytes.
func TestMeasureBesideOtherTables(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	fill(t, s, 0, 1000, done)
	alone, err := s.Measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db := openSQL(t, path)
	execSQL(t, db, "CREATE TABLE orders (b BLOB)")
	execSQL(t, db, "INSERT INTO orders VALUES (zeroblob(100000000))")
	m, err := s.Measure(t.Context())
	if ratio := float64(m.Bytes) / float64(alone.Bytes); err != nil || ratio < 0.5 || ratio > 1.5 {
		t.Fatalf("alone the records take %d bytes, beside 100 MB of another table %d, %v", alone.Bytes, m.Bytes, err)
	}
	if per := alone.JournalBytes / 1000; per < 200 || per > 600 {
		t.Fatalf("a line of the journal takes %d bytes", per)
	}
}

// fill inserts the keys from one number up to another, by many at a time.
func fill(t testing.TB, s *Store, from, to int, of func(int) semel.Record) {
	t.Helper()
	for from < to {
		swaps := make([]semel.Swap, min(512, to-from))
		for i := range swaps {
			swaps[i].Next = of(from + i)
		}
		for _, r := range s.SwapMany(t.Context(), swaps) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		from += len(swaps)
	}
}

// X7: two processes that sweep one file deal with each record once, beside one that
// writes.
func TestTwoSweepers(t *testing.T) {
	clock, path := newMovable(), newPath(t)
	a, b := openTest(t, path, Options{Now: clock.now}), openTest(t, path, Options{Now: clock.now})
	const n = 3000
	fill(t, a, 0, n, func(i int) semel.Record {
		r := done(i)
		if i%2 == 0 {
			r.TTL = 24 * time.Hour
		}
		return r
	})
	clock.move(25 * time.Hour)
	var swept [2]int
	var wg sync.WaitGroup
	for i, s := range []*Store{a, b} {
		wg.Go(func() {
			for {
				some, err := s.Sweep(t.Context(), 100)
				if err != nil {
					t.Error(err)
				}
				if swept[i] += some; some < 100 {
					return
				}
			}
		})
	}
	wg.Go(func() { fill(t, b, n, n+500, pending) })
	wg.Wait()
	m, err := a.Measure(t.Context())
	if err != nil || swept[0]+swept[1] != n || m.Records != n/2+500 || !m.Overdue.IsZero() {
		t.Errorf("%d and %d of %d were dealt with, and there are %+v, %v", swept[0], swept[1], n, m, err)
	}
	if err := a.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPortion(t *testing.T) {
	var p portion
	for range 1000 {
		p.took(p.size(), tidyTime/10)
	}
	if p.size() != tidyMost {
		t.Errorf("after many that were quick: %d", p.size())
	}
	if p.took(3, tidyTime/10); p.size() != tidyMost {
		t.Errorf("after a quick one that did little: %d", p.size())
	}
	for range 20 {
		p.took(p.size(), 2*tidyTime)
	}
	if p.size() != tidyLeast {
		t.Errorf("after many that were slow: %d", p.size())
	}
}

// Sweeps do not wait for the disk; after one, also after one that failed, commits do.
func TestSweepLeavesCommitsDurable(t *testing.T) {
	s := openTest(t, newPath(t), Options{})
	level := func() int64 {
		n, err := s.file.conn.number("PRAGMA synchronous")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	next := done(1)
	next.TTL = 0
	mustSwap(t, s, semel.Version{}, next)
	during, failure := int64(0), errors.New("it failed")
	s.file.mu.Lock()
	err := s.file.tidy(func() (bool, error) { during = level(); return true, failure })
	after := level()
	s.file.mu.Unlock()
	if !errors.Is(err, failure) || during != 1 || after != 2 {
		t.Errorf("levels %d and %d, want 1 and 2; %v", during, after, err)
	}
	if n, err := s.Sweep(t.Context(), 10); err != nil || n != 1 || level() != 2 {
		t.Errorf("after a sweep of %d the level is %d, want 2; %v", n, level(), err)
	}
}

// The oldest pending record is the one that was written first, whatever its digest.
func TestMeasureOldest(t *testing.T) {
	clock := newMovable()
	s := openTest(t, newPath(t), Options{Now: clock.now})
	var want []time.Time
	var held []semel.Record
	for i := range 20 {
		held = append(held, mustSwap(t, s, semel.Version{}, pending(i)))
		want = append(want, clock.now())
		clock.move(time.Second)
	}
	for i, r := range held {
		m, err := s.Measure(t.Context())
		if err != nil || !m.OldestPending.Equal(want[i]) || m.Records != 20 {
			t.Fatalf("%+v, %v; want %v", m, err, want[i])
		}
		mustSwap(t, s, r.Version, done(i))
	}
}

// P15: what a file takes after weeks of claims, completions, tombstones, deletions
// and dropped days is not much more than what is held takes.
func TestChurn(t *testing.T) {
	clock, path := newMovable(), newPath(t)
	s := openTest(t, path, Options{Now: clock.now})
	const perHour, hours = 150, 16 * 24
	replied := func(n int) semel.Record {
		r := done(n)
		r.Result = fmt.Appendf(nil, "%0500d", n)
		return r
	}
	for h := range hours {
		fill(t, s, h*perHour, (h+1)*perHour, replied)
		clock.move(time.Hour)
		if h%6 == 0 {
			if _, err := s.Sweep(t.Context(), 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if h%24 == 0 && h > 7*24 {
			mustDrop(t, s, clock.now().Add(-7*24*time.Hour))
		}
	}
	m, err := s.Measure(t.Context())
	if err != nil || m.Records < 72*perHour || m.Records > 80*perHour {
		t.Fatalf("%+v, %v", m, err)
	}
	whole := filepath.Join(t.TempDir(), "copy.db")
	execSQL(t, openSQL(t, path), "VACUUM INTO ?", whole)
	live, err := os.Stat(whole)
	if err != nil {
		t.Fatal(err)
	}
	size := m.Bytes + m.JournalBytes
	ratio := float64(size) / float64(live.Size())
	t.Logf("%d records, %d MB, %d MB if written anew: %.2f times", m.Records, size>>20, live.Size()>>20, ratio)
	if ratio > 1.3 {
		t.Errorf("the file has %d bytes, and what is held takes %d: %.2f times", size, live.Size(), ratio)
	}
}
