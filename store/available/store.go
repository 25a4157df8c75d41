package available

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/semelhq/semel"
)

// stripes is how many keys can be written locally at once.
const stripes = 64

// Store is a semel.Store that goes on without the one behind it. A version of
// epoch 0 says that a record is held locally, and its Reading is unconfirmed. It
// is safe for concurrent use. What the main store can do beyond swaps is reached
// through Unwrap, and does not see what is held locally.
type Store struct {
	main    semel.Store
	options Options
	index   index
	writing [stripes]sync.Mutex // of Local, by key

	failures atomic.Int32 // of the main store, in a row
	down     atomic.Bool

	grants, reconciled, conflicts, failed atomic.Uint64

	news     chan struct{} // holds one: there may be something to reconcile
	stop     chan struct{}
	stopping sync.Once
	running  sync.WaitGroup
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Unwrapper = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
)

// Unwrap gives the main store.
func (s *Store) Unwrap() semel.Store { return s.main }

// Get is part of semel.Store: what is held locally, else what the main store
// holds.
func (s *Store) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if ctx.Err() != nil {
		return semel.Reading{}, fmt.Errorf("available: nothing was asked: %w", context.Cause(ctx))
	}
	h, err := s.current(ctx, d)
	switch {
	case err != nil:
		return semel.Reading{}, err
	case h.live:
		return h.reading, nil
	case s.down.Load():
		return semel.Reading{}, errDown
	}
	return s.read(ctx, d)
}

// CompareAndSwap is part of semel.Store. An insert that the main store does not
// answer is made locally. A swap over a local version is made locally. Every
// other swap is the main store's, whether it answers or not: a claim that was
// granted there is completed there.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	switch {
	case ctx.Err() != nil:
		return semel.Reading{}, fmt.Errorf("available: nothing was asked or written: %w", context.Cause(ctx))
	case old.IsZero():
		return s.insert(ctx, next)
	case old.Epoch == 0:
		return s.swapLocal(ctx, old, next)
	}
	r, err := s.main.CompareAndSwap(ctx, old, next)
	if !errors.Is(ctx.Err(), context.Canceled) { // a caller that left says nothing about the store
		s.note(err)
	}
	return r, err
}

func (s *Store) insert(ctx context.Context, next semel.Record) (semel.Reading, error) {
	h, err := s.current(ctx, next.Digest)
	switch {
	case err != nil:
		return semel.Reading{}, err
	case h.live:
		return h.reading, semel.ErrConflict
	case s.down.Load():
		return s.insertLocal(ctx, next, errDown)
	}
	r, err := s.write(ctx, semel.Version{}, next)
	if answered(err) || ctx.Err() != nil {
		return r, err
	}
	return s.insertLocal(ctx, next, err)
}

// current gives what is held locally of a key, once it was tried to reconcile
// it.
func (s *Store) current(ctx context.Context, d semel.Digest) (holding, error) {
	h, err := s.held(ctx, d)
	if err != nil || !h.live || s.down.Load() || !s.settled(&h) {
		return h, err
	}
	if left := s.reconcile(ctx, d); left {
		return h, nil
	}
	return holding{}, nil
}

// SwapMany is part of semel.Batcher: one batch of the main store while that
// answers and none of the keys is held locally, else one by one.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	b, batches := s.main.(semel.Batcher)
	for i := range swaps {
		old := swaps[i].Old
		batches = batches && (old.IsZero() || old.Epoch > 0) && !s.index.has(swaps[i].Next.Digest)
	}
	if !batches || s.down.Load() || ctx.Err() != nil {
		for i, w := range swaps {
			out[i].Reading, out[i].Err = s.CompareAndSwap(ctx, w.Old, w.Next)
		}
		return out
	}
	answers := b.SwapMany(ctx, swaps)
	for i, w := range swaps {
		if len(answers) == len(swaps) {
			out[i] = answers[i]
		} else {
			out[i].Err = fmt.Errorf("available: the store gave %d answers to %d swaps, and nobody knows which are meant", len(answers), len(swaps))
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			continue
		}
		s.note(out[i].Err)
		if ctx.Err() == nil && !answered(out[i].Err) && w.Old.IsZero() {
			out[i].Reading, out[i].Err = s.insertLocal(ctx, w.Next, out[i].Err)
		}
	}
	return out
}

// Describe is the main store's description with what this store takes from it.
func (s *Store) Describe() semel.Description {
	var d semel.Description
	if main, ok := semel.As[semel.Describer](s.main); ok {
		d = main.Describe()
	} else {
		d.Durability = "the main store does not say what its records survive"
	}
	d.Traits = append(d.Traits[:len(d.Traits):len(d.Traits)], semel.TraitDiverges)
	d.Cautions = append(d.Cautions[:len(d.Cautions):len(d.Cautions)],
		"while the main store cannot be reached, keys are claimed in this process alone and may run twice; guard what must not with the main store itself")
	return d
}

// Stats are counts since the store was made; Local and Down are as of now.
type Stats struct {
	// Grants counts the keys that were claimed locally.
	Grants uint64
	// Reconciled counts the local records that the main store has taken over, or
	// that were given up without an effect.
	Reconciled uint64
	// Conflicts counts those that another held in the main store.
	Conflicts uint64
	// Failed counts attempts to reconcile a record that did not succeed.
	Failed uint64
	// Local is how many keys are held locally: pending ones, and finished ones that
	// were not reconciled yet.
	Local int
	// Down tells that the main store is taken to be down.
	Down bool
}

// Stats gives the counts. It does not wait for anything.
func (s *Store) Stats() Stats {
	return Stats{
		Grants: s.grants.Load(), Reconciled: s.reconciled.Load(), Conflicts: s.conflicts.Load(), Failed: s.failed.Load(),
		Local: int(s.index.size.Load()), Down: s.down.Load(),
	}
}
