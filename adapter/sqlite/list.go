package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/semelhq/semel"
)

const (
	sqlExpired = "SELECT n, " + columns + " FROM entry WHERE state > 1 AND expires <= ? ORDER BY expires LIMIT ? OFFSET ?"
	sqlSweep   = "DELETE FROM entry WHERE n = ? AND state > 1"
	sqlList    = "SELECT " + columns + " FROM entry WHERE digest > ?1 AND kind = 1" +
		" AND (?2 = 0 OR state = ?2) AND (?3 = 0 OR (state = 1 AND expires <= ?3))" +
		" AND (?4 IS NULL OR instr(meta, ?4) > 0) AND (?5 IS NULL OR instr(meta, ?5) > 0) ORDER BY digest"
	sqlAll     = "SELECT " + columns + " FROM entry NOT INDEXED WHERE kind = 1"
	sqlJournal = "SELECT digest, meta FROM entry WHERE kind = 0 AND length(digest) > 0"
	sqlHistory = "SELECT meta FROM entry WHERE digest = ? AND kind = 0 ORDER BY n"
)

// sweepChunk is how many records one transaction of the sweeper deletes: few,
// so that the requests' commits wait little for it (INVARIANTS X7).
const sweepChunk = 256

// Sweep is part of semel.Sweeper. It deletes in small transactions. A record
// that does not decode is left where it is. The journal keeps what it has.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	if s.batch == nil {
		return 0, errReadOnly
	}
	swept, skip := 0, 0
	for swept < limit {
		if err := ended(ctx); err != nil {
			return swept, err
		}
		want := min(limit-swept, sweepChunk)
		deleted, damaged, err := s.file.sweepSome(want, skip)
		if err != nil {
			return swept, err
		}
		swept += deleted
		skip += damaged
		if deleted+damaged < want {
			break
		}
	}
	return swept, nil
}

func (f *file) sweepSome(limit, skip int) (deleted, damaged int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.transact(func() (bool, error) {
		var rows []int64
		err := f.expired.query(context.Background(), func(row []driver.Value) bool {
			n, _ := row[0].(int64)
			if _, err := decodeRow(row[1:]); err != nil {
				damaged++
			} else {
				rows = append(rows, n)
			}
			return true
		}, f.now().UnixNano(), int64(limit), int64(skip))
		for _, n := range rows {
			if err == nil {
				_, err = f.sweep.exec(n)
			}
		}
		deleted = len(rows)
		return deleted > 0, f.explain("sweep", err)
	})
	if err != nil {
		return 0, 0, err
	}
	return deleted, damaged, nil
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
// on, some 400,000 a second. If records are damaged, the error is
// semel.ErrDamaged and names them, and the list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	f := s.file
	if filter.Limit == 0 {
		filter.Limit = 100
	}
	now := f.now()
	var out []semel.Record
	var damage []error
	err := f.scan(ctx, "list", sqlList, func(row []driver.Value) bool {
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

// History is part of semel.Journal. The journal has no index by key, since
// every swap would pay for it: this reads through all of it, about two
// million entries a second.
func (s *Store) History(ctx context.Context, digest semel.Digest) ([]semel.Entry, error) {
	f := s.file
	var out []semel.Entry
	var damage error
	err := f.scan(ctx, "read the journal", sqlHistory, func(row []driver.Value) bool {
		meta, _ := row[0].([]byte)
		e, err := decodeMeta(digest, meta)
		if err != nil {
			damage = damaged(f.path, digest, fmt.Errorf("journal: %w", err))
			return true
		}
		out = append(out, e)
		return true
	}, digest[:])
	if err != nil {
		return nil, err
	}
	return out, damage
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
