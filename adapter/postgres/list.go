package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres/internal/upkeep"
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
		return upkeep.Each(ctx, tx, sql, visit, args...)
	})
}

const (
	sqlList = `SELECT digest, epoch, counter, written, expires, state, meta, result FROM @.records
	WHERE digest > $1 AND ($2 = 0 OR state = $2) ORDER BY digest LIMIT $3`
	sqlListOf = `SELECT r.digest, epoch, counter, written, expires, state, meta, result FROM unnest($1::bytea[]) AS a (digest)
	CROSS JOIN LATERAL (SELECT * FROM @.records r WHERE r.digest = a.digest OFFSET 0) r ORDER BY r.digest`
)

// listPage is how many rows one statement of a list reads.
const listPage = 1000

// List is part of semel.Lister. By scope or ID it reads through all keys from
// filter.After on. What is pending or in doubt is found without that, but for the
// first time and once an hour, see [Store.Measure]. If records are damaged, the
// error is semel.ErrDamaged and names them, and the list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	e := s.engine
	if filter.Limit == 0 {
		filter.Limit = 100
	}
	open := filter.State == semel.Pending || filter.InDoubt
	var pending [][]byte // those that are left to look at
	if open {
		var err error
		if pending, err = e.pendingAfter(ctx, filter.After); err != nil {
			return nil, e.explain("list", err)
		}
	}
	var out []semel.Record
	var damage []error
	after, more := filter.After, !open || len(pending) > 0
	for more && len(out)+len(damage) < filter.Limit {
		var now time.Time
		if err := e.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
			return nil, e.explain("list", err)
		}
		read := 0
		visit := func(rows pgx.Rows) error {
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
		}
		var err error
		if open {
			n := min(len(pending), listPage)
			err = e.scan(ctx, e.in(sqlListOf), visit, pending[:n])
			pending = pending[n:]
			more = len(pending) > 0
		} else {
			err = e.scan(ctx, e.in(sqlList), visit, after[:], int16(filter.State), listPage)
			more = read == listPage
		}
		if err != nil {
			return nil, e.explain("list", err)
		}
	}
	if len(damage) > 0 {
		return out, fmt.Errorf("%w: %w", semel.ErrDamaged, errors.Join(damage...))
	}
	return out, nil
}

// pendingAfter gives the digests of what is pending, greater than after, in order.
func (e *engine) pendingAfter(ctx context.Context, after semel.Digest) ([][]byte, error) {
	pending, err := e.pending.Find(ctx, e.upkeep())
	at, is := slices.BinarySearchFunc(pending, after[:], bytes.Compare)
	if is {
		at++
	}
	return pending[at:], err
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
		n, err := e.upkeep().Sweep(ctx, from, want, fate)
		if err != nil {
			return swept, e.explain("sweep", err)
		}
		swept += n.Dealt
		switch {
		case n.Seen == want:
			e.lease.swept.Store(n.Last)
		case from > 0: // what was due earlier and is there only now
			e.lease.swept.Store(0)
		default:
			return swept, nil
		}
	}
	return swept, nil
}

// damagedLater is when the sweeper looks again at a record that does not decode.
const damagedLater = 10 * time.Minute

