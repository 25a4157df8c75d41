package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// listPage is how many rows one statement of List reads.
const listPage = 500

// List is part of semel.Lister. It reads through all keys from filter.After on.
// If records are damaged, the error is semel.ErrDamaged and names them, and the
// list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	if filter.Limit <= 0 {
		filter.Limit = 100
	}
	wanted := filter
	var out []semel.Record
	var damage []error
	for len(out)+len(damage) < filter.Limit {
		rows, err := s.engine.page(ctx, &filter)
		if err != nil {
			return nil, s.engine.address.explain("list", err)
		}
		for _, r := range rows {
			filter.After = r.digest
			if len(out)+len(damage) == filter.Limit {
				break
			} else if r.damage != nil {
				damage = append(damage, s.engine.damaged(r.digest, r.damage))
			} else if wanted.Matches(&r.record, r.now) {
				out = append(out, r.record)
			}
		}
		if len(rows) < listPage {
			break
		}
	}
	return out, errors.Join(damage...)
}

// listed is a row, and when it was read.
type listed struct {
	row
	now time.Time
}

// page reads the next rows that may match. Filter.Matches has the last word.
func (e *engine) page(ctx context.Context, filter *semel.Filter) ([]listed, error) {
	var t script
	t.add("SELECT ").add(e.now()).add("," + columns + " FROM semel_record WHERE digest>").bytes(filter.After[:])
	if filter.InDoubt {
		t.add(" AND state=1")
	}
	if filter.State != 0 {
		t.add(" AND state=").number(uint64(filter.State))
	}
	for _, text := range [...]string{filter.ID, filter.Scope} {
		if text != "" {
			t.add(" AND LOCATE(").bytes([]byte(text)).add(",meta)>0")
		}
	}
	t.add(" ORDER BY digest LIMIT ").number(listPage)
	var rows []listed
	err := e.with(ctx, func(s *session) error {
		rows = rows[:0]
		return s.each(ctx, string(t.b), func(_ int, values []driver.Value) {
			rows = append(rows, listed{readRow(values[1:]), instant(values[0])})
		})
	})
	return rows, err
}

// History is part of semel.Journal. The journal has no index by key, since every
// swap would pay for it: this reads through all of it.
func (s *Store) History(ctx context.Context, digest semel.Digest) ([]semel.Entry, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	e := s.engine
	var t script
	t.add("SELECT written,meta FROM semel_journal WHERE digest=").bytes(digest[:])
	var out []semel.Entry
	var damage error
	err := e.with(ctx, func(c *session) error {
		out, damage = nil, nil
		return c.each(ctx, string(t.b), func(_ int, values []driver.Value) {
			meta, _ := values[1].([]byte)
			entry, err := semel.ParseEntry(digest, meta)
			if err != nil {
				damage = e.damaged(digest, fmt.Errorf("journal: %w", err))
				return
			}
			entry.Record.WrittenAt = instant(values[0])
			out = append(out, entry)
		})
	})
	if err != nil {
		return nil, e.address.explain("read the journal", err)
	}
	slices.SortFunc(out, func(a, b semel.Entry) int { return a.Record.Version.Compare(b.Record.Version) })
	return out, damage
}

// sweepChunk is how many records one transaction of the sweeper deletes: few,
// so that the requests' commits wait little for it (INVARIANTS X7).
const sweepChunk = 256

// Sweep is part of semel.Sweeper. It deletes in small transactions. A record
// that does not decode is left where it is. The journal keeps what it has.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	if s.engine.options.ReadOnly {
		return 0, errReadOnly
	}
	s.days.look(ctx, s.engine)
	swept, skip := 0, 0
	for stopped := 0; swept < limit; {
		if err := ended(ctx); err != nil {
			return swept, err
		}
		want := min(limit-swept, sweepChunk)
		var found, deleted, damaged int
		err := s.engine.with(ctx, func(c *session) (err error) {
			ctx, cancel := s.engine.apart(ctx)
			defer cancel()
			found, deleted, damaged, err = s.engine.sweep(ctx, c, want, skip)
			return err
		})
		if code(err) == codeDeadlock && stopped < attempts {
			stopped++
			continue
		}
		if err != nil {
			return swept, s.engine.address.explain("sweep", err)
		}
		swept, skip, stopped = swept+deleted, skip+damaged, 0
		if found < want {
			break
		}
	}
	return swept, nil
}

// expired is what one transaction deletes: nothing that was written since.
type expired struct {
	jobs    []*job
	at      int64  // by when it was due, Unix microseconds
	highest uint64 // counter among them
}

func (e *engine) sweep(ctx context.Context, s *session, limit, skip int) (found, deleted, damaged int, err error) {
	var x expired
	var t script
	t.add("SELECT ").add(e.now()).add(",digest,epoch,counter,written,state,meta FROM semel_record FORCE INDEX (semel_record_due) WHERE due<=").
		add(e.now()).add(" ORDER BY due LIMIT ").number(uint64(limit)).add(" OFFSET ").number(uint64(skip))
	err = s.each(ctx, string(t.b), func(_ int, values []driver.Value) {
		found++
		r, _ := readMeta(values[1:])
		if r.damage != nil {
			damaged++
			return
		}
		x.at, x.highest = signed(values[0]), max(x.highest, r.version.Counter)
		x.jobs = append(x.jobs, &job{next: semel.Record{Digest: r.digest}})
	})
	if err != nil || len(x.jobs) == 0 {
		return found, 0, damaged, err
	}
	deleted, err = x.delete(ctx, s)
	return found, deleted, damaged, err
}

// delete takes the records away, and lifts the floor over their versions in the
// same transaction, as a claim expects.
func (x *expired) delete(ctx context.Context, s *session) (deleted int, err error) {
	var t script
	t.add("START TRANSACTION;DELETE FROM semel_record WHERE digest IN (").digests(x.jobs).add(") AND due<=").integer(x.at).
		add(" AND counter<=").number(x.highest).add(";SELECT ROW_COUNT();UPDATE semel_store SET floor=").number(x.highest).
		add(" WHERE id=1 AND floor<").number(x.highest).add(";COMMIT")
	s.dirty = true
	defer s.clean()
	err = s.each(ctx, string(t.b), func(_ int, values []driver.Value) { deleted = int(signed(values[0])) })
	if err != nil {
		return 0, fmt.Errorf("delete: %w", err)
	}
	s.dirty = false
	return deleted, nil
}
