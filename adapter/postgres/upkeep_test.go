package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// bench is a store by a clock that the test sets.
type bench struct {
	*postgres.Store
	clock *clock
	db    *pgxpool.Pool
	url   string // by which the server goes by the clock
}

var noon = time.Date(2031, 5, 20, 12, 0, 0, 0, time.UTC)

func benchAt(t *testing.T, schema string) *bench {
	t.Helper()
	url := servers.Postgres(t).URL("postgres")
	c, clocks := clockAt(t, url, schema+"_clock", noon)
	return &bench{opened(t, clocks, schema, postgres.Options{}), c, sql(t, url), clocks}
}

// many inserts n finished records.
func (b *bench) many(t testing.TB, prefix string, n int, change func(r *semel.Record)) []semel.Record {
	t.Helper()
	swaps := make([]semel.Swap, n)
	for i := range swaps {
		r := done(fmt.Sprint(prefix, i))
		if change != nil {
			change(&r)
		}
		swaps[i] = semel.Swap{Next: r}
	}
	out := make([]semel.Record, n)
	for i, s := range b.SwapMany(t.Context(), swaps) {
		must(t, s.Err)
		out[i] = s.Reading.Record
	}
	return out
}

func (b *bench) sweep(t testing.TB, limit, want int) {
	t.Helper()
	if n, err := b.Sweep(t.Context(), limit); err != nil || n != want {
		t.Fatalf("Sweep with limit %d dealt with %d, %v; want %d", limit, n, err, want)
	}
}

