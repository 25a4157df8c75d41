package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// upkeep is a store by a clock that the test sets.
type upkeep struct {
	*mysql.Store
	db  *sql.DB
	url string
	at  atomic.Int64
}

var noon = time.Date(2031, 5, 20, 12, 0, 0, 0, time.UTC)

func (u *upkeep) now() time.Time   { return time.UnixMicro(u.at.Load()) }
func (u *upkeep) set(at time.Time) { u.at.Store(at.UnixMicro()) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func upkeepAt(t *testing.T, url string) *upkeep {
	t.Helper()
	u := &upkeep{url: url, db: sqlDB(t, url)}
	u.set(noon)
	var err error
	u.Store, err = mysql.OpenAt(t.Context(), url, mysql.Options{}, u.now)
	must(t, err)
	t.Cleanup(func() { u.Close() })
	return u
}

// many inserts n finished records.
func (u *upkeep) many(t testing.TB, prefix string, n int, change func(r *semel.Record)) []semel.Record {
	t.Helper()
	swaps := make([]semel.Swap, n)
	for i := range swaps {
		r := completion(claim(fmt.Sprint(prefix, i)), "receipt")
		if change != nil {
			change(&r)
		}
		swaps[i].Next = r
	}
	out := make([]semel.Record, n)
	for i, s := range u.SwapMany(t.Context(), swaps) {
		must(t, s.Err)
		out[i] = s.Reading.Record
	}
	return out
}

func (u *upkeep) sweep(t testing.TB, limit, want int) {
	t.Helper()
	if n, err := u.Sweep(t.Context(), limit); err != nil || n != want {
		t.Errorf("Sweep with limit %d dealt with %d, %v; want %d", limit, n, err, want)
	}
}

// rows is how many rows the server has read for a call.
func (u *upkeep) rows(t testing.TB, call func()) int {
	t.Helper()
	const read = "SELECT SUM(VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN ('HANDLER_READ_FIRST','HANDLER_READ_KEY','HANDLER_READ_NEXT','HANDLER_READ_RND','HANDLER_READ_RND_NEXT')"
	before := number(t, u.db, read)
	call()
	return number(t, u.db, read) - before
}

// A row that another transaction holds, or many that do not decode, neither stop
// a sweep nor keep it going for ever.
func TestSweepPassesByWhatItCannotTake(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	all := u.many(t, "first", 1, nil)
	u.set(noon.Add(time.Minute))
	u.many(t, "k", 899, nil)
	u.set(noon.Add(73 * time.Hour))
	execute(t, u.db, "UPDATE semel_record SET meta=CONCAT(meta,x'00') WHERE digest<>? ORDER BY digest LIMIT 800", all[0].Digest[:])
	tx, err := u.db.BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	execute(t, tx, "DO (SELECT state FROM semel_record WHERE digest=? FOR UPDATE)", all[0].Digest[:])
	start := time.Now()
	u.sweep(t, 1000, 99)
	u.sweep(t, 1000, 0)
	if took := time.Since(start); took > 5*time.Second { // a lock is waited for a second, and each chunk would
		t.Errorf("the sweeps took %v", took)
	}
	must(t, tx.Rollback())
	u.sweep(t, 1, 1)
	if n := number(t, u.db, "SELECT COUNT(*) FROM semel_record"); n != 800 {
		t.Errorf("%d records are left, want the 800 that are damaged", n)
	}
	execute(t, u.db, "UPDATE semel_record SET meta=LEFT(meta,LENGTH(meta)-1)")
	u.sweep(t, 1000, 0) // put off
	u.set(noon.Add(74 * time.Hour))
	u.sweep(t, 1000, 800)
}

// A column alone has nothing deleted and no result dropped: the record says when
// its time is over (INVARIANTS X4).
func TestSweepGoesByTheRecord(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	held := swap(t, u, claim("pending"))
	done := swap(t, u, completion(claim("done"), "receipt"))
	for range 2 {
		execute(t, u.db, "UPDATE semel_record SET due=1")
		u.sweep(t, 10, 0)
		for _, want := range []semel.Record{held, done} {
			if r, err := u.Get(t.Context(), want.Digest); err != nil || r.Record.Version != want.Version || string(r.Record.Result) != string(want.Result) {
				t.Errorf("after the sweep %s is %+v, %v", want.Key.ID, r.Record, err)
			}
		}
		if n := number(t, u.db, "SELECT COUNT(*) FROM semel_record WHERE state=1 AND due IS NULL OR state=2 AND due=written+24*3600*1000000"); n != 2 {
			t.Errorf("%d of 2 records are due when they should be", n)
		}
	}
	u.set(noon.Add(24 * time.Hour))
	u.sweep(t, 10, 1)
	if n := number(t, u.db, "SELECT COUNT(*) FROM semel_record WHERE state=2 AND result IS NULL AND due=written+72*3600*1000000"); n != 1 {
		t.Errorf("the tombstone is not due at the end of its retention")
	}
}

// Several sweepers at once do each record once; what they say adds up, and what
// comes again is above all that was deleted (INVARIANTS X7, S2).
func TestSweepersShareTheWork(t *testing.T) {
	u := upkeepAt(t, database(t, name()))
	var records []semel.Record
	for i := range 4 {
		records = append(records, u.many(t, fmt.Sprint(i, " "), 500, nil)...)
	}
	for _, pass := range []struct {
		at   time.Time
		left int
	}{{noon.Add(24 * time.Hour), 2000}, {noon.Add(72 * time.Hour), 0}} {
		u.set(pass.at)
		var total atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					n, err := u.Sweep(t.Context(), 100)
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
		n, err := u.Sweep(t.Context(), 3000) // what another held is left for another time
		must(t, err)
		if got := total.Load() + int64(n); got != 2000 {
			t.Errorf("four sweepers dealt with %d records, want 2000", got)
		}
		if n := number(t, u.db, "SELECT COUNT(*) FROM semel_record WHERE result IS NULL AND LENGTH(meta)>0"); n != pass.left {
			t.Errorf("%d tombstones are left, want %d", n, pass.left)
		}
	}
	for _, r := range records[:3] {
		if again := swap(t, u, claim(r.Key.ID)); again.Version.Compare(r.Version) <= 0 {
			t.Errorf("%s had the version %v and comes again at %v", r.Key.ID, r.Version, again.Version)
		}
	}
}

// What is changed does not fit into one packet where the records have long names.
func TestSweepOfLongNames(t *testing.T) {
	_, url := private(t, map[string]string{"max_allowed_packet": "1M"})
	u := upkeepAt(t, url)
	for i := range 20 {
		u.many(t, fmt.Sprint(strings.Repeat("long ", 1000), i, " "), 15, nil)
	}
	u.set(noon.Add(25 * time.Hour))
	u.sweep(t, 1000, 300)
	u.set(noon.Add(73 * time.Hour))
	u.sweep(t, 1000, 300)
}

// TestX7SweepThroughCrashes: the server is killed while it is swept. Retries meet the
// record or its tombstone and never nothing, until the keys' time is over; then
// they come again above what they were. What is pending stays.
func TestX7SweepThroughCrashes(t *testing.T) {
	m, url := private(t, nil)
	u := upkeepAt(t, url)
	var records []semel.Record
	for i := range 4 {
		records = append(records, u.many(t, fmt.Sprint(i, " "), 500, nil)...)
	}
	held := swap(t, u, claim("pending"))
	crash := func() {
		swept := make(chan struct{})
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		go func() {
			defer close(swept)
			for {
				if n, err := u.Sweep(ctx, 50); err != nil || n == 0 {
					return
				}
			}
		}()
		waitFor(t, "something swept", func() bool {
			return number(t, u.db, "SELECT COUNT(*) FROM semel_record WHERE result IS NOT NULL") < 2000-100
		})
		must(t, m.Kill())
		<-swept
		must(t, m.Start())
		waitFor(t, "the store back", func() bool {
			_, err := u.Get(t.Context(), held.Digest)
			return err == nil
		})
	}
	u.set(noon.Add(25 * time.Hour))
	for range 2 {
		crash()
		for _, r := range records {
			if got, err := u.CompareAndSwap(t.Context(), semel.Version{}, claim(r.Key.ID)); !errors.Is(err, semel.ErrConflict) ||
				got.Record.Version != r.Version || got.Record.Code != 201 {
				t.Fatalf("a late retry of %s met %+v, %v", r.Key.ID, got.Record, err)
			}
		}
	}
	u.set(noon.Add(73 * time.Hour))
	crash()
	for n := 1; n > 0; {
		var err error
		n, err = u.Sweep(t.Context(), 1000)
		must(t, err)
	}
	if n := number(t, u.db, "SELECT COUNT(*) FROM semel_record"); n != 1 {
		t.Errorf("%d records are left, want the one that is pending", n)
	}
	for _, r := range records[:20] {
		if again := swap(t, u, claim(r.Key.ID)); again.Version.Compare(r.Version) <= 0 {
			t.Errorf("%s had the version %v and comes again at %v", r.Key.ID, r.Version, again.Version)
		}
	}
	swap(t, u, completion(held, "receipt"))
}

// TestTombstoneNeedsNoFlushAnew: who knows that a record is on disk knows so of its
// tombstone, which is the same write; who does not finds out once.
func TestTombstoneNeedsNoFlushAnew(t *testing.T) {
	url := database(t, name())
	p, through := between(t, url)
	s := connect(t, through, mysql.Options{})
	defer s.Close()
	other := connect(t, url, mysql.Options{})
	defer other.Close()
	spent := func(id string) semel.Record {
		next := completion(swap(t, other, claim(id)), "receipt")
		next.Replay = time.Millisecond
		return swap(t, other, next)
	}
	reads := func(r semel.Record, result bool, flushes int) {
		t.Helper()
		p.reset()
		for range 2 {
			got, err := s.Get(t.Context(), r.Digest)
			if err != nil || got.Record.Version != r.Version || (got.Record.Result != nil) != result {
				t.Errorf("got %+v, %v; want version %v", got.Record, err, r.Version)
			}
		}
		if n := p.flushed(); n != flushes {
			t.Errorf("%s: %d flushes, want %d", r.Key.ID, n, flushes)
		}
	}
	known, unknown := spent("known"), spent("unknown")
	swap(t, s, claim("the epoch is known"))
	reads(known, true, 1)
	waitFor(t, "two tombstones", func() bool {
		_, err := other.Sweep(t.Context(), 10)
		must(t, err)
		return number(t, sqlDB(t, url), "SELECT COUNT(*) FROM semel_record WHERE state=2 AND result IS NULL AND digest IN (?,?)", known.Digest[:], unknown.Digest[:]) == 2
	})
	reads(known, false, 0)
	reads(unknown, false, 1)
}

// TestX7SweepOnABadLine: what a sweep has sent is lost, or the answer is: it says so,
// and the next does what is left (INVARIANTS X7).
func TestX7SweepOnABadLine(t *testing.T) {
	url := database(t, name())
	p, through := between(t, url)
	u := upkeepAt(t, url)
	s, err := mysql.OpenAt(t.Context(), through, mysql.Options{}, u.now)
	must(t, err)
	defer s.Close()
	for i, answer := range []bool{false, true} {
		records := u.many(t, fmt.Sprint(i, " "), 100, nil)
		u.set(u.now().Add(25 * time.Hour))
		p.cutNext(answer)
		if n, err := s.Sweep(t.Context(), 1000); err == nil || n != 0 {
			t.Errorf("answer %t: swept %d, %v; want an error", answer, n, err)
		}
		want := 100
		if answer { // the server has done it to the end
			want = 0
		}
		waitFor(t, "what was lost rolled back, or committed", func() bool {
			return number(t, u.db, "SELECT COUNT(*) FROM semel_record WHERE result IS NOT NULL") == want
		})
		total := 0
		waitFor(t, "the rest swept", func() bool { // once the server has let go of it
			n, err := s.Sweep(t.Context(), 1000)
			must(t, err)
			total += n
			return total >= want
		})
		if total != want {
			t.Errorf("answer %t: the next swept %d, want %d", answer, total, want)
		}
		for _, r := range records {
			got, err := u.Get(t.Context(), r.Digest)
			if err != nil || got.Record.Version != r.Version || got.Record.Result != nil || got.Record.Code != 201 {
				t.Fatalf("answer %t: %+v, %v; want the tombstone of %v", answer, got.Record, err, r.Version)
			}
		}
	}
}
