package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

const (
	sqlExpired = "SELECT n, " + columns + " FROM record WHERE state > 1 AND due <= ? ORDER BY due LIMIT ? OFFSET ?"
	sqlSweep   = "DELETE FROM record WHERE n = ?"
	sqlBury    = "UPDATE record SET n = (SELECT max(n) FROM record) + 1, due = ?, meta = ?, result = NULL WHERE n = ?"
	sqlList    = "SELECT " + columns + " FROM record WHERE digest > ?1" + sqlMatches
	sqlPending = "SELECT " + columns + " FROM record INDEXED BY record_pending WHERE digest > ?1 AND state = 1" + sqlMatches
	sqlMatches = " AND (?2 = 0 OR state = ?2) AND (?3 = 0 OR (state = 1 AND due <= ?3))" +
		" AND (?4 IS NULL OR instr(meta, ?4) > 0) AND (?5 IS NULL OR instr(meta, ?5) > 0) ORDER BY digest"
	sqlAll = "SELECT " + columns + " FROM record NOT INDEXED"
)

// A transaction of the sweeper, or of who drops a day, is to take no longer than
// tidyTime, so that the requests' commits wait little for it (INVARIANTS X7). How
// much one does follows from how long the last ones took.
const (
	tidyTime  = 2 * time.Millisecond
	tidyLeast = 16
	tidyMost  = 512
)

// portion is how much one such transaction does.
type portion struct{ n int }

func (p *portion) size() int { return min(max(p.n, tidyLeast), tidyMost) }

// took notes how long a transaction took that did so much.
func (p *portion) took(did int, d time.Duration) {
	switch {
	case d > tidyTime:
		p.n = max(did/2, tidyLeast)
	case did >= p.size():
		p.n = min(p.size()+tidyLeast, tidyMost)
	}
}

// handOver lets those who wait for the lock have it, before it is taken again.
const handOver = 100 * time.Microsecond

// Sweep is part of semel.Sweeper. It works in small transactions. A record that
// does not decode is left where it is. The journal keeps what it has.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	if s.batch == nil {
		return 0, errReadOnly
	}
	swept, skip := 0, 0
	for swept < limit {
		if err := ended(ctx); err != nil {
			return swept, err
		}
		want := min(limit-swept, s.file.sweeping())
		some, damaged, err := s.file.sweepSome(want, skip)
		if err != nil {
			return swept, err
		}
		swept += some
		skip += damaged
		if some+damaged < want {
			break
		}
		time.Sleep(handOver)
	}
	return swept, nil
}

// sweeping is how many records the next transaction deals with.
func (f *file) sweeping() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sweeps.size()
}

func (f *file) sweepSome(limit, skip int) (swept, damaged int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	began := time.Now()
	defer func() { f.sweeps.took(swept+damaged, time.Since(began)) }()
	err = f.tidy(func() (bool, error) {
		now := f.now()
		rows := make(map[int64]semel.Record)
		err := f.expired.query(context.Background(), func(row []driver.Value) bool {
			n, _ := row[0].(int64)
			r, err := decodeRow(row[1:])
			if err != nil {
				damaged++
				return true
			}
			r.Result = nil
			rows[n] = r
			return true
		}, now.UnixNano(), int64(limit), int64(skip))
		for n, r := range rows {
			if err == nil {
				err = f.sweepOne(n, &r, now)
			}
		}
		swept = len(rows)
		return swept > 0, f.explain("sweep", err)
	})
	if err != nil {
		return 0, 0, err
	}
	return swept, damaged, nil
}

// sweepOne deletes a record, or makes a tombstone of it, and puts it behind all
// others: those beside it become tombstones as well, and so whole pages go free.
func (f *file) sweepOne(n int64, r *semel.Record, now time.Time) error {
	if !now.Before(r.Expires()) {
		_, err := f.sweep.exec(n)
		return err
	}
	grave := r.Tombstone()
	e := grave.Entry()
	f.meta = e.AppendTo(f.meta[:0])
	_, err := f.bury.exec(due(&grave), f.meta, n)
	return err
}

// scan runs a query that reads much on a reader of its own, and hands over the
// rows until visit says that it is enough. what names it in errors.
func (f *file) scan(ctx context.Context, what, sql string, visit func(row []driver.Value) bool, args ...driver.Value) error {
	if err := ended(ctx); err != nil {
		return err
	}
	r, err := f.borrow(ctx)
	if err != nil {
		return err
	}
	defer f.giveBack(r)
	all, err := compile(r.raw, sql)
	if err != nil {
		return f.explain(what, err)
	}
	return f.explain(what, errors.Join(all.query(ctx, visit, args...), all.raw.Close()))
}

// List is part of semel.Lister. It reads through all keys from filter.After
// on, some 400,000 a second; what is pending or in doubt has an index. If records are damaged, the error is
// semel.ErrDamaged and names them, and the list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	f := s.file
	if filter.Limit == 0 {
		filter.Limit = 100
	}
	now := f.now()
	var out []semel.Record
	var damage []error
	sql := sqlList
	if filter.InDoubt || filter.State == semel.Pending {
		sql = sqlPending
	}
	err := f.scan(ctx, "list", sql, func(row []driver.Value) bool {
		record, err := decodeRow(row)
		if err != nil {
			key, _ := row[0].([]byte)
			damage = append(damage, fmt.Errorf("digest %x: %w", key, err))
		} else if filter.Matches(&record, now) {
			out = append(out, record)
		}
		return len(out)+len(damage) < filter.Limit
	}, listArgs(&filter, now.UnixNano())...)
	if err != nil {
		return nil, err
	}
	if len(damage) > 0 {
		return out, fmt.Errorf("%w in %s: %w", semel.ErrDamaged, f.path, errors.Join(damage...))
	}
	return out, nil
}

