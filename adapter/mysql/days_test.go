package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// lines reads a day, and fails the test unless every key's versions grow.
func (u *upkeep) lines(t testing.TB, of time.Time) int {
	t.Helper()
	n, last := 0, map[semel.Digest]semel.Version{}
	for e, err := range u.Lines(t.Context(), of) {
		must(t, err)
		if v := e.Record.Version; v.Compare(last[e.Record.Digest]) <= 0 || !e.Record.WrittenAt.Truncate(24*time.Hour).Equal(of.Truncate(24*time.Hour)) {
			t.Fatalf("the key %s has the version %v, written %v, after %v", e.Record.Key.ID, v, e.Record.WrittenAt, last[e.Record.Digest])
		}
		last[e.Record.Digest] = e.Record.Version
		n++
	}
	return n
}

func (u *upkeep) hasDays(t testing.TB, want ...time.Time) {
	t.Helper()
	got, err := u.Days(t.Context())
	must(t, err)
	if len(got) != len(want) {
		t.Fatalf("the days are %v, want %v", got, want)
	}
	for i := range want {
		if !got[i].Equal(want[i].Truncate(24 * time.Hour)) {
			t.Fatalf("the days are %v, want %v", got, want)
		}
	}
}

// over writes the records again, n at once.
func (u *upkeep) over(t testing.TB, records []semel.Record) {
	t.Helper()
	swaps := make([]semel.Swap, len(records))
	for i, r := range records {
		r.Nonce[0]++
		swaps[i] = semel.Swap{Old: r.Version, Next: r}
	}
	for _, s := range u.SwapMany(t.Context(), swaps) {
		must(t, s.Err)
	}
}

// A day is read in pages, in its partition and where it has none, beside others'
// lines, also where the clock went back within it; and dropped in both places.
func TestLinesOfManyPages(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	var days []time.Time
	for i, at := range []time.Time{noon, noon.AddDate(0, 0, 20), noon.AddDate(0, 0, 21)} { // the later have no partition
		u.set(at)
		records := u.many(t, fmt.Sprint(i, " "), 1200, nil)
		u.set(at.Add(-time.Hour))
		u.over(t, records)
		u.set(at)
		days = append(days, at)
	}
	u.hasDays(t, days...)
	for _, at := range days {
		if n := u.lines(t, at); n != 2400 {
			t.Errorf("the day %v has %d lines, want 2400", at, n)
		}
	}
	if n := u.lines(t, noon.AddDate(0, 0, 1)); n != 0 {
		t.Errorf("an empty day has %d lines", n)
	}
	if n := number(t, u.db, "SELECT COUNT(*) FROM semel_journal PARTITION (rest)"); n != 4800 {
		t.Errorf("%d lines found no day, want 4800", n)
	}
	if err := u.DropDay(t.Context(), days[2]); err == nil || errors.Is(err, semel.ErrUnavailable) {
		t.Errorf("dropping today: %v", err)
	}
	if err := u.DropDay(t.Context(), days[2].AddDate(0, 0, 1)); err == nil {
		t.Error("tomorrow was dropped")
	}
	must(t, u.DropDay(t.Context(), days[1]))
	u.hasDays(t, days[0], days[2])
	must(t, u.DropDay(t.Context(), days[0]))
	must(t, u.DropDay(t.Context(), days[0]))
	u.hasDays(t, days[2])
	if n := u.lines(t, days[2]); n != 2400 {
		t.Errorf("today has %d lines after the drops, want 2400", n)
	}
	u.set(noon.AddDate(0, 0, 22))
	must(t, u.DropDay(t.Context(), days[2]))
	u.hasDays(t)
}

// TestMigrateDividesRest: lines that found no day get days of their own, and the
// journal goes on in today's.
func TestMigrateDividesRest(t *testing.T) {
	url := database(t, name())
	u := upkeepAt(t, url)
	execute(t, u.db, "ALTER TABLE semel_journal REMOVE PARTITIONING")
	execute(t, u.db, "ALTER TABLE semel_journal PARTITION BY RANGE (written) (PARTITION rest VALUES LESS THAN MAXVALUE)")
	var days []time.Time
	now := time.Now().UTC()
	for _, ago := range []int{9, 8, 3, 0} {
		days = append(days, now.AddDate(0, 0, -ago))
		u.set(days[len(days)-1])
		u.many(t, fmt.Sprint(ago, " "), 10, nil)
	}
	u.hasDays(t, days...)
	for range 2 {
		must(t, mysql.Migrate(t.Context(), url))
		if n := number(t, u.db, "SELECT COUNT(*) FROM semel_journal PARTITION (rest)"); n != 0 {
			t.Errorf("%d lines have no day", n)
		}
		u.hasDays(t, days...)
		for _, d := range days {
			if n := u.lines(t, d); n != 10 {
				t.Errorf("the day %v has %d lines, want 10", d, n)
			}
		}
	}
	must(t, u.DropDay(t.Context(), days[1]))
	u.hasDays(t, days[0], days[2], days[3])
}

