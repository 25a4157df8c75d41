package storetest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/semelhq/semel"
)

// ErrLost is the error of a call whose request or answer a Faulty store lost.
// It says nothing about whether the write happened, as with a real network.
var ErrLost = errors.New("storetest: lost on the way")

// Call is one call of a Faulty store.
type Call struct {
	// Number counts the calls of the store, from 1.
	Number int
	// Digest is the digest asked for; of a batch the first one.
	Digest semel.Digest
	// Swaps is what is to be written, nil for Get.
	Swaps []semel.Swap
}

// Writes tells whether the call is a CompareAndSwap or a SwapMany.
func (c Call) Writes() bool { return c.Swaps != nil }

// Faulty stands in front of a store and spoils its calls. It is safe for
// concurrent use if Before and After are. It takes batches even where the store
// behind it does not; other abilities are reached through Unwrap and are not
// spoilt.
type Faulty struct {
	// Store is the store behind.
	Store semel.Store
	// Before is asked before each call. If it gives an error, that is the answer, and
	// the store behind hears nothing. It may block. Default: no fault.
	Before func(ctx context.Context, c Call) error
	// After is asked when the store behind has answered. If it gives an error, the
	// answer is lost: the write happened, and nobody is told. Default: no fault.
	After func(ctx context.Context, c Call) error

	calls atomic.Int64
}

var (
	_ semel.Store     = (*Faulty)(nil)
	_ semel.Batcher   = (*Faulty)(nil)
	_ semel.Unwrapper = (*Faulty)(nil)
)

// LoseAnswers gives a store in front of s that carries out every call, and
// answers those for which lose says so with ErrLost.
func LoseAnswers(s semel.Store, lose func(Call) bool) *Faulty {
	return &Faulty{Store: s, After: lost(lose)}
}

// LoseRequests gives a store in front of s that answers the calls for which
// lose says so with ErrLost, without carrying them out.
func LoseRequests(s semel.Store, lose func(Call) bool) *Faulty {
	return &Faulty{Store: s, Before: lost(lose)}
}

func lost(lose func(Call) bool) func(context.Context, Call) error {
	return func(_ context.Context, c Call) error {
		if lose(c) {
			return ErrLost
		}
		return nil
	}
}

// Unwrap is part of semel.Unwrapper.
func (f *Faulty) Unwrap() semel.Store { return f.Store }

// Get is part of semel.Store.
func (f *Faulty) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	c := f.call(d, nil)
	if err := ask(ctx, f.Before, c); err != nil {
		return semel.Reading{}, err
	}
	r, err := f.Store.Get(ctx, d)
	if fault := ask(ctx, f.After, c); fault != nil {
		return semel.Reading{}, fault
	}
	return r, err
}

// CompareAndSwap is part of semel.Store.
func (f *Faulty) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	c := f.call(next.Digest, []semel.Swap{{Old: old, Next: next}})
	if err := ask(ctx, f.Before, c); err != nil {
		return semel.Reading{}, err
	}
	r, err := f.Store.CompareAndSwap(ctx, old, next)
	if fault := ask(ctx, f.After, c); fault != nil {
		return semel.Reading{}, fault
	}
	return r, err
}

// SwapMany is part of semel.Batcher. A fault is every swap's error.
func (f *Faulty) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	if len(swaps) == 0 {
		return nil
	}
	c := f.call(swaps[0].Next.Digest, swaps)
	err := ask(ctx, f.Before, c)
	var out []semel.Swapped
	if err == nil {
		out = f.swapMany(ctx, swaps)
		err = ask(ctx, f.After, c)
	}
	if err != nil {
		out = make([]semel.Swapped, len(swaps))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

func (f *Faulty) swapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	if b, ok := semel.As[semel.Batcher](f.Store); ok {
		return b.SwapMany(ctx, swaps)
	}
	out := make([]semel.Swapped, len(swaps))
	for i, s := range swaps {
		out[i].Reading, out[i].Err = f.Store.CompareAndSwap(ctx, s.Old, s.Next)
	}
	return out
}

func (f *Faulty) call(d semel.Digest, swaps []semel.Swap) Call {
	return Call{Number: int(f.calls.Add(1)), Digest: d, Swaps: swaps}
}

func ask(ctx context.Context, fault func(context.Context, Call) error, c Call) error {
	if fault == nil {
		return nil
	}
	return fault(ctx, c)
}
