// Package bulk fills a PostgreSQL store with finished records faster than by
// requests: rows as the store would have written them, without lines in its
// journal. Only this module's packages can import it.
package bulk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
)

// Server has settings for a server that is loaded: what is copied into an empty
// table is written once and not into the log, too.
func Server() map[string]string {
	return map[string]string{"wal_level": "minimal", "max_wal_senders": "0", "maintenance_work_mem": "512MB", "max_wal_size": "4GB"}
}

// Load puts n finished records into the store's empty table, the i-th being
// record(i), as if they had been written ago before now. The pages are as full as
// claims and completions leave them, and the indexes are made afterwards.
func Load(ctx context.Context, url, schema string, n uint64, ago time.Duration, record func(i uint64) semel.Record) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, "SET search_path TO "+schema); err != nil {
		return err
	}
	var epoch int64
	var now time.Time
	if err := conn.QueryRow(ctx, "SELECT max(epoch), clock_timestamp() FROM epochs").Scan(&epoch, &now); err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit there is nothing to roll back
	if err := execute(ctx, tx, "ALTER TABLE records DROP CONSTRAINT records_pkey", "DROP INDEX records_due", "ALTER TABLE records SET (fillfactor = 65)", "TRUNCATE records"); err != nil {
		return err
	}
	rows := &source{n: n, epoch: epoch, now: now.Add(-ago), record: record}
	names := []string{"epoch", "counter", "written", "expires", "due", "state", "digest", "meta", "result"}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"records"}, names, rows); err != nil {
		return err
	}
	err = execute(ctx, tx, "ALTER TABLE records SET (fillfactor = 40)", "ALTER TABLE records ADD CONSTRAINT records_pkey PRIMARY KEY (digest)",
		"CREATE INDEX records_due ON records (due)", fmt.Sprintf("SELECT setval('version', %d)", n+1))
	if err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	if _, err = conn.Exec(ctx, "VACUUM (ANALYZE) records"); err == nil {
		_, err = conn.Exec(ctx, "CHECKPOINT")
	}
	return err
}

func execute(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// source is a pgx.CopyFromSource.
type source struct {
	n, at  uint64
	epoch  int64
	now    time.Time
	record func(i uint64) semel.Record
}

func (s *source) Next() bool { s.at++; return s.at <= s.n }
func (s *source) Err() error { return nil }

func (s *source) Values() ([]any, error) {
	r := s.record(s.at - 1)
	e := r.Entry()
	ends := s.now.Add(r.TTL)
	due := ends
	if r.Replay > 0 && r.Replay < r.TTL {
		due = s.now.Add(r.Replay)
	}
	return []any{s.epoch, int64(s.at), s.now, ends, due, int16(r.State), r.Digest[:], e.AppendTo(nil), r.Result}, nil
}
