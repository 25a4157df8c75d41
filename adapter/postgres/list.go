package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/semelhq/semel"
)

// scanWithin bounds a statement that reads much, on the server.
const scanWithin = "10min"

// scan runs a query that may read much, and hands over its rows.
func (e *engine) scan(ctx context.Context, sql string, visit func(rows pgx.Rows) error, args ...any) error {
	if err := ended(ctx); err != nil {
		return err
	}
	return e.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '"+scanWithin+"'"); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := visit(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

const sqlList = `SELECT digest, epoch, counter, written, expires, state, meta, result FROM @.records
	WHERE digest > $1 AND ($2 = 0 OR state = $2) AND ($3 = false OR state = 1 AND expires <= clock_timestamp())
	ORDER BY digest LIMIT $4`

// listPage is how many rows one statement of a list reads.
const listPage = 1000

// List is part of semel.Lister. By scope or ID it reads through all keys from
// filter.After on. If records are damaged, the error is semel.ErrDamaged and
// names them, and the list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	e := s.engine
	if filter.Limit == 0 {
		filter.Limit = 100
	}
	var out []semel.Record
	var damage []error
	after, more := filter.After, true
	for more && len(out)+len(damage) < filter.Limit {
		var now time.Time
		if err := e.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
			return nil, e.explain("list", err)
		}
		read := 0
		err := e.scan(ctx, e.in(sqlList), func(rows pgx.Rows) error {
			digest, record, err := scanRecord(rows)
			read++
			after = digest
			switch {
			case len(out)+len(damage) >= filter.Limit:
			case errors.Is(err, semel.ErrDamaged):
				damage = append(damage, err)
			case err != nil:
				return err
			case filter.Matches(&record, now):
				out = append(out, record)
			}
			return nil
		}, after[:], int16(filter.State), filter.InDoubt, listPage)
		if err != nil {
			return nil, e.explain("list", err)
		}
		more = read == listPage
	}
	if len(damage) > 0 {
		return out, fmt.Errorf("%w: %w", semel.ErrDamaged, errors.Join(damage...))
	}
	return out, nil
}

// scanRecord reads a row of sqlList.
func scanRecord(rows pgx.Rows) (semel.Digest, semel.Record, error) {
	var r row
	var key []byte
	if err := rows.Scan(&key, &r.epoch, &r.counter, &r.at, &r.expires, &r.state, &r.meta, &r.result); err != nil {
		return semel.Digest{}, semel.Record{}, err
	}
	if len(key) != len(semel.Digest{}) {
		return semel.Digest{}, semel.Record{}, damaged(semel.Digest{}, fmt.Errorf("%w: a digest of %d bytes", errDecode, len(key)))
	}
	digest := semel.Digest(key)
	record, err := r.record(digest)
	if err != nil {
		return digest, semel.Record{}, damaged(digest, err)
	}
	return digest, record, nil
}

const (
	// Rows that somebody writes at this moment are left for another time; so two
	// sweepers share the work.
	sqlDue = `SELECT digest, epoch, counter, written, expires, state, meta, due, now FROM @.records r, clock_timestamp() AS now
	WHERE due >= $1 AND due <= now ORDER BY due LIMIT $2 FOR UPDATE OF r SKIP LOCKED`

	sqlVersions = `unnest($1::bytea[], $2::int8[], $3::int8[]`
	sqlOver     = `r.digest = a.digest AND r.epoch = a.epoch AND r.counter = a.counter`

	sqlForget = `DELETE FROM @.records r USING ` + sqlVersions + `) AS a (digest, epoch, counter) WHERE ` + sqlOver

	// What stays of the row stays as it is, above all its version: it is the same write.
	sqlTombstone = `UPDATE @.records r SET meta = a.meta, result = NULL, due = r.expires
	FROM ` + sqlVersions + `, $4::bytea[]) AS a (digest, epoch, counter, meta) WHERE ` + sqlOver

	sqlPostpone = `UPDATE @.records r SET due = coalesce(a.due, 'infinity')
	FROM ` + sqlVersions + `, $4::timestamptz[]) AS a (digest, epoch, counter, due) WHERE ` + sqlOver
)

// sweepChunk is how many records one transaction of the sweeper looks at: few,
// so that the requests' commits wait little for it (INVARIANTS X7).
const sweepChunk = 500

// Sweep is part of semel.Sweeper. It looks at what is due, deletes what has
// expired, makes tombstones of what is spent, and puts off the rest, in small
// transactions. A record that does not decode is left as it is. The journal keeps
// what it has.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	e := s.engine
	swept := 0
	for swept < limit {
		if err := ended(ctx); err != nil {
			return swept, err
		}
		want := min(limit-swept, sweepChunk)
		from := e.lease.swept.Load()
		n, last, err := e.sweepSome(ctx, from, want)
		if err != nil {
			return swept, e.explain("sweep", err)
		}
		swept += n.dealt
		switch {
		case n.seen == want:
			e.lease.swept.Store(last)
		case from > 0: // what was due earlier and is there only now
			e.lease.swept.Store(0)
		default:
			return swept, nil
		}
	}
	return swept, nil
}