func (b *bench) inDoubt(t testing.TB, want ...semel.Record) {
	t.Helper()
	got, err := b.List(t.Context(), semel.Filter{InDoubt: true})
	must(t, err)
	ids := map[string]bool{}
	for _, r := range got {
		ids[r.Key.ID] = true
	}
	for _, r := range want {
		if !ids[r.Key.ID] {
			t.Errorf("%s is in doubt and not listed", r.Key.ID)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d are in doubt, want %d", len(got), len(want))
	}
}

// A row that somebody holds, or many that do not decode, neither stop a sweep nor
// keep it going for ever.
func TestSweepPassesByWhatItCannotTake(t *testing.T) {
	b := benchAt(t, "sweep_stuck")
	all := b.many(t, "k", 1200, func(r *semel.Record) {
		if r.Key.ID == "k0" { // due before the others
			r.Replay = time.Hour
		}
	})
	b.clock.set(t.Context(), noon.Add(73*time.Hour))
	tx, err := b.db.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM sweep_stuck.records WHERE digest = $1 FOR UPDATE`, all[0].Digest[:])
	must(t, err)
	run(t, b.db, `UPDATE sweep_stuck.records SET meta = meta || '\x00' WHERE ctid IN (SELECT ctid FROM sweep_stuck.records WHERE digest <> $1 LIMIT 1100)`, all[0].Digest[:])
	b.sweep(t, 1, 1)
	b.sweep(t, 1000, 98)
	b.sweep(t, 1, 0)
	must(t, tx.Rollback(t.Context()))
	b.sweep(t, 1, 1)
	if n := number(t, b.db, `SELECT count(*) FROM sweep_stuck.records`); n != 1100 {
		t.Errorf("%d damaged records are left, want all 1100", n)
	}
}

// A pending record costs the sweeper one look, however long it stays so; when it is
// finished late it is due again.
func TestSweepLooksOnceAtWhatIsPending(t *testing.T) {
	b := benchAt(t, "sweep_pending")
	b.many(t, "k", 1, nil) // from it the store knows how long records are kept
	claim := mustSwap(t, b, semel.Version{}, pending("late"))
	b.clock.set(t.Context(), noon.Add(100*time.Hour))
	b.sweep(t, 100, 1)
	if n := number(t, b.db, `SELECT count(*) FROM sweep_pending.records WHERE due = 'infinity'`); n != 1 {
		t.Fatal("the pending record is due again")
	}
	r := mustSwap(t, b, claim.Version, done("late"))
	b.clock.set(t.Context(), noon.Add(125*time.Hour))
	b.sweep(t, 100, 1)
	got, err := b.Get(t.Context(), r.Digest)
	must(t, err)
	if got.Record.Result != nil || got.Record.Version != r.Version {
		t.Errorf("after its replay the record is %+v, want its tombstone", got.Record)
	}
	if n := number(t, b.db, `SELECT count(*) FROM sweep_pending.records WHERE due = expires`); n != 1 {
		t.Errorf("%d tombstones are due when they are to be forgotten, want 1", n)
	}
	b.clock.set(t.Context(), noon.Add(173*time.Hour))
	b.sweep(t, 100, 1)
}

// Two sweepers at once do each record once; what they say adds up (INVARIANTS X7).
func TestSweepersShareTheWork(t *testing.T) {
	b := benchAt(t, "sweep_two")
	b.many(t, "k", 3000, func(r *semel.Record) { r.Replay = time.Hour })
	for _, pass := range []struct {
		after time.Duration
		left  int64
	}{{2 * time.Hour, 3000}, {73 * time.Hour, 0}} {
		b.clock.set(t.Context(), noon.Add(pass.after))
		var total atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					n, err := b.Sweep(t.Context(), 100)
					if err != nil {
						t.Error(err)
						return
					}
					total.Add(int64(n))
					if n < 100 {
						return
					}
				}
			})
		}
		wg.Wait()
		n, err := b.Sweep(t.Context(), 1000) // rows that another held are left for another time
		must(t, err)
		if got := total.Load() + int64(n); got != 3000 {
			t.Errorf("after %v four sweepers dealt with %d records, want 3000", pass.after, got)
		}
		if n := number(t, b.db, `SELECT count(*) FROM sweep_two.records`); n != pass.left {
			t.Errorf("after %v %d records are left, want %d", pass.after, n, pass.left)
		}
	}
}

// A completion leaves the sweeper's index alone: the claim was given the time
// already, and so the update stays on its page.
func TestCompletionsStayHOT(t *testing.T) {
	t.Parallel() // a server takes seconds to tell of its sessions' work
	b := benchAt(t, "hot")
	b.many(t, "k", 1, nil)
	before := number(t, b.db, `SELECT pg_stat_get_tuples_hot_updated('hot.records'::regclass)`)
	for i := range 50 {
		id := fmt.Sprint("pair", i)
		mustSwap(t, b, mustSwap(t, b, semel.Version{}, pending(id)).Version, done(id))
	}
	if n := number(t, b.db, `SELECT count(*) FROM hot.records WHERE due = $1`, noon.Add(24*time.Hour)); n != 51 {
		t.Errorf("%d records are due when their result may not be replayed any more, want 51", n)
	}
	eventually(t, "50 updates were HOT", func() bool {
		return number(t, b.db, `SELECT pg_stat_get_tuples_hot_updated('hot.records'::regclass)`)-before == 50
	})
}

// What is in doubt is found in the journal's lines, without reading all records
// again, also while a transaction holds the lines' horizon back. What the journal
// does not tell is found within the hour.
func TestPendingIsFollowed(t *testing.T) {
	b := benchAt(t, "followed")
	b.many(t, "k", 100, nil)
	at := noon
	claim := func(id string) semel.Record {
		r := pending(id)
		r.TTL = time.Second
		r = mustSwap(t, b, semel.Version{}, r)
		at = at.Add(10 * time.Minute)
		b.clock.set(t.Context(), at)
		return r
	}
	old := claim("old")
	b.inDoubt(t, old)
	held, err := b.db.Begin(t.Context())
	must(t, err)
	_, err = held.Exec(t.Context(), "SELECT pg_current_xact_id()")
	must(t, err)
	second, third := claim("second"), claim("third")
	b.inDoubt(t, old, second, third)
	mustSwap(t, b, third.Version, done("third"))
	b.inDoubt(t, old, second)
	must(t, held.Rollback(t.Context()))
	mustSwap(t, b, old.Version, done("old"))
	b.inDoubt(t, second)
	fourth := claim("fourth")
	m, err := b.Measure(t.Context())
	must(t, err)
	if !m.OldestPending.Equal(second.WrittenAt) {
		t.Errorf("the oldest pending record is of %v, want %v", m.OldestPending, second.WrittenAt)
	}
	b.inDoubt(t, second, fourth)
	fifth := claim("fifth")
	run(t, b.db, `DELETE FROM followed.journal WHERE digest = $1`, fifth.Digest[:]) // past the store
	b.inDoubt(t, second, fourth)
	b.clock.set(t.Context(), at.Add(time.Hour))
	b.inDoubt(t, second, fourth, fifth)
}

// A claim whose transaction began before a search and ended after it is found.
func TestPendingOfAnOpenTransaction(t *testing.T) {
	b := benchAt(t, "opened_before")
	b.inDoubt(t)
	tx, err := sql(t, b.url).Begin(t.Context())
	must(t, err)
	late := pending("late")
	late.TTL = time.Second
	in := postgres.In(b.Store, tx)
	r, err := in.CompareAndSwap(t.Context(), semel.Version{}, late)
	must(t, err)
	mustSwap(t, b, semel.Version{}, done("other")) // a later transaction ends before it
	b.clock.set(t.Context(), noon.Add(time.Minute))
	b.inDoubt(t)
	must(t, tx.Commit(t.Context()))
	b.inDoubt(t, r.Record)
}

// Reading all records goes on when whoever asked has gone, and ends with the store.
func TestPendingIsReadOn(t *testing.T) {
	b := benchAt(t, "read_on")
	claim := mustSwap(t, b, semel.Version{}, pending("k"))
	lock := func() func() {
		tx, err := b.db.Begin(t.Context())
		must(t, err)
		_, err = tx.Exec(t.Context(), "LOCK TABLE read_on.records IN ACCESS EXCLUSIVE MODE")
		must(t, err)
		return func() { must(t, tx.Rollback(t.Context())) }
	}
	reads := func() bool {
		return number(t, b.db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT digest FROM %read_on%'`) == 1
	}
	impatient := func(s *postgres.Store) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.List(ctx, semel.Filter{State: semel.Pending}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a search that may take 50 ms of a locked table: %v", err)
		}
	}
	unlock := lock()
	impatient(b.Store)
	if !reads() {
		t.Error("the reading ended with its caller")
	}
	unlock()
	got, err := b.List(t.Context(), semel.Filter{State: semel.Pending})
	if err != nil || len(got) != 1 || got[0].Version != claim.Version {
		t.Errorf("the next search gave %+v, %v", got, err)
	}
	other, err := postgres.Open(t.Context(), b.url, postgres.Options{Schema: "read_on"})
	must(t, err)
	unlock = lock()
	defer unlock()
	impatient(other)
	must(t, other.Close())
}

