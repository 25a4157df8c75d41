// Package upkeep is what a store in PostgreSQL does beside the requests: it reads
// the journal by days and drops them, finds what is pending, and measures how
// much there is. It knows the tables and decodes no record.
//
// Only package postgres imports it.
package upkeep

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// DB is where the tables are.
type DB struct {
	// Transact runs fn in a transaction at READ COMMITTED.
	Transact func(ctx context.Context, fn func(tx pgx.Tx) error) error
	// Schema of the tables, quoted.
	Schema string
}

func (db *DB) in(sql string) string { return strings.ReplaceAll(sql, "@.", db.Schema+".") }

// What a transaction here may do. Whoever waits for a lock on a table has
// requests wait behind; so nobody waits for long.
const (
	readWithin = `set_config('statement_timeout', '600s', true)`
	lockWithin = `set_config('lock_timeout', '1s', true)`
	// All of a table is read as it lies on the disk, by one process.
	throughAll = `set_config('enable_seqscan', 'on', true), set_config('max_parallel_workers_per_gather', '0', true)`
	byIndex    = `set_config('enable_seqscan', 'off', true)`
)

// read runs queries that may read much.
func (db *DB) read(ctx context.Context, settings string, fn func(tx pgx.Tx) error) error {
	return db.Transact(ctx, func(tx pgx.Tx) error {
		all := "SELECT " + readWithin + ", " + lockWithin
		if settings != "" {
			all += ", " + settings
		}
		if _, err := tx.Exec(ctx, all); err != nil {
			return err
		}
		return fn(tx)
	})
}

// Each hands over the rows of a query, until visit gives an error.
func Each(ctx context.Context, tx pgx.Tx, sql string, visit func(row pgx.Rows) error, args ...any) error {
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
}

// from is the beginning of a day in UTC.
func from(day time.Time) time.Time {
	return day.UTC().Truncate(24 * time.Hour)
}
