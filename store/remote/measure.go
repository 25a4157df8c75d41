package remote

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/semelhq/semel"
)

type measurer struct {
	*core
	next semel.Store
}

var _ semel.Measurer = (*measurer)(nil)

// Unwrap is part of semel.Unwrapper.
func (s *measurer) Unwrap() semel.Store { return s.next }

// Measure is part of semel.Measurer: how much the far store holds.
func (s *measurer) Measure(ctx context.Context) (semel.Measure, error) {
	answer, err := s.call(ctx, verbMeasure, 0, func(b []byte) []byte { return b })
	if err != nil {
		return semel.Measure{}, err
	}
	var m semel.Measure
	if o := outcome(answer.byte()); o == done {
		m = answer.measure()
	} else {
		err = answer.failure(o)
	}
	if !answer.whole() {
		return semel.Measure{}, s.failed(verbMeasure, errMalformed)
	}
	return m, err
}

func (h *Handler) measured(ctx context.Context, in *cursor, out *reply) bool {
	if !in.whole() || h.measure == nil {
		return false
	}
	m, err := h.measure.Measure(ctx)
	if err != nil {
		out.fail(err)
		return true
	}
	out.b = appendMeasure(append(out.b, byte(done)), &m)
	return true
}

// A measure on the wire:
//
//	8     the far store's clock, Unix nanoseconds, never 0
//	8     how many records
//	1     1 if that is an estimate, else 0
//	8 8   bytes of the records and of the journal; -1 if not known
//	8 8   when the oldest pending record was written, and since when one is due; 0: none
func appendMeasure(b []byte, m *semel.Measure) []byte {
	b = binary.BigEndian.AppendUint64(appendTime(b, m.At), uint64(m.Records))
	b = appendBool(b, m.Estimated)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(m.JournalBytes))
	return appendTime(appendTime(b, m.OldestPending), m.Overdue)
}

// measure reads what appendMeasure wrote.
func (c *cursor) measure() semel.Measure {
	number := func(least int64) int64 {
		n := int64(c.uint64())
		c.bad = c.bad || n < least
		return n
	}
	perhaps := func() time.Time {
		if n := int64(c.uint64()); n != 0 {
			return time.Unix(0, n)
		}
		return time.Time{}
	}
	m := semel.Measure{At: c.time(), Records: number(0), Estimated: c.bool(), Bytes: number(-1), JournalBytes: number(-1)}
	m.OldestPending, m.Overdue = perhaps(), perhaps()
	return m
}