// Large numbers are estimated, and what is not due yet is not read.
func TestMeasureEstimates(t *testing.T) {
	t.Parallel() // a server takes seconds to tell of its sessions' work
	b := benchAt(t, "estimated")
	const n = 25_000
	for i := range 5 {
		b.many(t, fmt.Sprint(i, " "), n/5, nil)
	}
	run(t, b.db, "VACUUM ANALYZE estimated.records")
	b.many(t, "more", n/10, nil)
	read := func(what string) int64 {
		return number(t, b.db, `SELECT `+what+` FROM pg_stat_user_indexes WHERE schemaname = 'estimated' AND indexrelname = 'records_due'`)
	}
	scans, tuples := read("idx_scan"), read("idx_tup_read")
	b.sweep(t, 200, 0)
	m, err := b.Measure(t.Context())
	must(t, err)
	eventually(t, "the server tells of the scan", func() bool { return read("idx_scan") > scans+2 })
	if n := read("idx_tup_read") - tuples; n > 22_000 { // counting reads some 20,000 of them
		t.Errorf("%d entries of the sweeper's index were read though nothing is due", n)
	}
	if !m.Estimated || m.Records < n || m.Records > n*13/10 || m.Bytes < n*400 || m.JournalBytes < n*200 {
		t.Errorf("%d records measure %+v", n*11/10, m)
	}
}

// unavailable fails the test unless err says that the same may succeed later.
func unavailable(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, semel.ErrUnavailable) {
		t.Errorf("%s: got %v, want %v", what, err, semel.ErrUnavailable)
	}
}