// versions are the keys and versions of rows, as parameters.
type versions struct {
	digests         [][]byte
	epochs, counter []int64
}

func (v *versions) add(digest []byte, r *row) {
	v.digests = append(v.digests, digest)
	v.epochs, v.counter = append(v.epochs, r.epoch), append(v.counter, r.counter)
}

// chunk is what one transaction of the sweeper found.
type chunk struct {
	gone, spent, later versions
	metas              [][]byte     // of the tombstones
	due                []*time.Time // of what is put off; nil for ever
	seen, dealt        int
}

// damagedLater is when the sweeper looks again at a record that does not decode.
const damagedLater = 10 * time.Minute

// judge decides what becomes of a row.
func (c *chunk) judge(digest []byte, r *row, now time.Time) {
	c.seen++
	e, err := r.whole(digest)
	record := &e.Record
	switch {
	case err != nil:
		c.later.add(digest, r)
		again := now.Add(damagedLater)
		c.due = append(c.due, &again)
	case record.State == semel.Pending: // whoever finishes it says when it is due
		c.later.add(digest, r)
		c.due = append(c.due, nil)
	case !now.Before(record.Expires()):
		c.gone.add(digest, r)
	case record.Spent(now):
		c.spent.add(digest, r)
		tombstone := record.Tombstone()
		c.metas = append(c.metas, encode(&tombstone))
	default:
		c.later.add(digest, r)
		due := record.WrittenAt.Add(time.Duration(micros(untilDue(record))) * time.Microsecond)
		c.due = append(c.due, &due)
	}
}

// sweepSome deals with what is due, from a time on, in Unix microseconds. last is
// the latest that it saw.
func (e *engine) sweepSome(ctx context.Context, from int64, limit int) (c chunk, last int64, err error) {
	err = e.transact(ctx, func(tx pgx.Tx) error {
		// A crash that brings a swept record back has it swept again; nothing waits for this.
		const settings = `SELECT set_config('synchronous_commit', 'off', true), set_config('statement_timeout', '` + scanWithin + `', true)`
		if _, err := tx.Exec(ctx, settings); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, e.in(sqlDue), time.UnixMicro(from), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r row
			var digest []byte
			var due, now time.Time
			if err := rows.Scan(&digest, &r.epoch, &r.counter, &r.at, &r.expires, &r.state, &r.meta, &due, &now); err != nil {
				return err
			}
			c.judge(digest, &r, now)
			last = max(last, due.UnixMicro())
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return c.write(ctx, e, tx)
	})
	return c, last, err
}

// write does what was decided, in one round trip.
func (c *chunk) write(ctx context.Context, e *engine, tx pgx.Tx) error {
	b := &pgx.Batch{}
	counted := func(tag pgconn.CommandTag) error {
		c.dealt += int(tag.RowsAffected())
		return nil
	}
	if v := &c.later; len(v.digests) > 0 {
		b.Queue(e.in(sqlPostpone), v.digests, v.epochs, v.counter, c.due)
	}
	if v := &c.spent; len(v.digests) > 0 {
		b.Queue(e.in(sqlTombstone), v.digests, v.epochs, v.counter, c.metas).Exec(counted)
	}
	if v := &c.gone; len(v.digests) > 0 {
		b.Queue(e.in(sqlForget), v.digests, v.epochs, v.counter).Exec(counted)
	}
	if b.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}

// typical is how long it takes until finished records are due here, as last seen.
// A claim is given that as the time when the sweeper shall look at it, so that its
// completion need not move it in the sweeper's index.
type typical struct {
	ttl atomic.Int64
	// swept: nothing is due before this, in Unix microseconds, but what came late. The
	// index has dead entries there until the next vacuum.
	swept atomic.Int64
}

func (t *typical) note(r *semel.Record) {
	if due := untilDue(r); r.State == semel.Done && due < 10*365*24*time.Hour {
		t.ttl.Store(int64(due))
	}
}

// due is when, from the write on, the sweeper shall look at next.
func (t *typical) due(old semel.Version, next *semel.Record) time.Duration {
	switch {
	case next.State != semel.Pending:
		return untilDue(next)
	case old.IsZero():
		return time.Duration(t.ttl.Load())
	}
	return math.MaxInt64 // as it was
}

// untilDue is how long after its write the sweeper has something to do with r,
// which is finished: to make a tombstone of it, or to forget it.
func untilDue(r *semel.Record) time.Duration {
	if r.State == semel.Done && r.Replay > 0 {
		return min(r.Replay, r.TTL)
	}
	return r.TTL
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