// A day whose lines are not all committed is not read as a whole, and not dropped;
// the requests meanwhile go on.
func TestDayWithAnOpenTransaction(t *testing.T) {
	for name, at := range map[string]int{"in its partition": 0, "in the last": 30} {
		t.Run(name, func(t *testing.T) { dayWithAnOpenTransaction(t, noon.AddDate(0, 0, at)) })
	}
}

func dayWithAnOpenTransaction(t *testing.T, day time.Time) {
	u := upkeepAt(t, database(t, name()))
	u.set(day)
	u.many(t, "k", 700, nil)
	tx, err := u.db.BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	execute(t, tx, "INSERT INTO semel_journal (written,digest,meta) VALUES (?,REPEAT('x',32),'')", u.now().UnixMicro())
	if n := u.lines(t, day); n != 700 {
		t.Errorf("today has %d lines, want the 700 that are committed", n)
	}
	u.set(day.AddDate(0, 0, 1))
	var refused error
	for _, err := range u.Lines(t.Context(), day) {
		refused = err
	}
	unavailable(t, "reading a day that is not complete", refused)

	slowest := u.beside(t, func() {
		if err := u.DropDay(t.Context(), day); day.Equal(noon) {
			unavailable(t, "dropping a day that is not complete", err)
		} else { // what is committed goes
			must(t, err)
		}
	})
	if slowest > 3*time.Second { // the lock is waited for 30 ms
		t.Errorf("a request waited %v behind the drop", slowest)
	}
	must(t, tx.Rollback())
	must(t, u.DropDay(t.Context(), day))
	if n := u.lines(t, day); n != 0 {
		t.Errorf("the day was dropped and has %d lines", n)
	}
}

// beside runs requests beside a call, and gives the longest time that one took.
func (u *upkeep) beside(t *testing.T, call func()) (slowest time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				start := time.Now()
				r, err := u.CompareAndSwap(context.Background(), semel.Version{}, claim(fmt.Sprint("beside ", c, " ", i, " ", start)))
				if err == nil {
					next := completion(r.Record, "receipt")
					_, err = u.CompareAndSwap(context.Background(), next.Version, next)
				}
				if err != nil {
					t.Errorf("beside it: %v", err)
					return
				}
				mu.Lock()
				slowest = max(slowest, time.Since(start))
				mu.Unlock()
			}
		})
	}
	defer wg.Wait() // also where call ends the test
	defer stop()
	call()
	stop()
	wg.Wait()
	t.Logf("the slowest pair of requests took %v", slowest)
	return slowest
}

func unavailable(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, semel.ErrUnavailable) {
		t.Errorf("%s: got %v, want %v", what, err, semel.ErrUnavailable)
	}
}

// Days are dropped while requests run, by two at once: no request fails, and days
// go on being made.
func TestDropDayUnderLoad(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	for i := range 4 {
		u.set(noon.AddDate(0, 0, i))
		u.many(t, fmt.Sprint(i, " "), 500, nil)
	}
	u.beside(t, func() {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for i := range 3 {
					for err := u.DropDay(t.Context(), noon.AddDate(0, 0, i)); err != nil; err = u.DropDay(t.Context(), noon.AddDate(0, 0, i)) {
						if !errors.Is(err, semel.ErrUnavailable) {
							t.Errorf("day %d: %v", i, err)
							return
						}
						t.Logf("day %d: %v", i, err)
					}
				}
			})
		}
		wg.Wait()
	})
	u.hasDays(t, noon.AddDate(0, 0, 3))
	other, err := mysql.OpenAt(t.Context(), u.url, mysql.Options{}, u.now) // makes days
	must(t, err)
	must(t, other.Close())
	if n := number(t, u.db, "SELECT COUNT(*) FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME='semel_journal'"); n != 8 {
		t.Errorf("there are %d partitions, want seven days and the last", n)
	}
}

