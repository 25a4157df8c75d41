package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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
	sqlDue = `SELECT digest, epoch, counter, written, expires, state, meta, state > 1 AND expires <= now FROM @.records, clock_timestamp() AS now
	WHERE due <= now ORDER BY due LIMIT $1`
	// Rows that somebody writes at this moment are left for another time.
	sqlSweep = `WITH gone AS MATERIALIZED (
	SELECT r.digest FROM unnest($1::bytea[], $2::int8[], $3::int8[]) AS a (digest, epoch, counter)
	CROSS JOIN LATERAL (SELECT * FROM @.records r WHERE r.digest = a.digest AND r.epoch = a.epoch AND r.counter = a.counter
		AND r.state > 1 AND r.expires <= clock_timestamp() FOR UPDATE SKIP LOCKED) r)
	DELETE FROM @.records r USING gone WHERE r.digest = gone.digest`
	sqlPostpone = `WITH later AS MATERIALIZED (
	SELECT r.digest, r.state, r.expires FROM unnest($1::bytea[], $2::int8[], $3::int8[]) AS a (digest, epoch, counter)
	CROSS JOIN LATERAL (SELECT * FROM @.records r WHERE r.digest = a.digest AND r.epoch = a.epoch AND r.counter = a.counter FOR UPDATE SKIP LOCKED) r)
	UPDATE @.records r SET due = greatest(l.expires, clock_timestamp() + CASE WHEN l.state > 1 THEN interval '0' ELSE interval '10 min' END)
	FROM later l WHERE r.digest = l.digest`
)

// sweepChunk is how many records one transaction of the sweeper looks at: few,
// so that the requests' commits wait little for it (INVARIANTS X7).
const sweepChunk = 500

// Sweep is part of semel.Sweeper. It looks at what is due, deletes what has
// expired, and puts off the rest, in small transactions. A record that does not
// decode is left where it is. The journal keeps what it has.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	swept := 0
	for swept < limit {
		if err := ended(ctx); err != nil {
			return swept, err
		}
		want := min(limit-swept, sweepChunk)
		n, seen, err := s.engine.sweepSome(ctx, want)
		swept += n
		if err != nil {
			return swept, s.engine.explain("sweep", err)
		}
		if seen < want {
			break
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

func (e *engine) sweepSome(ctx context.Context, limit int) (swept, seen int, err error) {
	var gone, later versions
	err = e.scan(ctx, e.in(sqlDue), func(rows pgx.Rows) error {
		var r row
		var digest []byte
		var expired bool
		if err := rows.Scan(&digest, &r.epoch, &r.counter, &r.at, &r.expires, &r.state, &r.meta, &expired); err != nil {
			return err
		}
		seen++
		if _, err := r.whole(digest); err == nil && expired {
			gone.add(digest, &r)
		} else {
			later.add(digest, &r)
		}
		return nil
	}, limit)
	if err != nil {
		return 0, 0, err
	}
	err = e.transact(ctx, func(tx pgx.Tx) error {
		if len(later.digests) > 0 {
			if _, err := tx.Exec(ctx, e.in(sqlPostpone), later.digests, later.epochs, later.counter); err != nil {
				return err
			}
		}
		if len(gone.digests) == 0 {
			return nil
		}
		tag, err := tx.Exec(ctx, e.in(sqlSweep), gone.digests, gone.epochs, gone.counter)
		swept = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return swept, seen, nil
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
