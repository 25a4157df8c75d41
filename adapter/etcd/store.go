package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
)

// Store is a semel.Store in an etcd cluster. It is safe for concurrent use.
type Store struct {
	cluster *cluster
	batch   *batch.Store // nil if the store is read only
	options Options
	told    semel.Description
	hub     hub
	stop    context.CancelFunc
	tending sync.WaitGroup
	rounds  rounds

	mu     sync.Mutex
	closed bool
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Sweeper   = (*Store)(nil)
	_ semel.Lister    = (*Store)(nil)
	_ semel.Journal   = (*Store)(nil)
	_ semel.Days      = (*Store)(nil)
	_ semel.Measurer  = (*Store)(nil)
	_ semel.Watcher   = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
)

var (
	errClosed   = errors.New("etcd: the store is closed; nothing was done")
	errReadOnly = errors.New("etcd: the store was opened for reading only")
)

// Get is part of semel.Store. It is a linearizable read.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	if err := s.ready(ctx); err != nil {
		return semel.Reading{}, err
	}
	return s.cluster.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store. What it answers without an error is on
// the disks of a majority of the members. A record that is larger than the
// servers take is [semel.ErrRejected].
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if err := s.writable(ctx, next.State); err != nil {
		return semel.Reading{}, err
	}
	return s.batch.CompareAndSwap(ctx, old, next)
}

// SwapMany is part of semel.Batcher. It goes past the batch that collects
// single swaps. Each 120 swaps are one transaction.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	err := s.writable(ctx, semel.Pending)
	for i := range swaps {
		err = errors.Join(err, badState(swaps[i].Next.State))
	}
	if err == nil {
		return s.cluster.SwapMany(ctx, swaps)
	}
	out := make([]semel.Swapped, len(swaps))
	for i := range out {
		out[i].Err = err
	}
	return out
}

func (s *Store) ready(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errClosed
	}
	return ended(ctx)
}

func (s *Store) writable(ctx context.Context, state semel.State) error {
	if s.batch == nil {
		return errors.Join(semel.ErrRejected, errReadOnly)
	}
	if err := badState(state); err != nil {
		return err
	}
	return s.ready(ctx)
}

// badState refuses what could be written but not read back.
func badState(s semel.State) error {
	if s >= semel.Pending && s <= semel.Released {
		return nil
	}
	return fmt.Errorf("%w: etcd: %v is no state of a record", semel.ErrRejected, s)
}

// Close waits for the swaps under way and for the goroutines of the store, and
// closes the connections. Do not call the store afterwards: that gives errors.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	var err error
	if s.batch != nil {
		err = s.batch.Close()
	}
	s.stop()
	s.hub.close()
	s.tending.Wait()
	return errors.Join(err, s.cluster.close())
}
