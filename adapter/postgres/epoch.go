package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	shared "github.com/semelhq/semel/adapter/internal/barrier"
)

// epoch is the first half of every version that is given while one server runs.
// A counter can go back when another server takes over, or the same one comes
// back with older data; so each has an epoch of its own, greater than all before
// (INVARIANTS S2). Every statement that writes names the server that it means.
type epoch struct {
	number   int64
	started  time.Time // of the server, which no other has in common with it
	timeline string
	since    time.Time
	// quarantined is when keys that may have been lost are taken for new ones
	// again; zero if none were lost.
	quarantined time.Time
	lostAfter   time.Time
	params      [][]byte // as the statements begin
}

// epochs is the epoch that the store writes under.
type epochs struct {
	current     atomic.Pointer[epoch]
	synchronous atomic.Bool // as the epoch's row has it
	mu          sync.Mutex  // held while it is renewed
}

// ErrQuarantined says that a key is not known here and may be one that the
// server lost in a promotion or a restore: running it could be a second run.
// Nothing was written. Repeat it later, or use a new UUIDv7 as key; HTTP 503. It
// comes with [semel.ErrUnavailable].
var ErrQuarantined = errors.New("postgres: the key may have been lost in a promotion")

// clockSkew is how far a client's clock may be ahead, and with it the time in
// a key.
const clockSkew = 5 * time.Minute

// renewEpoch finds or makes the epoch of the server that is there now. old is
// the one that turned out to be past: if another caller was quicker, nothing is
// left to do.
func (e *engine) renewEpoch(ctx context.Context, old *epoch) error {
	e.epoch.mu.Lock()
	defer e.epoch.mu.Unlock()
	if old != e.epoch.current.Load() {
		return nil
	}
	now, err := e.transactEpoch(ctx, old)
	if err != nil {
		return err
	}
	now.params = [][]byte{timeBytes(now.started), []byte(now.timeline), int8Bytes(now.number)}
	e.barrier.forget(old == nil || old.timeline != now.timeline)
	e.epoch.current.Store(now)
	return nil
}

const (
	sqlServer = `SELECT (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
	pg_postmaster_start_time(), '@.records'::regclass::oid::int8, current_setting('synchronous_standby_names') <> '',
	pg_last_xact_replay_timestamp(), clock_timestamp()`
	sqlLastEpoch = `SELECT epoch, system, timeline, started, relation::int8, synchronous, since, lost_after, quarantined
	FROM @.epochs ORDER BY epoch DESC LIMIT 1`
	sqlNewEpoch = `INSERT INTO @.epochs (epoch, system, timeline, started, relation, since, synchronous, lost_after, quarantined)
	VALUES ($1, $2, $3, $4, $5::int8::oid, $6, $7, $8, $9)`
	sqlRefresh = `SELECT current_setting('synchronous_standby_names') <> '', synchronous, quarantined, lost_after
	FROM @.epochs WHERE epoch = $1`
	sqlSameEpoch = `UPDATE @.epochs SET synchronous = $2, lost_after = $3, quarantined = $4
	WHERE epoch = $1 AND (synchronous, lost_after, quarantined) IS DISTINCT FROM ($2, $3, $4)`
)

// identity is a server as the epochs tell servers apart.
type identity struct {
	system      int64
	timeline    string
	started     time.Time
	relation    int64
	synchronous bool
}

func (i identity) same(o identity) bool {
	return i.system == o.system && i.timeline == o.timeline && i.started.Equal(o.started) && i.relation == o.relation
}

// mayLack tells whether the server may lack keys that the one before it had
// acknowledged. The same data after a restart lacks none. Neither does a standby
// that commits had waited for, unless this process knows better: the row that
// tells so is the standby's, which may have been left behind.
func (i identity) mayLack(before identity, lacking bool) bool {
	if i.system == before.system && i.relation == before.relation {
		return i.timeline != before.timeline && (!before.synchronous || lacking)
	}
	return true
}

