package mysql

import (
	"context"
	"database/sql/driver"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// Days is part of semel.Days: a partition each. The last partition, where lines
// are that found no day, is read through; it has none unless days could not be made.
func (s *Store) Days(ctx context.Context) ([]time.Time, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	e := s.engine
	var found []time.Time
	err := e.with(ctx, func(at *session) error {
		c, err := e.calendar(ctx, at)
		if err != nil {
			return err
		}
		var t script
		for i, p := range c.days {
			t.add("SELECT ").integer(int64(i)).add(" FROM semel_journal PARTITION (`" + p.name + "`) LIMIT 1;")
		}
		found = nil
		err = at.each(ctx, string(t.add("DO 0").b), func(_ int, row []driver.Value) { found = append(found, c.days[signed(row[0])].day) })
		if err != nil || !c.stray {
			return err
		}
		more, err := strays(ctx, at)
		found = append(found, more...)
		return err
	})
	if err != nil {
		return nil, e.address.explain("list the journal's days", err)
	}
	slices.SortFunc(found, time.Time.Compare)
	return slices.CompactFunc(found, time.Time.Equal), nil
}

// linesPage is how many lines one statement reads.
const linesPage = 500

// Lines is part of semel.Days. It reads in pages, and locks nothing, so that
// nothing stays open while the caller takes its time. Of a day that has been over
// for an hour it tells no more, with semel.ErrUnavailable, where it meets a line
// whose transaction is open: the day is not complete yet.
func (s *Store) Lines(ctx context.Context, day time.Time) iter.Seq2[semel.Entry, error] {
	e, r := s.engine, reader{day: dayOf(day)}
	return func(yield func(semel.Entry, error) bool) {
		for {
			err := ended(ctx)
			if err == nil {
				err = e.with(ctx, func(at *session) error { return r.page(ctx, at, e) })
			}
			if err != nil {
				yield(semel.Entry{}, e.address.explain("read the journal", err))
				return
			}
			for i := range r.lines {
				if !yield(r.lines[i].Entry, r.lines[i].err) || r.lines[i].err != nil {
					return
				}
			}
			if len(r.lines) < linesPage {
				return
			}
		}
	}
}

// reader is how far a day was read.
type reader struct {
	day   time.Time
	from  string // what is read, and of it the lines above last
	over  bool   // the day is to be complete
	last  uint64
	lines []journalLine
}

type journalLine struct {
	semel.Entry
	err error
}

// begin finds where the day's lines are. The lines of one key are in the order of
// their numbers: each was written while its row was locked.
func (r *reader) begin(ctx context.Context, s *session, e *engine) error {
	c, err := e.calendar(ctx, s)
	if err != nil {
		return err
	}
	name, alone := c.of(r.day)
	r.from = " FROM semel_journal PARTITION (`" + name + "`) WHERE"
	if !alone {
		r.from += within(r.day)
	}
	r.over = c.now.Sub(r.day) >= oneDay+time.Hour
	return nil
}

// within is a condition for lines of a day.
func within(day time.Time) string {
	return string(new(script).add(" written>=").integer(day.UnixMicro()).add(" AND written<").integer(day.Add(oneDay).UnixMicro()).add(" AND").b)
}

// page reads the next lines.
func (r *reader) page(ctx context.Context, s *session, e *engine) error {
	if r.from == "" {
		if err := r.begin(ctx, s, e); err != nil {
			return err
		}
	}
	var open map[uint64]bool // or not
	var err error
	if r.over {
		if open, err = r.uncommitted(ctx, s); err != nil {
			return err
		}
	}
	var t script
	t.add("SELECT n,written,digest,meta" + r.from + " n>").number(r.last).add(" ORDER BY n LIMIT ").number(linesPage)
	r.lines = r.lines[:0]
	err = s.each(ctx, string(t.b), func(_ int, row []driver.Value) {
		r.last = unsigned(row[0])
		delete(open, r.last)
		r.lines = append(r.lines, e.line(row[1:]))
	})
	if err == nil && len(open) > 0 {
		r.lines = nil
		return fmt.Errorf("%w: mysql: a transaction that is still open has written lines of that day, which would be missed; end it, or try again later", semel.ErrUnavailable)
	}
	return err
}

// uncommitted gives the numbers of the next lines, also of those that are not
// committed.
func (r *reader) uncommitted(ctx context.Context, s *session) (map[uint64]bool, error) {
	var t script
	t.add(dirty + "SELECT n" + r.from + " n>").number(r.last).add(" ORDER BY n LIMIT ").number(linesPage)
	found := make(map[uint64]bool, linesPage)
	err := s.each(ctx, string(t.b), func(_ int, row []driver.Value) { found[unsigned(row[0])] = true })
	return found, err
}

// line decodes written, digest and meta.
func (e *engine) line(row []driver.Value) (l journalLine) {
	key, _ := row[1].([]byte)
	meta, _ := row[2].([]byte)
	var digest semel.Digest
	copy(digest[:], key)
	if l.Entry, l.err = semel.ParseEntry(digest, meta); l.err != nil {
		return journalLine{err: e.damaged(digest, fmt.Errorf("journal: %w", l.err))}
	}
	l.Record.WrittenAt = instant(row[0])
	return l
}

// DropDay is part of semel.Days. It drops a partition, which takes the same time
// however long the day is; lines that found no day are deleted, in small
// transactions. The records are not touched; the history of keys on that day is
// gone. It needs the rights to ALTER and DROP, and on MariaDB to LOCK TABLES. For a
// moment it needs the journal for itself: on MariaDB it waits for 30 ms at most, so
// that requests hardly wait behind it, and tries again, for some seconds in all;
// on MySQL it waits for a second, once. Then the error is semel.ErrUnavailable: a
// transaction that stays open has written to the journal.
func (s *Store) DropDay(ctx context.Context, day time.Time) error {
	if s.engine.options.ReadOnly {
		return errReadOnly
	}
	if err := ended(ctx); err != nil {
		return err
	}
	e, day := s.engine, dayOf(day)
	return e.address.explain("drop a day of the journal", e.with(ctx, func(at *session) error {
		c, err := e.calendar(ctx, at)
		switch {
		case err != nil:
			return err
		case !day.Before(dayOf(c.now)):
			return errNotOver
		}
		name, own := c.of(day)
		if own {
			return e.dropPartition(ctx, at, day, name)
		}
		return deleteStrays(ctx, at, day)
	}))
}

const errNotOver = refused("the day is not over by the server's clock: only days that are over are dropped")

func (e *engine) dropPartition(ctx context.Context, s *session, day time.Time, name string) error {
	return alone(ctx, s, "semel days", func() error {
		again, err := e.calendar(ctx, s)
		if err != nil {
			return err
		}
		if _, there := again.of(day); !there {
			return nil // another has dropped it
		}
		return reshape(ctx, s, "ALTER TABLE semel_journal DROP PARTITION `"+name+"`")
	})
}

// strayChunk is how many lines one transaction deletes.
const strayChunk = 500

// deleteStrays deletes a day's lines from the last partition. It finds them without
// locks and deletes each by its whole key, so that it waits for no line of today.
func deleteStrays(ctx context.Context, s *session, day time.Time) error {
	for last := uint64(0); ; {
		var find, remove script
		find.add("SELECT n,written FROM semel_journal PARTITION (rest) WHERE" + within(day) + " n>").number(last).add(" ORDER BY n LIMIT ").number(strayChunk)
		remove.add("START TRANSACTION;")
		n := 0
		err := s.each(ctx, string(find.b), func(_ int, row []driver.Value) {
			n, last = n+1, unsigned(row[0])
			remove.add("DELETE FROM semel_journal WHERE n=").number(last).add(" AND written=").integer(signed(row[1])).add(";")
		})
		if err != nil || n == 0 {
			return err
		}
		s.dirty = true
		err = s.do(ctx, string(remove.add("COMMIT").b))
		s.dirty = err != nil
		s.clean()
		if err != nil {
			return err
		}
	}
}