// listArgs narrows the rows down to what may match; Filter.Matches has the
// last word.
func listArgs(filter *semel.Filter, now int64) []driver.Value {
	args := []driver.Value{filter.After[:], int64(filter.State), int64(0), nil, nil}
	if filter.InDoubt {
		args[2] = now
	}
	if filter.ID != "" {
		args[3] = []byte(filter.ID)
	}
	if filter.Scope != "" {
		args[4] = []byte(filter.Scope)
	}
	return args
}

// Check reads the whole file, and gives an error that is semel.ErrDamaged if
// something in it contradicts something else. No reading of one key can notice
// that a bit of the index has flipped and hides the key; this does. It waits for
// nobody, and takes about a second for 100,000 records.
func (s *Store) Check(ctx context.Context) error {
	f := s.file
	var found []error
	note := func(err error) {
		if err != nil && len(found) < 10 {
			found = append(found, err)
		}
	}
	for _, pass := range []struct {
		sql string
		row func(row []driver.Value) error
	}{
		{"PRAGMA integrity_check(10)", func(row []driver.Value) error {
			if row[0] == "ok" {
				return nil
			}
			return fmt.Errorf("integrity_check: %v", row[0])
		}},
		{sqlAll, func(row []driver.Value) error {
			_, err := decodeRow(row)
			return err
		}},
		{sqlJournal, func(row []driver.Value) error {
			digest, _ := row[0].([]byte)
			meta, _ := row[1].([]byte)
			if len(digest) != len(semel.Digest{}) {
				return errDecode
			}
			_, err := decodeMeta(semel.Digest(digest), meta)
			return err
		}},
	} {
		err := f.scan(ctx, "check", pass.sql, func(row []driver.Value) bool {
			note(pass.row(row))
			return true
		})
		if err != nil {
			return err
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: %s: %w", semel.ErrDamaged, f.path, errors.Join(found...))
	}
	return nil
}

const (
	sqlRecords = "SELECT count(*) FROM record"
	sqlOldest  = "SELECT " + columns + " FROM record INDEXED BY record_pending WHERE state = 1 ORDER BY counter"
	sqlOverdue = "SELECT min(due) FROM record INDEXED BY record_due WHERE state > 1 AND due <= ?"
	sqlPages   = "SELECT page_size * page_count FROM pragma_page_size, pragma_page_count"
	sqlOthers  = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('record', 'journal', 'journal_day', 'store')"
	// A record's bytes, with its share of the indexes. Digests are hashes: the first
	// are as good as any.
	sqlRow = "SELECT avg(length(meta) + ifnull(length(result), 0) + 130) FROM (SELECT meta, result FROM record ORDER BY digest LIMIT 200)"
	// Lines of the journal, as numbers go, and the bytes of one: its digest, its meta
	// and what a row costs. Those that began a connection's work are not worth counting.
	sqlLength = "SELECT (SELECT max(n) FROM journal) - (SELECT min(n) FROM journal) + 1"
	sqlLine   = "SELECT avg(length(digest) + length(meta) + 12) FROM" +
		" (SELECT * FROM (SELECT digest, meta FROM journal ORDER BY n LIMIT 200) UNION ALL SELECT * FROM (SELECT digest, meta FROM journal ORDER BY n DESC LIMIT 200))"
)

// Measure is part of semel.Measurer. It counts the records by an index, a million
// in 5 ms, or in 100 ms if that has to be read from the disk; the bytes of the journal are reckoned from its numbers
// and a sample, and those of the records are the rest of the file, or reckoned as
// well if the file has the application's tables, too.
func (s *Store) Measure(ctx context.Context) (semel.Measure, error) {
	f := s.file
	m := semel.Measure{At: f.now()}
	number := func(sql string, args ...driver.Value) (n int64, err error) {
		err = f.scan(ctx, "measure", sql, func(row []driver.Value) bool {
			switch v := row[0].(type) {
			case int64:
				n = v
			case float64:
				n = int64(v)
			}
			return false
		}, args...)
		return n, err
	}
	var errs [7]error
	var lines, line, overdue, others, row int64
	m.Records, errs[0] = number(sqlRecords)
	m.Bytes, errs[1] = number(sqlPages)
	lines, errs[2] = number(sqlLength)
	line, errs[3] = number(sqlLine)
	overdue, errs[4] = number(sqlOverdue, m.At.UnixNano())
	others, errs[5] = number(sqlOthers)
	row, errs[6] = number(sqlRow)
	if err := errors.Join(errs[:]...); err != nil {
		return semel.Measure{}, err
	}
	m.JournalBytes = min(lines*line, m.Bytes)
	m.Bytes -= m.JournalBytes
	if others > 0 {
		m.Bytes = min(m.Records*row, m.Bytes)
	}
	if overdue != 0 {
		m.Overdue = time.Unix(0, overdue)
	}
	err := f.scan(ctx, "measure", sqlOldest, func(row []driver.Value) bool {
		r, err := decodeRow(row)
		if err == nil {
			m.OldestPending = r.WrittenAt
		}
		return err != nil // a damaged one tells nothing: the next
	})
	return m, err
}
