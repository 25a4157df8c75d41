package tiered

import (
	"context"
	"fmt"

	"github.com/semelhq/semel"
)

// SwapMany is part of semel.Batcher. Inserts that meet a finished record in a
// Prompt cache are answered from it; the others go to the durable store in one
// batch, or one by one if it takes none.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	if ctx.Err() != nil {
		return fail(out, fmt.Errorf("tiered: nothing was asked or written: %w", context.Cause(ctx)))
	}
	// First all that is written over: an insert may follow on a swap of its key.
	for i := range swaps {
		if !swaps[i].Old.IsZero() {
			s.overwritten.add(swaps[i].Next.Digest, swaps[i].Old)
		}
	}
	prompt := 0
	for prompt < len(s.tiers) && s.tiers[prompt].prompt {
		prompt++
	}
	var rest []semel.Swap
	var from []int
	for i, w := range swaps {
		if w.Old.IsZero() {
			if held, ok := s.lookup(ctx, s.tiers[:prompt], w.Next.Digest); ok {
				out[i] = semel.Swapped{Reading: held, Err: semel.ErrConflict}
				continue
			}
		}
		rest, from = append(rest, w), append(from, i)
	}
	for i, answer := range s.swapMany(ctx, rest) {
		out[from[i]] = answer
	}
	return out
}

func (s *Store) swapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	if len(swaps) == 0 {
		return nil
	}
	out := make([]semel.Swapped, len(swaps))
	b, ok := s.durable.(semel.Batcher)
	if !ok {
		for i, w := range swaps {
			out[i].Reading, out[i].Err = s.CompareAndSwap(ctx, w.Old, w.Next)
		}
		return out
	}
	asked := s.clock.now()
	answers := b.SwapMany(ctx, swaps)
	if len(answers) != len(swaps) {
		return fail(out, fmt.Errorf("tiered: the store gave %d answers to %d swaps, and nobody knows which are meant", len(answers), len(swaps)))
	}
	for i := range answers {
		a := &answers[i]
		s.heard(ctx, asked, &a.Reading, a.Err)
		if a.Reading.Record.Held() {
			s.keep(ctx, &a.Reading)
		}
	}
	return answers
}

func fail(out []semel.Swapped, err error) []semel.Swapped {
	for i := range out {
		out[i].Err = err
	}
	return out
}