// Who may not change the tables reads its days, and is told what to do about
// dropping one.
func TestDropDayWithoutRights(t *testing.T) {
	schema := name()
	u := upkeepAt(t, database(t, schema))
	u.many(t, "k", 1, nil)
	u.set(noon.AddDate(0, 0, 1))
	execute(t, u.db, "CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY 'word'; GRANT SELECT, INSERT, UPDATE, DELETE ON `"+schema+"`.* TO reader@'127.0.0.1'")
	s, err := mysql.OpenAt(t.Context(), servers.MariaDB(t).URLAs("reader", "word", schema), mysql.Options{}, u.now)
	must(t, err)
	defer s.Close()
	reader := &upkeep{Store: s}
	reader.hasDays(t, noon)
	if n := reader.lines(t, noon); n != 1 {
		t.Errorf("the day has %d lines, want 1", n)
	}
	if _, err := s.Measure(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.DropDay(t.Context(), noon); err == nil || !strings.Contains(err.Error(), "LOCK TABLES") {
		t.Errorf("dropping a day without the right: %v; want which it needs", err)
	}
	swap(t, s, claim("goes on"))
	if n := u.lines(t, noon); n != 1 {
		t.Errorf("after that the day has %d lines, want 1", n)
	}
}

// What is pending is found without reading what is done, and a measure of many
// records reads few of them.
func TestMeasureOfMany(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	const n = 24_000
	for i := range n / 500 {
		u.many(t, fmt.Sprint(i, " "), 500, nil)
	}
	var doubtful []semel.Record
	for i := range 3 {
		next := claim(fmt.Sprint("doubtful ", i))
		next.TTL = time.Second
		doubtful = append(doubtful, swap(t, u, next))
		u.set(u.now().Add(time.Minute))
	}
	running := swap(t, u, claim("running"))
	list := func(want int, f semel.Filter) []semel.Record {
		t.Helper()
		var got []semel.Record
		read := u.rows(t, func() {
			var err error
			got, err = u.List(t.Context(), f)
			must(t, err)
		})
		if len(got) != want || read > 2000 {
			t.Errorf("List of %+v gave %d records and read %d rows; want %d, and few", f, len(got), read, want)
		}
		return got
	}
	all := list(3, semel.Filter{InDoubt: true})
	list(3-1, semel.Filter{InDoubt: true, After: all[0].Digest})
	list(4, semel.Filter{State: semel.Pending})
	list(0, semel.Filter{State: semel.Done, InDoubt: true})
	list(1, semel.Filter{State: semel.Pending, ID: running.Key.ID})
	execute(t, u.db, "ANALYZE TABLE semel_record, semel_journal")
	var m semel.Measure
	start := time.Now()
	read := u.rows(t, func() {
		var err error
		m, err = u.Measure(t.Context())
		must(t, err)
	})
	t.Logf("%+v, %d rows read, %v", m, read, time.Since(start))
	if !m.Estimated || m.Records < n*7/10 || m.Records > n*13/10 || m.Bytes < n*300 || m.JournalBytes < n*200 || read > 41_000 { // 20,001 in the index, and as they are counted
		t.Errorf("%d records measure %+v, with %d rows read", n+4, m, read)
	}
	if !m.OldestPending.Equal(doubtful[0].WrittenAt) || !m.Overdue.IsZero() {
		t.Errorf("the oldest is of %v, what is due of %v; want %v and none", m.OldestPending, m.Overdue, doubtful[0].WrittenAt)
	}
}

// What is written after the clock was set back over a day that was dropped is read
// and dropped with the oldest day that is left.
func TestLinesAfterTheClockWentBack(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	u.many(t, "first ", 3, nil)
	second := noon.AddDate(0, 0, 1)
	u.set(second)
	u.many(t, "second ", 5, nil)
	must(t, u.DropDay(t.Context(), noon))
	u.set(noon)
	u.many(t, "back ", 2, nil)
	u.set(second.AddDate(0, 0, 1))
	u.hasDays(t, second)
	n := 0
	for _, err := range u.Lines(t.Context(), second) {
		must(t, err)
		n++
	}
	if n != 7 || u.lines(t, noon) != 0 {
		t.Errorf("the day that is left has %d lines, want 7", n)
	}
	must(t, u.DropDay(t.Context(), second))
	u.hasDays(t)
}
