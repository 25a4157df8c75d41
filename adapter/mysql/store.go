package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
)

// Store is a semel.Store in a MySQL or MariaDB database. It is safe for
// concurrent use.
type Store struct {
	engine *engine
	batch  *batch.Store // nil if each swap goes alone, or none goes
	about  semel.Description
	days   days
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Sweeper   = (*Store)(nil)
	_ semel.Lister    = (*Store)(nil)
	_ semel.Journal   = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
)

var errReadOnly = errors.New("mysql: the store was opened for reading only")

// Get is part of semel.Store: one round trip, what is committed, no lock.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	if err := ended(ctx); err != nil {
		return semel.Reading{}, err
	}
	return s.engine.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store: one round trip, shared with the swaps
// that come while others are under way. A duplicate writes and locks nothing. A
// swap that is under way is not cut off when ctx is cancelled, only at its deadline
// or after Options.Timeout; then nobody knows what became of it.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	err := ended(ctx)
	switch {
	case s.engine.options.ReadOnly:
		return semel.Reading{}, errors.Join(semel.ErrRejected, errReadOnly)
	case err != nil:
		return semel.Reading{}, err
	case s.batch == nil:
		return s.engine.CompareAndSwap(ctx, old, next)
	}
	return s.batch.CompareAndSwap(ctx, old, next)
}

// SwapMany is part of semel.Batcher: one transaction, past the batch that
// collects single swaps.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	err := ended(ctx)
	if s.engine.options.ReadOnly {
		err = errors.Join(semel.ErrRejected, errReadOnly)
	}
	if err == nil {
		return s.engine.SwapMany(ctx, swaps)
	}
	out := make([]semel.Swapped, len(swaps))
	for i := range out {
		out[i].Err = err
	}
	return out
}

// Describe is part of semel.Describer. It tells the server's settings as they
// were when the store was opened.
func (s *Store) Describe() semel.Description { return s.about }

// closeWithin bounds Close.
const closeWithin = 10 * time.Second

// Close waits for the swaps under way, for 10 s at most, and closes the
// connections. Do not call the store afterwards: that gives errors.
func (s *Store) Close() error {
	closed := make(chan error, 1)
	go func() {
		var err error
		if s.batch != nil {
			err = s.batch.Close()
		}
		closed <- errors.Join(err, s.engine.pool.Close())
	}()
	timeout := time.NewTimer(closeWithin)
	defer timeout.Stop()
	select {
	case err := <-closed:
		return err
	case <-timeout.C:
		return fmt.Errorf("mysql: swaps were still under way after %v; nobody knows what became of them", closeWithin)
	}
}