// transactEpoch finds or makes the epoch's row. old is the epoch before, as this
// process knows it; nil when it starts.
func (e *engine) transactEpoch(ctx context.Context, old *epoch) (*epoch, error) {
	var out *epoch
	lacking := e.barrier.lacking()
	err := e.transact(ctx, func(tx pgx.Tx) error {
		if err := e.lock(ctx, tx, "epoch"); err != nil {
			return err
		}
		var is, was identity
		var replayed, lostAfter, quarantined *time.Time
		var now, since time.Time
		err := tx.QueryRow(ctx, e.in(sqlServer)).Scan(&is.system, &is.timeline, &is.started, &is.relation, &is.synchronous, &replayed, &now)
		if err != nil {
			return err
		}
		out = &epoch{started: is.started, timeline: is.timeline, since: now}
		e.epoch.synchronous.Store(is.synchronous)
		err = tx.QueryRow(ctx, e.in(sqlLastEpoch)).Scan(&out.number, &was.system, &was.timeline, &was.started, &was.relation, &was.synchronous, &since, &lostAfter, &quarantined)
		switch {
		case errors.Is(err, pgx.ErrNoRows): // a store that holds nothing lacks nothing
		case err != nil:
			return err
		case is.same(was):
			out.since, out.quarantined, out.lostAfter = since, orZero(quarantined), orZero(lostAfter)
			if out.quarantined.IsZero() && old != nil && old.timeline != is.timeline && lacking && e.options.Quarantine > 0 {
				// Who made the row did not know.
				out.lostAfter, out.quarantined = old.since, now.Add(e.options.Quarantine)
			}
			_, err := tx.Exec(ctx, e.in(sqlSameEpoch), out.number, is.synchronous, orNull(out.lostAfter), orNull(out.quarantined))
			return err
		case is.mayLack(was, lacking) && e.options.Quarantine > 0:
			out.lostAfter, out.quarantined = since, now.Add(e.options.Quarantine)
			if replayed != nil {
				out.lostAfter = *replayed
			}
		case quarantined != nil && now.Before(*quarantined): // a restart does not end it
			out.since, out.lostAfter, out.quarantined = since, orZero(lostAfter), *quarantined
		}
		// The clock makes it greater than any that the data here does not know of.
		out.number = max(out.number+1, now.UnixMilli())
		_, err = tx.Exec(ctx, e.in(sqlNewEpoch), out.number, is.system, is.timeline, is.started, is.relation, out.since, is.synchronous, orNull(out.lostAfter), orNull(out.quarantined))
		return err
	})
	return out, err
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// suspect tells whether next, as a key that is not held, may be one that was
// lost. now is the server's clock.
func (p *epoch) suspect(next *semel.Record, now time.Time) bool {
	if !now.Before(p.quarantined) {
		return false
	}
	if next.Key.Scope == semel.JoinScope("semel", "self-test") {
		return false // a guard's own keys, of which each is used once
	}
	made, timed := semel.KeyTime(next.Key.ID)
	return !timed || made.Before(p.since.Add(clockSkew))
}

// admit refuses an insert of a key that may be one that was lost, unless it is
// held: that is a duplicate, and the reading is what is held. p is the epoch that
// the insert is to be made under.
func (e *engine) admit(ctx context.Context, p *epoch, next *semel.Record) (semel.Reading, error) {
	if p.quarantined.IsZero() {
		return semel.Reading{}, nil
	}
	r, err := e.Get(ctx, next.Digest)
	switch {
	case err != nil:
		return semel.Reading{}, err
	case r.Record.Held():
		return r, semel.ErrConflict
	case !p.suspect(next, r.Now):
		return semel.Reading{}, nil
	}
	e.refreshEpoch(ctx, p)
	if p = e.epoch.current.Load(); !p.suspect(next, r.Now) {
		return semel.Reading{}, nil
	}
	return semel.Reading{}, fmt.Errorf("%w: %w: the server took over at %v and may lack what was written after %v; until %v only keys that are known, or whose own time (UUIDv7) is later than %v, are taken",
		semel.ErrUnavailable, ErrQuarantined, p.since.UTC().Format(time.RFC3339), p.lostAfter.UTC().Format(time.RFC3339),
		p.quarantined.UTC().Format(time.RFC3339), p.since.Add(clockSkew).UTC().Format(time.RFC3339))
}

// refreshEpoch notes in the epoch's row whether commits wait for a standby, and
// looks whether somebody has begun or ended a quarantine. If it fails, all stands.
func (e *engine) refreshEpoch(ctx context.Context, p *epoch) {
	var is, was bool
	var until, after *time.Time
	if err := e.pool.QueryRow(ctx, e.in(sqlRefresh), p.number).Scan(&is, &was, &until, &after); err != nil {
		return
	}
	if is != was {
		err := e.transact(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, e.in(sqlSameEpoch), p.number, is, after, until)
			return err
		})
		if err != nil {
			return
		}
	}
	e.epoch.synchronous.Store(is)
	if !orZero(until).Equal(p.quarantined) {
		next := *p
		next.quarantined, next.lostAfter = orZero(until), orZero(after)
		e.epoch.current.CompareAndSwap(p, &next)
	}
}

