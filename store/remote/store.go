package remote

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/semelhq/semel"
)

// Store is a semel.Store that another process serves. It is safe for
// concurrent use.
//
// It takes batches, whether or not the far store does: that is one request in
// any case. A Sweeper, a Lister, a Journal and a Watcher it is only if the far
// store is one, and then they are reached by [semel.As].
type Store struct {
	core        *core
	abilities   semel.Store
	description semel.Description
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
	_ semel.Unwrapper = (*Store)(nil)
)

// Get is part of semel.Store.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	return s.core.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store: one round trip, sent once. If the
// answer does not come back whole, nobody knows what became of it. A record
// that is larger than MaxBytes of either end is [semel.ErrRejected].
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	return s.core.CompareAndSwap(ctx, old, next)
}

// Describe is part of semel.Describer. It tells what the far store told when
// this one was dialled.
func (s *Store) Describe() semel.Description { return s.description }

// Unwrap leads to the abilities that the far store has.
func (s *Store) Unwrap() semel.Store { return s.abilities }

// Close ends what is watched and the idle connections. Calls under way come to
// their end; later ones give an error. It does not touch the far store.
func (s *Store) Close() error {
	s.core.close()
	return nil
}

// SwapMany is part of semel.Batcher: one request, and one commit if the far
// store is a Batcher. Swaps that do not fit into one message go in several, one
// after the other; after one that fails, the rest is not sent and has its error.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	for from := 0; from < len(swaps); {
		to, size := from, frameSize+4
		for ; to < len(swaps); to++ {
			more := swapSize + recordSize(&swaps[to].Next)
			if to > from && (size+more > s.core.maxBytes || to-from == maxSwaps) {
				break
			}
			size += more
		}
		if to-from == 1 {
			out[from].Reading, out[from].Err = s.core.CompareAndSwap(ctx, swaps[from].Old, swaps[from].Next)
		} else if err := s.core.many(ctx, swaps[from:to], out[from:to]); err != nil {
			for i := from; i < len(out); i++ {
				out[i] = semel.Swapped{Err: err}
			}
			return out
		}
		from = to
	}
	return out
}

// core is the two verbs that every store has.
type core struct{ *client }

const swapSize = 16 // of the old version

// Get is part of semel.Store.
func (s *core) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	answer, err := s.call(ctx, verbGet, len(digest), func(b []byte) []byte { return append(b, digest[:]...) })
	if err != nil {
		return semel.Reading{}, err
	}
	if o := outcome(answer.byte()); o != done {
		err = answer.failure(o)
		if !answer.whole() {
			err = s.failed(verbGet, errMalformed)
		}
		return semel.Reading{}, err
	}
	reading := answer.reading(digest)
	if !answer.whole() {
		return semel.Reading{}, s.failed(verbGet, errMalformed)
	}
	return reading, nil
}

// CompareAndSwap is part of semel.Store.
func (s *core) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if err := sendable(&next); err != nil {
		return semel.Reading{}, fmt.Errorf("remote: nothing was sent: %w: %w", semel.ErrRejected, err)
	}
	answer, err := s.call(ctx, verbSwap, swapSize+recordSize(&next), func(b []byte) []byte { return appendSwap(b, old, &next) })
	if err != nil {
		return semel.Reading{}, err
	}
	out := answer.swapped(old, &next)
	if !answer.whole() {
		return semel.Reading{}, s.failed(verbSwap, errMalformed)
	}
	return out.Reading, out.Err
}

// many sends swaps in one message. The error is every swap's.
func (s *core) many(ctx context.Context, swaps []semel.Swap, out []semel.Swapped) error {
	size := 4
	for i := range swaps {
		size += swapSize + recordSize(&swaps[i].Next)
		if err := sendable(&swaps[i].Next); err != nil {
			return fmt.Errorf("remote: nothing was sent: %w: %w", semel.ErrRejected, err)
		}
	}
	answer, err := s.call(ctx, verbMany, size, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(len(swaps)))
		for i := range swaps {
			b = appendSwap(b, swaps[i].Old, &swaps[i].Next)
		}
		return b
	})
	if err != nil {
		return err
	}
	for i := range swaps {
		out[i] = answer.swapped(swaps[i].Old, &swaps[i].Next)
	}
	if !answer.whole() {
		return s.failed(verbMany, errMalformed)
	}
	return nil
}

// What a swap came to, on the wire:
//
//	1   outcome
//	…   done: version, time of the write, clock, unconfirmed
//	    conflict: a reading
//	    else: a text
//
// A text has at most maxText bytes.
func appendSwapped(b []byte, out *semel.Swapped, maxText int) []byte {
	o := outcomeOf(out.Err)
	b = append(b, byte(o))
	switch o {
	case done:
		b = appendVersion(b, out.Reading.Record.Version)
		b = appendTime(b, out.Reading.Record.WrittenAt)
		return appendBool(appendTime(b, out.Reading.Now), out.Reading.Unconfirmed)
	case conflict:
		return appendReading(b, &out.Reading)
	}
	return appendText(b, out.Err.Error(), maxText)
}

// swapped reads the answer to a swap. One that contradicts the swap is bad: a
// write at a version that is not newer, a conflict with the very version that
// was to be swapped.
func (c *cursor) swapped(old semel.Version, next *semel.Record) (out semel.Swapped) {
	switch o := outcome(c.byte()); o {
	case done:
		out.Reading.Record = *next
		out.Reading.Record.Version, out.Reading.Record.WrittenAt = c.version(), c.time()
		out.Reading.Now, out.Reading.Unconfirmed = c.time(), c.bool()
		c.bad = c.bad || out.Reading.Record.Version.Compare(old) <= 0
	case conflict:
		out.Reading, out.Err = c.reading(next.Digest), semel.ErrConflict
		c.bad = c.bad || out.Reading.Record.Version == old
	default:
		out.Err = c.failure(o)
	}
	return out
}
