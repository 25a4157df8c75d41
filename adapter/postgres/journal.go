package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/semelhq/semel"
)

// daysAhead is for how many days from today there is a partition.
const daysAhead = 4

// makeDays makes the journal's partitions for today and some days more. A
// table is attached, not made in place: that lets swaps go on. A user who does
// not own the journal cannot; its lines then go to the default partition.
func (e *engine) makeDays(ctx context.Context) error {
	var today time.Time
	var missing []int
	rows, err := e.pool.Query(ctx, e.in(`SELECT n, (now() AT TIME ZONE 'UTC')::date FROM generate_series(0, $1::int4) n
		WHERE to_regclass('@.journal_' || to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD')) IS NULL ORDER BY n`), daysAhead)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n, &today); err != nil {
			return err
		}
		missing = append(missing, n)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	days := make([]time.Time, len(missing))
	for i, n := range missing {
		days[i] = today.AddDate(0, 0, n)
	}
	if len(days) == 0 || e.attach(ctx, days...) == nil {
		return nil
	}
	for _, day := range days {
		err := e.attach(ctx, day)
		var said *pgconn.PgError
		switch {
		case err == nil:
		case !errors.As(err, &said):
			return err
		case said.Code == "42501":
			return errNotOwner
		case said.Code == "23514", said.Code == "55P03", said.Code == "42P07", said.Code == "40P01":
			// The default partition has lines of that day, or somebody reads the journal
			// for long, or another store was quicker: the day stays as it is.
		default:
			return err
		}
	}
	return nil
}

// errNotOwner: the journal is not this user's. That weakens nothing.
var errNotOwner = errors.New("postgres: the user does not own the journal")

// attach makes partitions for days, all or none.
func (e *engine) attach(ctx context.Context, days ...time.Time) error {
	const bound = "2006-01-02 00:00:00Z"
	return e.transact(ctx, func(tx pgx.Tx) error {
		if err := e.lock(ctx, tx, "days"); err != nil {
			return err
		}
		for _, day := range days {
			name := "@.journal_" + day.Format("20060102")
			var there bool
			if err := tx.QueryRow(ctx, e.in(fmt.Sprintf("SELECT to_regclass('%s') IS NOT NULL", name))).Scan(&there); err != nil {
				return err
			}
			if there {
				continue
			}
			statements := fmt.Sprintf(`SET LOCAL lock_timeout = '2s'; CREATE TABLE %[1]s (LIKE @.journal INCLUDING DEFAULTS);
				ALTER TABLE @.journal ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s') TO ('%[3]s')`, name, day.Format(bound), day.AddDate(0, 0, 1).Format(bound))
			if _, err := tx.Exec(ctx, e.in(statements), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep looks after what changes while a store is open.
type keep struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// keepEvery is how often.
const keepEvery = 30 * time.Second

func startKeeping(e *engine) *keep {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keep{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-e.untidy:
			}
			e.tidy(ctx)
		}
	}()
	return k
}

func (k *keep) stop() {
	k.cancel()
	<-k.ended
}

// tidy makes days, and looks after the epoch's row. What fails now is tried
// again; the swaps do without.
func (e *engine) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = e.makeDays(ctx)
	e.refreshEpoch(ctx, e.epoch.current.Load())
}

// Position is a place in the journal. The zero Position is its beginning.
type Position struct {
	Epoch, Transaction, Counter uint64
}

// Line is one line of the journal.
type Line struct {
	semel.Entry
	// At is the line's own place: tail after it to go on.
	At Position
}

// Tail gives at most limit lines after a position, in the order of positions.
// Lines become visible in no order: a transaction that began earlier may commit
// later. So Tail holds back what was written since the oldest transaction that
// still runs began, whosever it is, and never misses a line: a reader that
// remembers the last At that it has seen gets each line once.
//
// A transaction that stays open holds everything back.
func (s *Store) Tail(ctx context.Context, after Position, limit int) ([]Line, error) {
	e := s.engine
	var out []Line
	var damage error
	err := e.scan(ctx, e.in(`SELECT xact, epoch, counter, written, digest, meta FROM @.journal
		WHERE (epoch > $1 OR epoch = $1 AND xact >= $2) AND (epoch, xact, counter) > ($1, $2, $3)
		  AND (epoch < (SELECT max(epoch) FROM @.epochs) OR xact < pg_snapshot_xmin(pg_current_snapshot())::text::int8)
		ORDER BY epoch, xact, counter LIMIT $4`), func(rows pgx.Rows) error {
		var l Line
		var r row
		var xact int64
		var digest []byte
		if err := rows.Scan(&xact, &r.epoch, &r.counter, &r.at, &digest, &r.meta); err != nil {
			return err
		}
		if len(digest) != len(semel.Digest{}) {
			return damaged(semel.Digest{}, errDecode)
		}
		entry, err := r.entry(semel.Digest(digest))
		if err != nil {
			damage = damaged(semel.Digest(digest), fmt.Errorf("journal: %w", err))
			return damage
		}
		l.Entry, l.At = entry, Position{uint64(r.epoch), uint64(xact), uint64(r.counter)}
		out = append(out, l)
		return nil
	}, int64(after.Epoch), int64(after.Transaction), int64(after.Counter), limit)
	return out, e.explain("read the journal", err)
}

// History is part of semel.Journal. The journal's index finds blocks of lines in
// which the key may be; those of the last hours are read through.
func (s *Store) History(ctx context.Context, digest semel.Digest) ([]semel.Entry, error) {
	e := s.engine
	var out []semel.Entry
	var damage error
	err := e.scan(ctx, e.in(`SELECT epoch, counter, written, meta FROM @.journal WHERE digest = $1 ORDER BY epoch, counter`), func(rows pgx.Rows) error {
		var r row
		if err := rows.Scan(&r.epoch, &r.counter, &r.at, &r.meta); err != nil {
			return err
		}
		entry, err := r.entry(digest)
		if err != nil {
			damage = damaged(digest, fmt.Errorf("journal: %w", err))
			return nil
		}
		out = append(out, entry)
		return nil
	}, digest[:])
	if err != nil {
		return nil, e.explain("read the journal", err)
	}
	return out, damage
}
