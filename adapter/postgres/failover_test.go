package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// 28: a COMMIT whose wait for the standby is cut off leaves a row that everybody
// sees and that dies with the primary. The store never cuts it off by itself, takes
// the server's warning for "unknown", and hands nothing out that the standby lacks.
func TestFieldBug28_NoReplayBeforeTheStandbyHasIt(t *testing.T) {
	p := private(t, nil)
	second := standby(t, p, true)
	wire, through := between(t, p.URL("postgres"))
	s := opened(t, through, "semel", postgres.Options{Alone: true, MaxConns: 4})
	db := sql(t, p.URL("postgres"))
	if d := s.Describe(); d.Survives != semel.SurvivesFailover {
		t.Errorf("with a synchronous standby the store says that it survives %v: %s", d.Survives, d.Durability)
	}
	claim := mustSwap(t, s, semel.Version{}, pending("k"))
	other := mustSwap(t, s, semel.Version{}, done("other"))
	mustSwap(t, s, semel.Version{}, pending("later")) // by whose commit other is known to be there
	must(t, second.Pause())
	paused := true
	defer func() {
		if paused {
			_ = second.Resume()
		}
	}()

	// The caller's deadline ends; the COMMIT goes on waiting, and nobody sees the row.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := s.CompareAndSwap(ctx, claim.Version, done("k"))
	unknown(t, "a completion that no standby confirms", err)
	waits(t, db, "after the caller's deadline")
	wire.cut()
	wire.refused(t) // the driver would ask through it to cancel what the connection was doing
	waits(t, db, "after its connection broke")
	eventually(t, "the store reads the claim while its completion waits", func() bool {
		r, err := s.Get(t.Context(), claim.Digest)
		return err == nil && r.Record.Version == claim.Version
	})

	cutOff(t, s, p.URL("postgres"), claim, other)

	paused = false
	must(t, second.Resume())
	mustConflict(t, s, finished(t, s, claim.Digest))
	must(t, p.Kill())
	must(t, second.Promote())
	s2 := opened(t, second.URL("postgres"), "semel", postgres.Options{})
	r, err := s2.Get(t.Context(), claim.Digest)
	if err != nil || string(r.Record.Result) != "receipt k" {
		t.Errorf("what was handed out is not on the standby: %+v, %v", r.Record, err)
	}
	mustSwap(t, s2, semel.Version{}, pending("new")) // commits had waited for this standby: no quarantine
}

// waits checks that one commit waits for the standby.
func waits(t *testing.T, db *pgxpool.Pool, when string) {
	t.Helper()
	if n := number(t, db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); n != 1 {
		t.Fatalf("%d commits wait for the standby %s, want 1: it was cancelled", n, when)
	}
}

