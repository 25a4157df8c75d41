package upkeep

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Due is a row that the sweeper looks at.
type Due struct {
	Epoch, Counter        int64
	Written, Expires, Now time.Time
	State                 int16
	Digest, Meta          []byte
}

// Fate is what becomes of a row.
type Fate struct {
	// Forget deletes it.
	Forget bool
	// Tombstone, if it is not nil, is its new meta, and the result goes.
	Tombstone []byte
	// Due is when to look again at a row that stays as it is; the zero time is when
	// somebody has written it.
	Due time.Time
}

const (
	// Rows that somebody writes at this moment are left for another time; so two
	// sweepers share the work.
	// The clock is read once, ahead: compared with the function, or joined, each row of
	// the index would be, to its end.
	sqlDue = `WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
	SELECT digest, epoch, counter, written, expires, state, meta, due, (SELECT now FROM clock) FROM @.records r
	WHERE due >= $1 AND due <= (SELECT now FROM clock) ORDER BY due LIMIT $2 FOR UPDATE OF r SKIP LOCKED`

	sqlVersions = `unnest($1::bytea[], $2::int8[], $3::int8[]`
	sqlOver     = `r.digest = a.digest AND r.epoch = a.epoch AND r.counter = a.counter`

	sqlForget = `DELETE FROM @.records r USING ` + sqlVersions + `) AS a (digest, epoch, counter) WHERE ` + sqlOver

	// What stays of the row stays as it is, above all its version: it is the same write.
	sqlTombstone = `UPDATE @.records r SET meta = a.meta, result = NULL, due = r.expires
	FROM ` + sqlVersions + `, $4::bytea[]) AS a (digest, epoch, counter, meta) WHERE ` + sqlOver

	sqlPostpone = `UPDATE @.records r SET due = coalesce(a.due, 'infinity')
	FROM ` + sqlVersions + `, $4::timestamptz[]) AS a (digest, epoch, counter, due) WHERE ` + sqlOver
)

// Swept is what one transaction of the sweeper came to.
type Swept struct {
	Seen  int // rows that were due
	Dealt int // rows that were deleted or made tombstones
	// Last is when the last of them was due, in Unix microseconds.
	Last int64
}

// Sweep deals with at most limit rows that are due, from a time on (in Unix
// microseconds), in one transaction: judge says how.
func (db *DB) Sweep(ctx context.Context, from int64, limit int, judge func(d *Due) Fate) (s Swept, err error) {
	// A crash that brings a swept row back has it swept again; so nobody waits for the disk.
	err = db.read(ctx, "set_config('synchronous_commit', 'off', true)", func(tx pgx.Tx) error {
		var c chunk
		err := Each(ctx, tx, db.in(sqlDue), func(row pgx.Rows) error {
			var d Due
			var due time.Time
			err := row.Scan(&d.Digest, &d.Epoch, &d.Counter, &d.Written, &d.Expires, &d.State, &d.Meta, &due, &d.Now)
			s.Seen++
			s.Last = max(s.Last, due.UnixMicro())
			c.add(&d, judge(&d))
			return err
		}, time.UnixMicro(from), limit)
		if err != nil {
			return err
		}
		s.Dealt, err = c.write(ctx, db, tx)
		return err
	})
	return s, err
}

// versions are the keys and versions of rows, as parameters.
type versions struct {
	digests         [][]byte
	epochs, counter []int64
}

func (v *versions) add(d *Due) {
	v.digests = append(v.digests, d.Digest)
	v.epochs, v.counter = append(v.epochs, d.Epoch), append(v.counter, d.Counter)
}

// chunk is what one transaction does.
type chunk struct {
	gone, spent, later versions
	metas              [][]byte     // of the tombstones
	due                []*time.Time // of what is put off
}

func (c *chunk) add(d *Due, f Fate) {
	switch {
	case f.Forget:
		c.gone.add(d)
	case f.Tombstone != nil:
		c.spent.add(d)
		c.metas = append(c.metas, f.Tombstone)
	case f.Due.IsZero():
		c.later.add(d)
		c.due = append(c.due, nil)
	default:
		c.later.add(d)
		c.due = append(c.due, &f.Due)
	}
}

// write writes in one round trip, and counts what has ended.
func (c *chunk) write(ctx context.Context, db *DB, tx pgx.Tx) (dealt int, err error) {
	b := &pgx.Batch{}
	count := func(tag pgconn.CommandTag) error {
		dealt += int(tag.RowsAffected())
		return nil
	}
	if v := &c.later; len(v.digests) > 0 {
		b.Queue(db.in(sqlPostpone), v.digests, v.epochs, v.counter, c.due)
	}
	if v := &c.spent; len(v.digests) > 0 {
		b.Queue(db.in(sqlTombstone), v.digests, v.epochs, v.counter, c.metas).Exec(count)
	}
	if v := &c.gone; len(v.digests) > 0 {
		b.Queue(db.in(sqlForget), v.digests, v.epochs, v.counter).Exec(count)
	}
	if b.Len() > 0 {
		err = tx.SendBatch(ctx, b).Close()
	}
	return dealt, err
}
