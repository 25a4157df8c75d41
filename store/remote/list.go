package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/semelhq/semel"
)

// Abilities, as a handler names them in its greeting. Unknown names are of a
// later version and ignored.
const (
	sweeps   = "sweep"
	lists    = "list"
	journals = "journal"
	watches  = "watch"
	measures = "measure"
)

// chain puts one link for each ability in front of the core, so that semel.As
// finds what the far store has and nothing else.
func chain(c *core, abilities []string) (s semel.Store) {
	s = c
	if slices.Contains(abilities, sweeps) {
		s = &sweeper{c, s}
	}
	if slices.Contains(abilities, lists) {
		s = &lister{c, s}
	}
	if slices.Contains(abilities, journals) {
		s = &journal{c, s}
	}
	if slices.Contains(abilities, watches) {
		s = &watcher{c, s}
	}
	if slices.Contains(abilities, measures) {
		s = &measurer{c, s}
	}
	return s
}

type sweeper struct {
	*core
	next semel.Store
}

type lister struct {
	*core
	next semel.Store
}

type journal struct {
	*core
	next semel.Store
}

var (
	_ semel.Sweeper = (*sweeper)(nil)
	_ semel.Lister  = (*lister)(nil)
	_ semel.Journal = (*journal)(nil)
)

// Unwrap is part of semel.Unwrapper.
func (s *sweeper) Unwrap() semel.Store { return s.next }

// Unwrap is part of semel.Unwrapper.
func (s *lister) Unwrap() semel.Store { return s.next }

// Unwrap is part of semel.Unwrapper.
func (s *journal) Unwrap() semel.Store { return s.next }

// Sweep is part of semel.Sweeper. If the answer is lost, so is the count.
func (s *sweeper) Sweep(ctx context.Context, limit int) (int, error) {
	answer, err := s.call(ctx, verbSweep, 8, func(b []byte) []byte { return binary.BigEndian.AppendUint64(b, uint64(limit)) })
	if err != nil {
		return 0, err
	}
	o, swept := outcome(answer.byte()), int(answer.uint64())
	if o != done {
		err = answer.failure(o)
	}
	if !answer.whole() || swept < 0 {
		return 0, s.failed(verbSweep, errMalformed)
	}
	return swept, err
}

// part is the head of an answer that gives as much as fits into one message.
type part struct {
	count uint32
	cut   bool  // there is more: ask again behind the last one
	err   error // of the far store; nil is done
}

func (c *cursor) part() part {
	o := outcome(c.byte())
	p := part{cut: c.bool(), count: c.uint32()}
	if o != done {
		p.err = c.failure(o)
	}
	return p
}

// List is part of semel.Lister. What does not fit into one message is asked
// for again, so a long list is not of one instant.
func (s *lister) List(ctx context.Context, f semel.Filter) ([]semel.Record, error) {
	limit := f.Limit
	if limit == 0 {
		limit = 100
	}
	var out []semel.Record
	var errs []error
	for more := true; more && len(out) < limit; {
		f.Limit = limit - len(out)
		answer, err := s.call(ctx, verbList, 128+len(f.ID)+len(f.Scope), func(b []byte) []byte { return appendFilter(b, &f) })
		if err != nil {
			return nil, err
		}
		p := answer.part()
		for range p.count {
			r := answer.record()
			if answer.bad || !r.Held() {
				return nil, s.failed(verbList, errMalformed)
			}
			out = append(out, r)
			f.After = r.Digest
		}
		if !answer.whole() || p.cut && p.count == 0 || len(out) > limit {
			return nil, s.failed(verbList, errMalformed)
		}
		errs, more = append(errs, p.err), p.cut
	}
	return out, errors.Join(errs...)
}

// History is part of semel.Journal. What does not fit into one message is
// asked for again: entries are added at the end only.
func (s *journal) History(ctx context.Context, digest semel.Digest) ([]semel.Entry, error) {
	var out []semel.Entry
	for more := true; more; {
		answer, err := s.call(ctx, verbHistory, len(digest)+8, func(b []byte) []byte {
			return binary.BigEndian.AppendUint64(append(b, digest[:]...), uint64(len(out)))
		})
		if err != nil {
			return nil, err
		}
		p := answer.part()
		for range p.count {
			if answer.bad {
				break
			}
			out = append(out, answer.entry(digest))
		}
		if !answer.whole() || p.cut && p.count == 0 {
			return nil, s.failed(verbHistory, errMalformed)
		}
		if p.err != nil {
			return out, fmt.Errorf("%w", p.err)
		}
		more = p.cut
	}
	return out, nil
}

// A filter on the wire: state, in doubt, after, limit, id, scope.
func appendFilter(b []byte, f *semel.Filter) []byte {
	b = appendBool(append(b, byte(f.State)), f.InDoubt)
	b = binary.BigEndian.AppendUint64(append(b, f.After[:]...), uint64(f.Limit))
	return appendBytes(appendBytes(b, []byte(f.ID)), []byte(f.Scope))
}

func (c *cursor) filter() semel.Filter {
	return semel.Filter{
		State: semel.State(c.byte()), InDoubt: c.bool(), After: c.digest(), Limit: int(int64(c.uint64())),
		ID: string(c.bytes()), Scope: string(c.bytes()),
	}
}
