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
