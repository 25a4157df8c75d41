package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/semelhq/semel"
)

const (
	sqlJournal = "SELECT digest, meta FROM journal WHERE length(digest) > 0"
	sqlHistory = "SELECT meta FROM journal WHERE digest = ? ORDER BY n"
	sqlDays    = "SELECT DISTINCT day FROM journal_day ORDER BY day"
	// A span is the lines from one row of journal_day to the next.
	sqlSpans = "SELECT n, (SELECT min(n) FROM journal_day WHERE n > d.n) FROM journal_day d WHERE day = ? ORDER BY n"
	sqlLines = "SELECT n, digest, meta FROM journal WHERE n >= ? AND n < ? AND length(digest) > 0 ORDER BY n LIMIT ?"
	sqlNext  = "SELECT min(n) FROM journal WHERE n >= ? AND n < ?"
	sqlDrop  = "DELETE FROM journal WHERE n >= ? AND n < ?"
	sqlOver  = "DELETE FROM journal_day WHERE n = ?"
	sqlTail  = "SELECT n, length(digest) FROM journal ORDER BY n DESC LIMIT 1"
)

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

// dayOf is the day of a time, in days since 1970, UTC.
func dayOf(t time.Time) int64 {
	const seconds = 24 * 60 * 60
	s := t.Unix()
	if s < 0 {
		return (s+1)/seconds - 1
	}
	return s / seconds
}

func beginning(day int64) time.Time { return time.Unix(0, 0).UTC().AddDate(0, 0, int(day)) }

// Days is part of semel.Days.
func (s *Store) Days(ctx context.Context) ([]time.Time, error) {
	var out []time.Time
	err := s.file.scan(ctx, "read the journal's days", sqlDays, func(row []driver.Value) bool {
		day, _ := row[0].(int64)
		out = append(out, beginning(day))
		return true
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// span is the lines from one number on, up to another.
type span struct {
	from, to int64
}

func spanOf(row []driver.Value) span {
	from, _ := row[0].(int64)
	to, ok := row[1].(int64)
	if !ok {
		to = math.MaxInt64
	}
	return span{from, to}
}

// linesPage is how many lines are read at once.
const linesPage = 1000

// Lines is part of semel.Days. It reads some lines at a time, and keeps nobody
// waiting while its caller deals with them.
func (s *Store) Lines(ctx context.Context, day time.Time) iter.Seq2[semel.Entry, error] {
	return func(yield func(semel.Entry, error) bool) {
		var spans []span
		err := s.file.scan(ctx, "read the journal's days", sqlSpans, func(row []driver.Value) bool {
			spans = append(spans, spanOf(row))
			return true
		}, dayOf(day))
		for i := 0; err == nil && i < len(spans); {
			var page []semel.Entry
			page, err = s.file.lines(ctx, &spans[i])
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if len(page) == 0 {
				i++
			}
		}
		if err != nil {
			yield(semel.Entry{}, err)
		}
	}
}

// lines reads the next lines of a span, and takes them off it.
func (f *file) lines(ctx context.Context, from *span) ([]semel.Entry, error) {
	page := make([]semel.Entry, 0, linesPage)
	var damage error
	err := f.scan(ctx, "read the journal", sqlLines, func(row []driver.Value) bool {
		n, _ := row[0].(int64)
		digest, _ := row[1].([]byte)
		meta, _ := row[2].([]byte)
		e, err := semel.Entry{}, errDecode
		if len(digest) == len(semel.Digest{}) {
			e, err = decodeMeta(semel.Digest(digest), meta)
		}
		if err != nil {
			damage = fmt.Errorf("%w: %s: line %d of the journal: %w", semel.ErrDamaged, f.path, n, err)
			return false
		}
		page = append(page, e)
		from.from = n + 1
		return true
	}, from.from, from.to, int64(linesPage))
	if err == nil && len(page) == 0 {
		err = damage // else it is met again, first
	}
	return page, err
}

// dropRest is how much longer than a transaction DropDay rests after it.
const dropRest = 4

// DropDay is part of semel.Days. It works in small transactions and rests four
// times as long after each as it took, so that requests wait little for it; what
// it has done when ctx ends stays done.
func (s *Store) DropDay(ctx context.Context, day time.Time) error {
	f := s.file
	switch {
	case s.batch == nil:
		return errReadOnly
	case dayOf(day) >= dayOf(f.now()):
		return fmt.Errorf("sqlite: the day %s is not over, and its lines of the journal stay", day.UTC().Format(time.DateOnly))
	}
	for {
		if err := ended(ctx); err != nil {
			return err
		}
		began := time.Now()
		if more, err := f.dropSome(dayOf(day)); err != nil || !more {
			return err
		}
		rest := time.NewTimer(dropRest * max(time.Since(began), handOver))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
		}
	}
}

// dropSome deletes some lines of a day, and tells whether there may be more.
func (f *file) dropSome(day int64) (more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	began, chunk := time.Now(), int64(f.drops.size())
	defer func() { f.drops.took(int(chunk), time.Since(began)) }()
	err = f.tidy(func() (bool, error) {
		var first span
		if err := f.conn.first(sqlSpans, func(row []driver.Value) { first, more = spanOf(row), true }, day); err != nil || !more {
			return false, f.explain("drop a day", err)
		}
		if first.to == math.MaxInt64 {
			if err := f.keepLast(&first); err != nil {
				return false, f.explain("drop a day", err)
			}
		}
		at, left := int64(0), false
		err := f.conn.first(sqlNext, func(row []driver.Value) { at, left = row[0].(int64) }, first.from, first.to)
		switch {
		case err != nil:
		case left:
			_, err = f.conn.exec(sqlDrop, at, min(at+chunk, first.to))
		default:
			_, err = f.conn.exec(sqlOver, first.from)
		}
		return true, f.explain("drop a day", err)
	})
	return more, err
}

// keepLast leaves the newest line out of the span, since the next number is found
// there. If it is of the day, a line of nobody's is put behind it.
func (f *file) keepLast(of *span) error {
	last, digest := int64(0), int64(0)
	tail := func(row []driver.Value) {
		last, _ = row[0].(int64)
		digest, _ = row[1].(int64)
	}
	err := f.conn.first(sqlTail, tail)
	if err == nil && digest > 0 {
		if _, err = f.conn.exec(sqlMark); err == nil {
			err = f.conn.first(sqlTail, tail)
		}
	}
	of.to = last
	return err
}
