package postgres_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// lines reads a day, and fails the test unless every key's versions grow.
func (b *bench) lines(t testing.TB, of time.Time) int {
	t.Helper()
	n, last := 0, map[semel.Digest]semel.Version{}
	for e, err := range b.Lines(t.Context(), of) {
		must(t, err)
		if v := e.Record.Version; v.Compare(last[e.Record.Digest]) <= 0 {
			t.Fatalf("the key %s has the version %v after %v", e.Record.Key.ID, v, last[e.Record.Digest])
		}
		last[e.Record.Digest] = e.Record.Version
		n++
	}
	return n
}

// A day is read in pages, whatever order its lines lie in, also where it has no
// partition of its own and where the clock went back.
func TestLinesOfManyPages(t *testing.T) {
	b := benchAt(t, "pages")
	for i, at := range []time.Time{noon, noon.AddDate(-1, 0, 0)} { // the second has no partition
		b.clock.set(t.Context(), at)
		records := b.many(t, fmt.Sprint(i, " "), 4500, nil)
		b.clock.set(t.Context(), at.Add(-time.Hour))
		for i := range records {
			records[i].Nonce[0]++
		}
		swaps := make([]semel.Swap, len(records))
		for i, r := range records {
			swaps[i] = semel.Swap{Old: r.Version, Next: r}
		}
		for _, s := range b.SwapMany(t.Context(), swaps) {
			must(t, s.Err)
		}
		run(t, b.db, "SELECT setval('pages.version', nextval('pages.version') + 1000000)")
		b.clock.set(t.Context(), at)
		b.many(t, fmt.Sprint(i, " more "), 500, nil)
		run(t, b.db, "CREATE TABLE pages.other AS SELECT * FROM pages.journal; DELETE FROM pages.journal; INSERT INTO pages.journal SELECT * FROM pages.other ORDER BY counter DESC; DROP TABLE pages.other")
		if n := b.lines(t, at); n != 9500 {
			t.Errorf("the day %v has %d lines, want 9500", day(at), n)
		}
	}
	got, err := b.Days(t.Context())
	if err != nil || len(got) != 2 || !got[0].Equal(day(noon.AddDate(-1, 0, 0))) || !got[1].Equal(day(noon)) {
		t.Errorf("the days are %v, %v", got, err)
	}
	b.clock.set(t.Context(), noon.AddDate(0, 0, 2))
	for _, d := range got {
		must(t, b.DropDay(t.Context(), d))
	}
	if got, err := b.Days(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("all days were dropped, and there are %v, %v", got, err)
	}
}

// A reader that stops early, or lets time pass, leaves nothing behind.
func TestLinesHoldNothing(t *testing.T) {
	b := benchAt(t, "holding")
	b.many(t, "k", 4500, nil)
	n := 0
	for _, err := range b.Lines(t.Context(), noon) {
		must(t, err)
		if n++; n == 2500 {
			if open := number(t, b.db, `SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()
				AND query LIKE '%holding.journal%'`); open != 0 {
				t.Errorf("%d transactions are open while the caller reads", open)
			}
			break
		}
	}
	b.lines(t, noon)
	runtime.GC()
}