// fate decides what becomes of a row that is due.
func fate(d *upkeep.Due) upkeep.Fate {
	r := row{epoch: d.Epoch, counter: d.Counter, at: d.Written, expires: d.Expires, state: d.State, meta: d.Meta}
	e, err := r.whole(d.Digest)
	record := &e.Record
	switch {
	case err != nil:
		return upkeep.Fate{Due: d.Now.Add(damagedLater)}
	case record.State == semel.Pending: // whoever finishes it says when it is due
		return upkeep.Fate{}
	case !d.Now.Before(record.Expires()):
		return upkeep.Fate{Forget: true}
	case record.Spent(d.Now):
		tombstone := record.Tombstone()
		return upkeep.Fate{Tombstone: encode(&tombstone)}
	}
	return upkeep.Fate{Due: record.WrittenAt.Add(time.Duration(micros(untilDue(record))) * time.Microsecond)}
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

// Days is part of semel.Days: a partition each.
func (s *Store) Days(ctx context.Context) ([]time.Time, error) {
	days, err := s.engine.upkeep().Days(ctx)
	return days, s.engine.explain("list the journal's days", err)
}

// Lines is part of semel.Days. It reads in pages, so that no transaction stays open
// while the caller takes its time. Of a day that has been over for an hour it
// refuses to tell, with semel.ErrUnavailable, while a transaction that has written
// lines of that day is open. It wants to own the journal, to have its index
// complete; who does not reads longer.
func (s *Store) Lines(ctx context.Context, day time.Time) iter.Seq2[semel.Entry, error] {
	e := s.engine
	fail := func(err error) error {
		if errors.Is(err, upkeep.ErrOpen) {
			err = fmt.Errorf("%w: %w", semel.ErrUnavailable, err)
		}
		return e.explain("read the journal", err)
	}
	return func(yield func(semel.Entry, error) bool) {
		d, err := e.upkeep().Day(ctx, day)
		if err != nil {
			yield(semel.Entry{}, fail(err))
			return
		}
		for {
			lines, err := d.Page(ctx)
			if err != nil {
				yield(semel.Entry{}, fail(err))
				return
			}
			for i := range lines {
				entry, err := journalled(&lines[i])
				if !yield(entry, err) || err != nil {
					return
				}
			}
			if len(lines) == 0 {
				return
			}
		}
	}
}

// journalled decodes a line.
func journalled(l *upkeep.Line) (semel.Entry, error) {
	if len(l.Digest) != len(semel.Digest{}) {
		return semel.Entry{}, damaged(semel.Digest{}, fmt.Errorf("journal: %w: a digest of %d bytes", errDecode, len(l.Digest)))
	}
	r := row{epoch: l.Epoch, counter: l.Counter, at: l.Written, meta: l.Meta}
	entry, err := r.entry(semel.Digest(l.Digest))
	if err != nil {
		return semel.Entry{}, damaged(semel.Digest(l.Digest), fmt.Errorf("journal: %w", err))
	}
	return entry, nil
}

// DropDay is part of semel.Days. It drops a partition, which takes the same time
// whatever the day holds; what went to journal_default is deleted. It needs the
// journal for itself for a moment: it waits for 30 ms at most, so that requests
// hardly wait behind it, and tries again, for some seconds in all. Then the error is
// semel.ErrUnavailable: a transaction that stays open has written to the journal.
// The user has to own the journal.
func (s *Store) DropDay(ctx context.Context, day time.Time) error {
	err := s.engine.upkeep().Drop(ctx, day)
	if errors.Is(err, upkeep.ErrHeld) {
		err = fmt.Errorf("%w: %w", semel.ErrUnavailable, err)
	}
	return s.engine.explain("drop a day of the journal", err)
}

// Measure is part of semel.Measurer. Up to 20,000 records are counted; of more the
// server's statistics tell, which are as old as its last vacuum. What is pending is found by
// reading all records the first time, and once an hour, as they lie on the disk; otherwise
// by reading the journal's lines since the last time. Overdue counts from when the sweeper was
// to look at a record, which may be before there was something to do.
func (s *Store) Measure(ctx context.Context) (semel.Measure, error) {
	e := s.engine
	size, err := e.upkeep().Size(ctx)
	if err != nil {
		return semel.Measure{}, e.explain("measure", err)
	}
	oldest, err := e.pending.Oldest(ctx, e.upkeep())
	return semel.Measure{
		At: size.At, Records: size.Records, Estimated: size.Estimated, Bytes: size.Bytes, JournalBytes: size.Journal,
		OldestPending: oldest, Overdue: size.Overdue,
	}, e.explain("measure", err)
}

// unfinished is what is pending, as the last search found it.
type unfinished struct{ upkeep.Pending }

// upkeep is what runs beside the requests.
func (e *engine) upkeep() *upkeep.DB { return &upkeep.DB{Transact: e.transact, Schema: e.schema} }

var (
	_ semel.Days     = (*Store)(nil)
	_ semel.Measurer = (*Store)(nil)
)
