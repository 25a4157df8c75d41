package upkeep

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Size is how much there is.
type Size struct {
	At             time.Time
	Records        int64
	Estimated      bool
	Bytes, Journal int64
	Overdue        time.Time // zero: nothing is
}

const (
	// counted is how many records are counted one by one; of more, the server's
	// statistics tell.
	counted = 20_000
	// looked is how many records that are due are looked at, for one that is not pending.
	looked = 1000
)

const (
	sqlCount = `SELECT count(*) FROM (SELECT FROM @.records LIMIT $1) AS few`
	// As the planner estimates it: the density when the table was last vacuumed or
	// analyzed, and its size now.
	sqlSize = `SELECT clock_timestamp(), CASE WHEN c.reltuples > 0 AND c.relpages > 0
			THEN (c.reltuples::float8 / c.relpages * pg_relation_size(c.oid) / current_setting('block_size')::int8)::int8
			ELSE pg_stat_get_live_tuples(c.oid) END,
		pg_total_relation_size(c.oid), (SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::int8 FROM pg_partition_tree('@.journal'))
		FROM pg_class c WHERE c.oid = '@.records'::regclass`
	// A pending record that was taken for done by now is not overdue; if there are
	// only such among the first, the first stands for all.
	sqlOverdue = `SELECT coalesce(min(due) FILTER (WHERE state > 1), CASE WHEN count(*) = $1 THEN min(due) END)
		FROM clock_timestamp() AS now CROSS JOIN LATERAL (SELECT due, state FROM @.records WHERE due <= now ORDER BY due LIMIT $1) AS first`
)

// Size measures. It counts small numbers and believes the server's statistics
// about large ones.
func (db *DB) Size(ctx context.Context) (s Size, err error) {
	err = db.read(ctx, throughAll, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, db.in(sqlSize)).Scan(&s.At, &s.Records, &s.Bytes, &s.Journal); err != nil {
			return err
		}
		var few int64
		if err := tx.QueryRow(ctx, db.in(sqlCount), counted+1).Scan(&few); err != nil {
			return err
		}
		if s.Estimated = few > counted; s.Estimated {
			s.Records = max(s.Records, few)
		} else {
			s.Records = few
		}
		if _, err := tx.Exec(ctx, "SELECT "+byIndex); err != nil {
			return err
		}
		var overdue *time.Time
		if err := tx.QueryRow(ctx, db.in(sqlOverdue), looked).Scan(&overdue); err != nil || overdue == nil {
			return err
		}
		s.Overdue = *overdue
		return nil
	})
	return s, err
}

// Oldest gives when the pending record was written that was written first; the
// zero time if none is pending.
func (p *Pending) Oldest(ctx context.Context, db *DB) (oldest time.Time, err error) {
	found, err := p.Find(ctx, db)
	if err != nil || len(found) == 0 {
		return oldest, err
	}
	err = db.read(ctx, "", func(tx pgx.Tx) error {
		var first *time.Time
		err := tx.QueryRow(ctx, db.in(`SELECT min(r.written) FROM unnest($1::bytea[]) AS a (digest)
			CROSS JOIN LATERAL (SELECT written, state FROM @.records r WHERE r.digest = a.digest OFFSET 0) r WHERE r.state = 1`), found).Scan(&first)
		if err == nil && first != nil {
			oldest = *first
		}
		return err
	})
	return oldest, err
}
