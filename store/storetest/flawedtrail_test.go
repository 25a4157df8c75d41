package storetest

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

func (s *plain) List(ctx context.Context, f semel.Filter) ([]semel.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := f.Limit
	if limit == 0 {
		limit = 100
	}
	var out []semel.Record
	for _, d := range slices.SortedFunc(maps.Keys(s.records), func(a, b semel.Digest) int { return bytes.Compare(a[:], b[:]) }) {
		r := s.records[d]
		if s.matches(f, r) && len(out) < limit {
			out = append(out, r)
		} else if s.flaw == "the limit counts what is looked at" {
			limit--
		}
	}
	if s.flaw == "a list has no order" {
		slices.Reverse(out)
	}
	return out, nil
}

func (s *plain) matches(f semel.Filter, r semel.Record) bool {
	switch s.flaw {
	case "After is included":
		if r.Digest == f.After {
			return true
		}
	case "every pending record is in doubt":
		if f.InDoubt {
			return r.State == semel.Pending
		}
	case "the ID is a pattern":
		if f.ID == "%" {
			return true
		}
	case "the ID is compared without case":
		f.ID, r.Key.ID = strings.ToLower(f.ID), strings.ToLower(r.Key.ID)
	}
	return f.Matches(&r, s.now())
}

func (s *plain) History(ctx context.Context, d semel.Digest) ([]semel.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.entries[d])
	if s.flaw == "newest entry first" {
		slices.Reverse(out)
	}
	return out, nil
}

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

func (s *plain) Days(context.Context) ([]time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[time.Time]bool)
	for _, lines := range s.entries {
		for _, l := range lines {
			all[dayOf(l.Record.WrittenAt)] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), time.Time.Compare), nil
}

func (s *plain) Lines(_ context.Context, day time.Time) iter.Seq2[semel.Entry, error] {
	return func(yield func(semel.Entry, error) bool) {
		s.mu.Lock()
		all := maps.Clone(s.entries)
		s.mu.Unlock()
		for _, lines := range all {
			for _, l := range lines {
				if (dayOf(l.Record.WrittenAt).Equal(day) || s.flaw == "lines of all days in each") && !yield(l, nil) {
					return
				}
			}
		}
	}
}

func (s *plain) DropDay(_ context.Context, day time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !day.Before(dayOf(s.now())) && s.flaw != "drops today" {
		return errors.New("plain: this day is not over")
	}
	for d, lines := range s.entries {
		before := len(lines)
		s.entries[d] = slices.DeleteFunc(lines, func(l semel.Entry) bool { return dayOf(l.Record.WrittenAt).Equal(day) })
		if s.flaw == "drops a day and its records" && len(s.entries[d]) < before {
			delete(s.records, d)
		}
	}
	return nil
}

func (s *plain) Measure(context.Context) (semel.Measure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := semel.Measure{At: s.now(), JournalBytes: -1}
	if s.flaw == "measures nothing" {
		return m, nil
	}
	for _, r := range s.records {
		m.Records++
		m.Bytes += int64(len(r.Result)) + 200
		older := m.OldestPending.IsZero() || r.WrittenAt.Before(m.OldestPending) != (s.flaw == "the newest pending record")
		if r.State == semel.Pending && older {
			m.OldestPending = r.WrittenAt
		}
		due := r.Expires()
		if s.flaw != "what is spent is not due" && r.Replay > 0 && r.WrittenAt.Add(r.Replay).Before(due) {
			due = r.WrittenAt.Add(r.Replay)
		}
		if r.State != semel.Pending && !m.At.Before(due) && (m.Overdue.IsZero() || due.Before(m.Overdue)) {
			m.Overdue = due
		}
	}
	return m, nil
}
