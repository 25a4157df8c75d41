// Package memory is a store in process memory: the reference that says in code
// what a store does, and the store for tests and for work that may be forgotten.
//
// Everything in it is gone when the process ends, so a restarted process runs
// again what it ran before: do not put it behind anything that must not happen
// twice. It keeps no journal. It holds every record until Sweep finds it
// expired.
//
// It may be imported by everyone; it imports the root only.
package memory

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/semelhq/semel"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// Now is the store's clock. Default: the process' clock.
	Now func() time.Time
}

// Store is a semel.Store in process memory. It is safe for concurrent use.
type Store struct {
	now     func() time.Time
	epoch   uint64
	counter atomic.Uint64
	shards  [64]shard
}

type shard struct {
	mu sync.RWMutex
	m  map[semel.Digest]*semel.Record
}

var (
	_ semel.Store   = (*Store)(nil)
	_ semel.Batcher = (*Store)(nil)
	_ semel.Sweeper = (*Store)(nil)
	_ semel.Lister  = (*Store)(nil)

	_ semel.Describer = (*Store)(nil)
	_ semel.Measurer  = (*Store)(nil)
)

// New gives an empty store.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{now: o.Now, epoch: 1}
	for i := range s.shards {
		s.shards[i].m = make(map[semel.Digest]*semel.Record)
	}
	return s
}

func (s *Store) shard(d semel.Digest) *shard { return &s.shards[d[0]%64] }

// Get is part of semel.Store.
func (s *Store) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if err := ctx.Err(); err != nil {
		return semel.Reading{}, err
	}
	sh := s.shard(d)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return s.reading(sh.m[d]), nil
}

func (s *Store) reading(r *semel.Record) semel.Reading {
	if r == nil {
		return semel.Reading{Now: s.now()}
	}
	return semel.Reading{Record: *r, Now: s.now()}
}

// CompareAndSwap is part of semel.Store. A version comes from one counter for
// all keys, so a key that was swept and comes again gets a higher one.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if err := ctx.Err(); err != nil {
		return semel.Reading{}, err
	}
	sh := s.shard(next.Digest)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	held := sh.m[next.Digest]
	if held == nil {
		if !old.IsZero() {
			return s.reading(nil), semel.ErrConflict
		}
		held = new(semel.Record)
		sh.m[next.Digest] = held
	} else if held.Version != old {
		return s.reading(held), semel.ErrConflict
	}
	now := s.now()
	next.Version = semel.Version{Epoch: s.epoch, Counter: s.counter.Add(1)}
	next.WrittenAt = now
	*held = next
	return semel.Reading{Record: next, Now: now}, nil
}

// SwapMany is part of semel.Batcher.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	for i, w := range swaps {
		out[i].Reading, out[i].Err = s.CompareAndSwap(ctx, w.Old, w.Next)
	}
	return out
}

// Sweep is part of semel.Sweeper.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	swept := 0
	for i := range s.shards {
		if err := ctx.Err(); err != nil || swept >= limit {
			return swept, err
		}
		swept += s.shards[i].sweep(s.now(), limit-swept)
	}
	return swept, nil
}

func (sh *shard) sweep(now time.Time, limit int) int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	swept := 0
	for d, r := range sh.m {
		if swept == limit {
			break
		}
		switch {
		case r.State != semel.Pending && !now.Before(r.Expires()):
			delete(sh.m, d)
			swept++
		case r.Spent(now):
			*r = r.Tombstone()
			swept++
		}
	}
	return swept
}

// List is part of semel.Lister.
func (s *Store) List(ctx context.Context, f semel.Filter) ([]semel.Record, error) {
	var out []semel.Record
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out = s.shards[i].list(out, f, s.now())
	}
	slices.SortFunc(out, func(a, b semel.Record) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	if f.Limit == 0 {
		f.Limit = 100
	}
	return out[:min(len(out), f.Limit)], nil
}

func (sh *shard) list(out []semel.Record, f semel.Filter, now time.Time) []semel.Record {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for _, r := range sh.m {
		if f.Matches(r, now) {
			out = append(out, *r)
		}
	}
	return out
}

// Measure is part of semel.Measurer. It looks at every record, at one shard after
// the other. The bytes are reckoned: what records have of their own, and the map.
func (s *Store) Measure(ctx context.Context) (semel.Measure, error) {
	m := semel.Measure{At: s.now(), JournalBytes: -1}
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return semel.Measure{}, err
		}
		s.shards[i].measure(&m)
	}
	return m, nil
}

func (sh *shard) measure(m *semel.Measure) {
	const each = int64(unsafe.Sizeof(semel.Record{})) + 2*(32+8) // with a map that is half full
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	first := func(at *time.Time, t time.Time) {
		if at.IsZero() || t.Before(*at) {
			*at = t
		}
	}
	for _, r := range sh.m {
		m.Records++
		m.Bytes += each + int64(len(r.Result)+len(r.Key.Scope)+len(r.Key.ID)+len(r.Owner))
		switch {
		case r.State == semel.Pending:
			first(&m.OldestPending, r.WrittenAt)
		case r.Spent(m.At):
			first(&m.Overdue, r.WrittenAt.Add(min(r.Replay, r.TTL)))
		case !m.At.Before(r.Expires()):
			first(&m.Overdue, r.Expires())
		}
	}
}

// Describe is part of semel.Describer.
func (s *Store) Describe() semel.Description {
	return semel.Description{
		Survives:   semel.SurvivesNothing,
		Durability: "forgotten when this process ends: for trying out, not for production",
		Clock:      "this process'",
	}
}