// barrier makes sure that what is visible on the server is on its standby as
// well, before it is handed out as an answer (INVARIANTS S14). A row can be
// visible and not replicated when the wait of its COMMIT was cut off: by an
// operator, by another program's deadline, by a crash.
//
// The cheap way to know: a commit that waited for the standby has waited for all
// that was committed before it. So every swap of ours that was answered moves
// below on, up to the oldest transaction that its snapshot saw running, and what
// an older transaction wrote needs no more asking.
type barrier struct {
	// below: transactions before it are on the standby, or came to nothing.
	below atomic.Uint64
	// alone counts the writes that were acknowledged while commits waited for no
	// standby, and covered how many of them are on one: all those before a commit
	// that did wait was sent.
	alone, covered atomic.Uint64

	rounds shared.Barrier[struct{}]

	mu sync.Mutex
	// sure are transactions that were confirmed though an older one still runs.
	sure map[uint32]bool
}

// passed notes that a commit has ended whose snapshot's xmin was given.
func (b *barrier) passed(xmin uint64) {
	for {
		old := b.below.Load()
		if xmin <= old || b.below.CompareAndSwap(old, xmin) {
			return
		}
	}
}

// acknowledged notes that a write has been answered. before is what alone was
// when it was sent.
func (b *barrier) acknowledged(before uint64, waited bool) {
	if !waited {
		b.alone.Add(1)
		return
	}
	for {
		old := b.covered.Load()
		if before <= old || b.covered.CompareAndSwap(old, before) {
			return
		}
	}
}

// lacking tells whether a standby may lack writes that were acknowledged here.
func (b *barrier) lacking() bool { return b.alone.Load() != b.covered.Load() }

// known tells whether what transaction xmin wrote is on the standby. Rows know
// the lower half of the number only; what is visible is never 2^31 apart, but for
// rows that are old enough either way.
func (b *barrier) known(xmin uint32) bool {
	below := b.below.Load()
	if below != 0 && int32(uint32(below)-xmin) > 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sure[xmin]
}

// maxSure bounds barrier.sure.
const maxSure = 4096

// confirmed notes that what one transaction wrote is on the standby.
func (b *barrier) confirmed(xmin uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sure == nil || len(b.sure) >= maxSure {
		b.sure = make(map[uint32]bool)
	}
	b.sure[xmin] = true
}

// forget drops what a server's transactions were: another's have other numbers.
// After a promotion nothing is left that the standby could lack.
func (b *barrier) forget(promoted bool) {
	b.below.Store(0)
	if promoted {
		b.covered.Store(b.alone.Load())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sure = nil
}

// confirm returns once everything that was visible when it was called is on the
// standby. Callers that come together share a commit.
func (e *engine) confirm(ctx context.Context) error {
	_, err := e.barrier.rounds.Wait(ctx, e.emit)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("postgres: the record is not known to be on a standby yet: %w", err)
	}
	return err
}

// emit is one commit that has nothing in it but a wait for the standby.
func (e *engine) emit() (struct{}, error) {
	_, err := e.exec(context.Background(), call{statement: stmtBarrier})
	return struct{}{}, err
}
