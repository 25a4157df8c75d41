package upkeep

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Line is one line of the journal, as it is stored.
type Line struct {
	Epoch, Counter int64
	Written        time.Time
	Digest, Meta   []byte
}

// pageLines is how many lines one page has at most.
const pageLines = 2000

// Day is a day's lines, in the order of their versions. It is read in pages, each by
// a statement of its own, so that no transaction stays open for as long as the
// reader takes: that would hold up vacuum and whoever tails the journal.
type Day struct {
	db       *DB
	from, to time.Time
	spans    []span
	after    int64 // the last counter that was read of the first span
}

// span is the lines of one epoch that are to be read: their counters, and how many
// there are.
type span struct{ epoch, first, last, count int64 }

// grace is how long after a day's end its lines have to be complete.
const grace = time.Hour

// Day looks at what a day has. The error is ErrOpen if the day has been over
// for an hour, and is not complete.
func (db *DB) Day(ctx context.Context, day time.Time) (*Day, error) {
	d := &Day{db: db, from: from(day), to: from(day).AddDate(0, 0, 1)}
	part := "journal_" + d.from.Format(layout)
	var over, there bool
	err := db.read(ctx, throughAll, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "SELECT clock_timestamp() >= $1, to_regclass($2) IS NOT NULL", d.to.Add(grace), db.in("@."+part)).Scan(&over, &there)
		if err != nil {
			return err
		}
		if !there {
			part = "journal_default"
		}
		if over {
			if err := db.complete(ctx, tx, part); err != nil {
				return err
			}
		}
		return Each(ctx, tx, db.in(`SELECT epoch, min(counter), max(counter), count(*) FROM @.journal WHERE written >= $1 AND written < $2 GROUP BY 1 ORDER BY 1`), func(row pgx.Rows) error {
			var s span
			err := row.Scan(&s.epoch, &s.first, &s.last, &s.count)
			d.spans = append(d.spans, s)
			return err
		}, d.from, d.to)
	})
	if err != nil {
		return nil, err
	}
	if over && there {
		db.summarize(ctx, part)
	}
	if len(d.spans) > 0 {
		d.after = d.spans[0].first - 1
	}
	return d, nil
}

// complete refuses a partition into which a transaction has written that is still
// open: its lines are of the time when they were written, and nobody sees them yet.
// A writer holds its lock on the partition until it ends, prepared or not.
func (db *DB) complete(ctx context.Context, tx pgx.Tx, part string) error {
	var open int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND relation = $1::regclass AND mode = 'RowExclusiveLock' AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, db.in("@."+part)).Scan(&open)
	if err == nil && open > 0 {
		return fmt.Errorf("%w (%s)", ErrOpen, part)
	}
	return err
}

// summarize has the index know all of the partition, so that a page finds its lines
// without reading through the rest: vacuum has not been at the end of it yet. Who
// may not do that reads more.
func (db *DB) summarize(ctx context.Context, part string) {
	_ = db.read(ctx, "", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT brin_summarize_new_values(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
			WHERE i.indrelid = $1::regclass AND a.amname = 'brin'`, db.in("@."+part))
		return err
	})
}

// Page gives the next lines; none at the end.
func (d *Day) Page(ctx context.Context) ([]Line, error) {
	for len(d.spans) > 0 {
		s := d.spans[0]
		lines, err := d.page(ctx, s)
		if err != nil {
			return nil, err
		}
		if d.after >= s.last {
			d.spans = d.spans[1:]
			if len(d.spans) > 0 {
				d.after = d.spans[0].first - 1
			}
		}
		if len(lines) > 0 {
			return lines, nil
		}
	}
	return nil, nil
}

// page reads the lines of one span among the next counters, as many as should hold
// a page.
func (d *Day) page(ctx context.Context, s span) ([]Line, error) {
	step := int64(pageLines * float64(s.last-s.first+1) / float64(s.count))
	to := min(d.after+max(step, 1), s.last)
	lines := make([]Line, 0, pageLines)
	err := d.db.read(ctx, byIndex, func(tx pgx.Tx) error {
		return Each(ctx, tx, d.db.in(`SELECT counter, written, digest, meta FROM @.journal
			WHERE written >= $1 AND written < $2 AND epoch = $3 AND counter > $4 AND counter <= $5 ORDER BY counter LIMIT $6`), func(row pgx.Rows) error {
			l := Line{Epoch: s.epoch}
			err := row.Scan(&l.Counter, &l.Written, &l.Digest, &l.Meta)
			lines = append(lines, l)
			return err
		}, d.from, d.to, s.epoch, d.after, to, pageLines)
	})
	if err != nil {
		return nil, err
	}
	d.after = to
	if len(lines) == pageLines {
		d.after = lines[pageLines-1].Counter
	}
	return lines, nil
}