// cutOff has an operator cancel the commit that waits: then its row is visible,
// and on no standby.
func cutOff(t *testing.T, s *postgres.Store, url string, claim, other semel.Record) {
	t.Helper()
	db := sql(t, url)
	run(t, db, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
	visible := `SELECT count(*) FROM semel.records WHERE digest = $1 AND state = 2`
	eventually(t, "the row is visible", func() bool { return number(t, db, visible, claim.Digest[:]) == 1 })
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	_, err := s.Get(short(), claim.Digest)
	unknown(t, "reading a result that no standby has", err)
	_, err = s.CompareAndSwap(short(), semel.Version{}, pending("k"))
	unknown(t, "a duplicate of a result that no standby has", err)
	if r, err := s.Get(short(), other.Digest); err != nil || r.Record.Version != other.Version {
		t.Errorf("a result that the standby has: %+v, %v", r.Record, err)
	}

	// A swap whose commit is cut off meanwhile is unknown to its caller, too.
	cut := make(chan error, 1)
	go func() {
		_, err := s.CompareAndSwap(context.Background(), semel.Version{}, pending("cut"))
		cut <- err
	}()
	eventually(t, "the swap is cut off", func() bool {
		run(t, db, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%ON CONFLICT%'`)
		return len(cut) == 1
	})
	unknown(t, "a swap whose wait was cut off", <-cut)
}

// finished reads a record that must be done.
func finished(t *testing.T, s semel.Store, d semel.Digest) semel.Record {
	t.Helper()
	r, err := s.Get(t.Context(), d)
	if err != nil || r.Record.State != semel.Done {
		t.Fatalf("got %+v, %v, want a record that is done", r.Record, err)
	}
	return r.Record
}

// 29: after an asynchronous promotion acknowledged rows are gone and the
// sequence goes back. Versions do not, and a key that may be among the lost is
// refused, not run again.
func TestFieldBug29_AsynchronousPromotion(t *testing.T) {
	p := private(t, nil)
	second := standby(t, p, false)
	wire, through := between(t, p.URL("postgres"))
	s := opened(t, through, "semel", postgres.Options{MaxConns: 2, ListenURL: through})
	if d := s.Describe(); d.Survives != semel.SurvivesCrash || len(d.Cautions) == 0 || !slices.Contains(d.Traits, semel.TraitLossyFailover) {
		t.Errorf("with an asynchronous standby: %+v", d)
	}
	batched := opened(t, through, "semel", postgres.Options{MaxConns: 2})
	claim := mustSwap(t, s, semel.Version{}, pending("kept"))
	before := number(t, sql(t, p.URL("postgres")), `SELECT pg_current_wal_lsn() - '0/0'::pg_lsn`)
	copied := sql(t, second.URL("postgres"))
	eventually(t, "the standby has the first key", func() bool {
		return number(t, copied, `SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8`) >= before
	})
	must(t, second.Stop()) // what is written now it will never see
	var newest semel.Version
	var lost []semel.Record
	for i := range 50 {
		r := mustSwap(t, s, semel.Version{}, pending(fmt.Sprint("lost ", i)))
		lost, newest = append(lost, r), r.Version
	}
	must(t, p.Kill())
	copied.Close()
	must(t, second.Start())
	must(t, second.Promote())

	// The same store finds another server at its address.
	wire.upstream.Store(hostOf(t, second.URL("postgres")))
	wire.cut()
	var got semel.Reading
	var err error
	eventually(t, "the store is at work again", func() bool {
		if _, err = batched.Get(t.Context(), claim.Digest); err == nil {
			got, err = s.Get(t.Context(), claim.Digest)
		}
		return err == nil
	})
	if got.Record.Version != claim.Version {
		t.Fatalf("the key from before: %+v", got.Record)
	}
	for i, r := range lost[len(lost)-3:] {
		retryLost(t, []*postgres.Store{s, batched, s}[i], i == 1, r)
	}
	after := mustSwap(t, s, claim.Version, done("kept"))
	if after.Version.Compare(newest) <= 0 {
		t.Errorf("a version after the promotion is %v, one before was %v: they must grow", after.Version, newest)
	}
	db := sql(t, second.URL("postgres"))
	if n := number(t, db, `SELECT last_value FROM semel.version`); n >= int64(newest.Counter) {
		t.Logf("the sequence did not go back: it is at %d, and %d was given", n, newest.Counter)
	}
	quarantine(t, s, after)
	run(t, db, `UPDATE semel.epochs SET quarantined = now()`)
	mustSwap(t, s, semel.Version{}, pending("after the quarantine"))
}

// 29: commits had waited for the standby until it fell behind and an operator
// let them go on without. The row that it has still says that they wait.
func TestFieldBug29_StandbyLeftBehind(t *testing.T) {
	p := private(t, nil)
	second := standby(t, p, true)
	wire, through := between(t, p.URL("postgres"))
	s := opened(t, through, "semel", postgres.Options{MaxConns: 2, ListenURL: through})
	db := sql(t, p.URL("postgres"))
	kept := mustSwap(t, s, semel.Version{}, pending("kept"))
	must(t, second.Stop())
	run(t, db, `ALTER SYSTEM SET synchronous_standby_names = ''`)
	run(t, db, `SELECT pg_reload_conf()`)
	eventually(t, "commits wait no more", func() bool { return number(t, db, `SELECT count(*) FROM pg_stat_replication`) == 0 })
	lost := mustSwap(t, s, semel.Version{}, pending("lost"))
	eventually(t, "the row says so", func() bool { return number(t, db, `SELECT count(*) FROM semel.epochs WHERE synchronous`) == 0 })
	must(t, p.Kill())
	must(t, second.Start())
	must(t, second.Promote())

	stranger := opened(t, second.URL("postgres"), "semel", postgres.Options{})
	mustSwap(t, stranger, semel.Version{}, pending("taken by one who knows nothing of it"))
	wire.upstream.Store(hostOf(t, second.URL("postgres")))
	wire.cut()
	eventually(t, "the store is at work again", func() bool { _, err := s.Get(t.Context(), kept.Digest); return err == nil })
	retryLost(t, s, false, lost)
	mustSwap(t, s, kept.Version, done("kept"))
	_, err := opened(t, second.URL("postgres"), "semel", postgres.Options{}).CompareAndSwap(t.Context(), semel.Version{}, pending("lost"))
	if !errors.Is(err, postgres.ErrQuarantined) || !errors.Is(err, semel.ErrUnavailable) {
		t.Errorf("through another store: %v, want ErrQuarantined", err)
	}
}

// A standby that commits wait for again has all, and its promotion loses nothing.
func TestStandbyThatCaughtUp(t *testing.T) {
	p := private(t, nil)
	second := standby(t, p, true)
	wire, through := between(t, p.URL("postgres"))
	s := opened(t, through, "semel", postgres.Options{MaxConns: 2, ListenURL: through})
	db := sql(t, p.URL("postgres"))
	var names string
	must(t, db.QueryRow(t.Context(), `SHOW synchronous_standby_names`).Scan(&names))
	run(t, db, `ALTER SYSTEM SET synchronous_standby_names = ''`)
	run(t, db, `SELECT pg_reload_conf()`)
	mustSwap(t, s, semel.Version{}, pending("alone"))
	eventually(t, "the row says so", func() bool {
		mustSwap(t, s, semel.Version{}, pending(fmt.Sprint(time.Now().UnixNano())))
		return number(t, db, `SELECT count(*) FROM semel.epochs WHERE synchronous`) == 0
	})
	run(t, db, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`)
	run(t, db, `SELECT pg_reload_conf()`)
	eventually(t, "the row says that they wait", func() bool {
		mustSwap(t, s, semel.Version{}, pending(fmt.Sprint(time.Now().UnixNano())))
		return number(t, db, `SELECT count(*) FROM semel.epochs WHERE synchronous`) == 1
	})
	mustSwap(t, s, semel.Version{}, pending("waited for"))
	must(t, p.Kill())
	must(t, second.Promote())
	wire.upstream.Store(hostOf(t, second.URL("postgres")))
	wire.cut()
	eventually(t, "the store is at work again", func() bool { _, err := s.Get(t.Context(), semel.Digest{1}); return err == nil })
	mustSwap(t, s, semel.Version{}, pending("new"))
}

// What was committed while commits waited for no standby is not known to be on
// one, however many came after it (INVARIANTS S14).
func TestCommittedBeforeThereWasAStandby(t *testing.T) {
	p := private(t, nil)
	s := opened(t, p.URL("postgres"), "semel", postgres.Options{})
	r := mustSwap(t, s, mustSwap(t, s, semel.Version{}, pending("early")).Version, done("early"))
	for i := range 3 {
		mustSwap(t, s, semel.Version{}, pending(fmt.Sprint("later ", i)))
	}
	second := standby(t, p, true)
	must(t, second.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if got, err := s.Get(ctx, r.Digest); err == nil {
		t.Errorf("handed out though its standby does not answer: %v", got.Record.State)
	}
	must(t, second.Resume())
	if got, err := s.Get(t.Context(), r.Digest); err != nil || got.Record.State != semel.Done {
		t.Errorf("once the standby is there: %v, %v", got.Record.State, err)
	}
}

// retryLost repeats the claim of a key that was lost, as the first swap that the
// store makes after the promotion.
func retryLost(t *testing.T, s *postgres.Store, many bool, r semel.Record) {
	t.Helper()
	if held, err := s.Get(t.Context(), r.Digest); err != nil || held.Record.Held() {
		t.Fatalf("%s was not lost, so this shows nothing: %+v, %v", r.Key.ID, held.Record, err)
	}
	var err error
	if many {
		out := s.SwapMany(t.Context(), []semel.Swap{{Next: pending(r.Key.ID)}, {Next: pending("kept")}})
		if err = out[0].Err; !errors.Is(out[1].Err, semel.ErrConflict) {
			t.Errorf("a key that is known, in a batch: %v", out[1].Err)
		}
	} else {
		_, err = s.CompareAndSwap(t.Context(), semel.Version{}, pending(r.Key.ID))
	}
	if !errors.Is(err, postgres.ErrQuarantined) {
		t.Errorf("a retry of a lost key, in a batch %t: %v, want ErrQuarantined", many, err)
	}
}

// quarantine checks what works while unknown keys are refused.
func quarantine(t *testing.T, s *postgres.Store, held semel.Record) {
	t.Helper()
	mustConflict(t, s, held)
	uuid := func(at time.Time) semel.Record {
		ms := at.UnixMilli()
		return pending(fmt.Sprintf("%08x-%04x-7000-8000-0123456789ab", ms>>16, ms&0xffff))
	}
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, uuid(time.Now().Add(-time.Minute))); !errors.Is(err, postgres.ErrQuarantined) {
		t.Errorf("a key from before the promotion: %v, want ErrQuarantined", err)
	}
	mustSwap(t, s, semel.Version{}, uuid(time.Now().Add(6*time.Minute)))
	again := opened(t, postgres.URL(s), "semel", postgres.Options{})
	if _, err := semel.NewGuard(again, semel.Options{}); err != nil {
		t.Errorf("a guard does not start: %v", err)
	}
	if _, err := again.CompareAndSwap(t.Context(), semel.Version{}, pending("another unknown")); !errors.Is(err, postgres.ErrQuarantined) {
		t.Errorf("through another store: %v, want ErrQuarantined", err)
	}
}

// load has callers claim and complete keys until stop is closed, and gives what
// was acknowledged: for each key its last version.
func load(s semel.Store, name string, callers int, stop <-chan struct{}) (acknowledged map[string]semel.Record, wait func()) {
	acknowledged = map[string]semel.Record{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var n atomic.Int64
	for range callers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint(name, " ", n.Add(1))
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				r, err := s.CompareAndSwap(ctx, semel.Version{}, pending(id))
				if err == nil {
					mu.Lock()
					acknowledged[id] = r.Record
					mu.Unlock()
					if r, err = s.CompareAndSwap(ctx, r.Record.Version, done(id)); err == nil {
						mu.Lock()
						acknowledged[id] = r.Record
						mu.Unlock()
					}
				}
				cancel()
			}
		})
	}
	return acknowledged, wg.Wait
}

// kept checks that everything acknowledged is there, in the journal once, and
// that versions go on growing.
func kept(t *testing.T, s *postgres.Store, acknowledged map[string]semel.Record) {
	t.Helper()
	var newest semel.Version
	for id, want := range acknowledged {
		r, err := s.Get(t.Context(), want.Digest)
		if err != nil || r.Record.Version.Compare(want.Version) < 0 {
			t.Fatalf("LOST: %s was acknowledged at %v; held is %+v, %v", id, want.Version, r.Record, err)
		}
		if want.Version.Compare(newest) > 0 {
			newest = want.Version
		}
	}
	var at postgres.Position
	lines := map[semel.Version]int{}
	for {
		page, err := s.Tail(t.Context(), at, 1000)
		must(t, err)
		for _, l := range page {
			lines[l.Record.Version]++
			at = l.At
		}
		if len(page) < 1000 {
			break
		}
	}
	for id, want := range acknowledged {
		if n := lines[want.Version]; n != 1 {
			t.Fatalf("%s at %v has %d lines in the journal, want one", id, want.Version, n)
		}
	}
	if next := mustSwap(t, s, semel.Version{}, pending("after all")); next.Version.Compare(newest) <= 0 {
		t.Errorf("a version after it all is %v, one before was %v", next.Version, newest)
	}
	t.Logf("%d keys acknowledged, 0 lost (95 %%: at most %.4f %%)", len(acknowledged), 300/float64(max(1, len(acknowledged))))
}

func TestKilledWhileWriting(t *testing.T) {
	p := private(t, nil)
	s := opened(t, p.URL("postgres"), "semel", postgres.Options{MaxConns: 4})
	all := map[string]semel.Record{}
	for round := range 3 {
		stop := make(chan struct{})
		acknowledged, wait := load(s, fmt.Sprint("round ", round), 16, stop)
		db := sql(t, p.URL("postgres"))
		seen := number(t, db, `SELECT count(*) FROM semel.records`)
		eventually(t, "the load is under way", func() bool { return number(t, db, `SELECT count(*) FROM semel.records`) > seen+500 })
		must(t, p.Kill())
		must(t, p.Start())
		close(stop)
		wait()
		for id, r := range acknowledged {
			all[id] = r
		}
	}
	eventually(t, "the store is at work again", func() bool { _, err := s.Get(t.Context(), semel.Digest{1}); return err == nil })
	kept(t, s, all)
}

func TestSynchronousPromotionWhileWriting(t *testing.T) {
	p := private(t, nil)
	second := standby(t, p, true)
	wire, through := between(t, p.URL("postgres"))
	s := opened(t, through, "semel", postgres.Options{MaxConns: 4})
	stop := make(chan struct{})
	acknowledged, wait := load(s, "key", 16, stop)
	db := sql(t, p.URL("postgres"))
	eventually(t, "the load is under way", func() bool { return number(t, db, `SELECT count(*) FROM semel.records`) > 500 })
	must(t, p.Kill())
	must(t, second.Promote())
	wire.upstream.Store(hostOf(t, second.URL("postgres")))
	wire.cut()
	close(stop)
	wait()
	eventually(t, "the store is at work again", func() bool { _, err := s.Get(t.Context(), semel.Digest{1}); return err == nil })
	kept(t, s, acknowledged)
}