// A day whose lines are not all visible yet is not read as a whole, and not
// dropped; the requests meanwhile go on.
func TestDayWithAnOpenTransaction(t *testing.T) {
	b := benchAt(t, "unended")
	b.many(t, "k", 3, nil)
	tx, err := b.db.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO unended.journal SELECT epoch, nextval('unended.version'), pg_current_xact_id()::text::int8, written, digest, meta FROM unended.journal LIMIT 1`)
	must(t, err)
	if n := b.lines(t, noon); n != 3 {
		t.Errorf("today has %d lines, want the 3 that are visible", n)
	}
	b.clock.set(t.Context(), noon.AddDate(0, 0, 1))
	refused := func() error {
		for _, err := range b.Lines(t.Context(), noon) {
			return err
		}
		return nil
	}
	unavailable(t, "reading a day that is not complete", refused())

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var slowest time.Duration
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			start := time.Now()
			mustSwap(t, b, semel.Version{}, pending(fmt.Sprint("beside", i)))
			slowest = max(slowest, time.Since(start))
		}
	})
	unavailable(t, "dropping a day that is not complete", b.DropDay(t.Context(), noon))
	stop()
	wg.Wait()
	t.Logf("the slowest request beside it took %v", slowest)
	if slowest > 3*time.Second { // the lock is waited for 30 ms
		t.Errorf("a request waited %v behind the drop", slowest)
	}
	must(t, tx.Commit(t.Context()))
	if n := b.lines(t, noon); n != 4 {
		t.Errorf("once all has ended, the day has %d lines, want 4", n)
	}
	must(t, b.DropDay(t.Context(), noon))
}

// Days are dropped while requests run and a reader tails: no request fails, the
// reader goes on, and the record's last line is still found.
func TestDropDayUnderLoad(t *testing.T) {
	b := benchAt(t, "dropping")
	for i := range 4 {
		b.clock.set(t.Context(), noon.AddDate(0, 0, i))
		b.many(t, fmt.Sprint(i, " "), 500, nil)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for c := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint("load ", c, " ", i)
				mustSwap(t, b, mustSwap(t, b, semel.Version{}, pending(id)).Version, done(id))
			}
		})
	}
	var at postgres.Position
	wg.Go(func() {
		for ctx.Err() == nil {
			tail(t, b.Store, &at)
		}
	})
	for i := range 3 {
		must(t, b.DropDay(t.Context(), noon.AddDate(0, 0, i)))
	}
	if err := b.DropDay(t.Context(), noon.AddDate(0, 0, 3)); err == nil {
		t.Error("today was dropped")
	}
	if err := b.DropDay(t.Context(), noon.AddDate(0, 0, 4)); err == nil {
		t.Error("tomorrow was dropped")
	}
	last := mustSwap(t, b, semel.Version{}, done("last"))
	stop()
	wg.Wait()
	tail(t, b.Store, &at)
	lines, err := b.History(t.Context(), last.Digest)
	if err != nil || len(lines) != 1 || at.Counter < last.Version.Counter {
		t.Errorf("after the drops the last write has the lines %v, %v, and the reader is at %v", lines, err, at)
	}
	if days, err := b.Days(t.Context()); err != nil || len(days) != 1 {
		t.Errorf("the days are %v, %v; want today", days, err)
	}
}

// Who does not own the journal reads its days, and is told what to do about
// dropping one.
func TestDropDayIsForTheOwner(t *testing.T) {
	p := servers.Postgres(t)
	b := benchAt(t, "unowned")
	b.many(t, "k", 1, nil)
	run(t, b.db, `CREATE ROLE semel_days LOGIN; GRANT USAGE ON SCHEMA unowned, unowned_clock TO semel_days; GRANT SELECT ON unowned_clock.clock TO semel_days;
		GRANT SELECT, INSERT, UPDATE, DELETE ON unowned.records TO semel_days; GRANT SELECT, INSERT ON unowned.journal, unowned.journal_default TO semel_days;
		GRANT SELECT, INSERT, UPDATE ON unowned.epochs TO semel_days; GRANT SELECT ON unowned.schema_version TO semel_days;
		GRANT USAGE ON SEQUENCE unowned.version TO semel_days`)
	b.clock.set(t.Context(), noon.AddDate(0, 0, 1))
	_, url := clockAt(t, p.URL("postgres"), "unowned_clock", noon.AddDate(0, 0, 1))
	reader := *b
	reader.Store = opened(t, strings.Replace(url, "postgres@", "semel_days@", 1), "unowned", postgres.Options{})
	if n := reader.lines(t, noon); n != 1 {
		t.Errorf("the day has %d lines, want 1", n)
	}
	err := reader.DropDay(t.Context(), noon)
	if err == nil || !strings.Contains(err.Error(), "owner") {
		t.Errorf("dropping another's day: %v; want who may", err)
	}
	if n := b.lines(t, noon); n != 1 {
		t.Errorf("after that the day has %d lines, want 1", n)
	}
}
