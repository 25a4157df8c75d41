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

// List is part of semel.Lister. What is pending or in doubt is found by an index;
// else it reads through all keys from filter.After on.
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
	t.add("SELECT ").add(e.now()).add("," + columns + " FROM semel_record")
	if filter.InDoubt || filter.State == semel.Pending { // within one due the index is by digest
		t.add(" FORCE INDEX (semel_record_due) WHERE due IS NULL AND digest>").bytes(filter.After[:])
	} else {
		t.add(" WHERE digest>").bytes(filter.After[:])
	}
	if filter.State != 0 && filter.State != semel.Pending {
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

// exactly is how many records are counted at most.
const exactly = 20_000

// Measure is part of semel.Measurer. Up to 20,000 records are counted; of more, and
// of bytes, the server's statistics tell, which it makes anew when a tenth of a table
// has changed. Bytes has no room that whole extents leave free in the table's file.
// What is pending is found by an index, and each such record is looked at: there are few.
func (s *Store) Measure(ctx context.Context) (semel.Measure, error) {
	if err := ended(ctx); err != nil {
		return semel.Measure{}, err
	}
	e := s.engine
	m := semel.Measure{Bytes: -1, JournalBytes: -1}
	var t script
	// MySQL would tell what its statistics were up to a day ago; to MariaDB that is a comment.
	t.add("SELECT /*+ SET_VAR(information_schema_stats_expiry=0) */ TABLE_NAME,TABLE_ROWS,DATA_LENGTH+INDEX_LENGTH FROM information_schema.TABLES" +
		" WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME IN ('semel_record','semel_journal');SELECT ").add(e.now()).
		add(",(SELECT COUNT(*) FROM (SELECT due FROM semel_record FORCE INDEX (semel_record_due) LIMIT ").number(exactly + 1).
		add(") few),(SELECT MIN(written) FROM semel_record FORCE INDEX (semel_record_due) WHERE due IS NULL)," +
			"(SELECT due FROM semel_record FORCE INDEX (semel_record_due) WHERE due IS NOT NULL ORDER BY due LIMIT 1)")
	err := e.with(ctx, func(c *session) error {
		return c.each(ctx, string(t.b), func(set int, values []driver.Value) {
			switch {
			case set == 0 && text(values[0]) == "semel_record":
				m.Records, m.Bytes = signed(values[1]), signed(values[2])
			case set == 0:
				m.JournalBytes = signed(values[2])
			default:
				noteMeasure(&m, values)
			}
		})
	})
	return m, e.address.explain("measure", err)
}

// noteMeasure takes what the tables themselves tell.
func noteMeasure(m *semel.Measure, values []driver.Value) {
	m.At = instant(values[0])
	if n := signed(values[1]); n <= exactly {
		m.Records = n
	} else {
		m.Records, m.Estimated = max(m.Records, n), true
	}
	if values[2] != nil {
		m.OldestPending = instant(values[2])
	}
	if values[3] != nil && signed(values[3]) <= signed(values[0]) {
		m.Overdue = instant(values[3])
	}
}
