package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
)

// Store is a semel.Store in Redis or Valkey. It is safe for concurrent use.
type Store struct {
	client *client
	batch  *batch.Store

	measuring sync.Mutex
	rounds    map[string]*rounds // by server; guarded by measuring
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Lister    = (*Store)(nil)
	_ semel.Watcher   = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
	_ semel.Measurer  = (*Store)(nil)
)

// Get is part of semel.Store: one round trip, to the server that writes.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	return s.client.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store: one round trip, shared with the swaps
// that come while another is under way. A duplicate writes nothing.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	return s.batch.CompareAndSwap(ctx, old, next)
}

// SwapMany is part of semel.Batcher: one call of a script for each part of the
// keys, past the batch that collects single swaps.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	return s.client.SwapMany(ctx, swaps)
}

// Close waits for the swaps under way and closes the connections. Do not call
// the store afterwards: that gives errors.
func (s *Store) Close() error {
	err := s.batch.Close()
	s.client.close()
	return err
}

// maxRecord bounds what one record may hold, in bytes: a script has it in memory
// three times, and the server answers nobody meanwhile.
const maxRecord = 64 << 20

// Get is part of batch.Target.
func (c *client) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	if err := c.may(ctx); err != nil {
		return semel.Reading{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	return c.get(ctx, digest)
}

// CompareAndSwap is part of batch.Target.
func (c *client) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	one := [1]semel.Swap{{Old: old, Next: next}}
	out := c.SwapMany(ctx, one[:])
	return out[0].Reading, out[0].Err
}

// SwapMany is part of batch.Target.
func (c *client) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	if err := c.may(ctx); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	good, at := swaps, []int(nil)
	for i := range swaps {
		if out[i].Err = check(&swaps[i].Next); out[i].Err != nil && at == nil {
			good, at = nil, []int{}
		}
	}
	if at != nil {
		for i := range swaps {
			if out[i].Err == nil {
				good, at = append(good, swaps[i]), append(at, i)
			}
		}
	}
	rounds := c.pack(good)
	for _, round := range rounds {
		for _, p := range round {
			for i, n := range p.at {
				if at != nil {
					p.at[i] = at[n]
				}
			}
		}
		c.send(ctx, round, out)
	}
	return out
}

// check refuses what can never be stored.
func check(r *semel.Record) error {
	size := len(r.Result) + len(r.Key.Scope) + len(r.Key.ID) + len(r.Owner)
	switch {
	case size > maxRecord:
		return fmt.Errorf("%w: redis: it has %d bytes, and at most %d are stored", semel.ErrRejected, size, maxRecord)
	case r.State < semel.Pending || r.State > semel.Released:
		return fmt.Errorf("%w: redis: %v is no state", semel.ErrRejected, r.State)
	}
	return nil
}

// may gives an error if nothing may be done.
func (c *client) may(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("redis: nothing was done: %w", context.Cause(ctx))
	}
	if refused := c.refused.Load(); refused != nil {
		return *refused
	}
	return nil
}

var errClosed = errors.New("redis: the store is closed; nothing was done")
