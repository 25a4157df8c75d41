package otter

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/tiered"
)

// Options are a cache's settings. The zero value is usable.
type Options struct {
	// MaxBytes bounds the memory that the records take, in bytes: their results,
	// their texts, and 512 bytes for each. It may be exceeded for a moment. A record
	// larger than an eighth of it is not kept. At least 1 MiB. Default 64 MiB.
	MaxBytes int
}

const (
	defaultBytes = 64 << 20
	leastBytes   = 1 << 20
	// overhead is what a record takes beside its result and texts, in bytes: 360
	// were measured, and sizes are rounded up when memory is allocated.
	overhead = 512
)

// Cache is a tiered.Cache in process memory. It is safe for concurrent use.
type Cache struct {
	entries *otter.Cache[semel.Digest, *entry]
	largest uint64
}

// entry is a record and how long it may stay. It is never changed.
type entry struct {
	record semel.Record
	ttl    time.Duration
}

var _ tiered.Prompt = (*Cache)(nil)

// New gives an empty cache.
func New(o Options) (*Cache, error) {
	switch {
	case o.MaxBytes == 0:
		o.MaxBytes = defaultBytes
	case o.MaxBytes < leastBytes:
		return nil, fmt.Errorf("otter: Options.MaxBytes is %d; it must be at least %d (1 MiB), or 0 for 64 MiB", o.MaxBytes, leastBytes)
	}
	entries, err := otter.New(&otter.Options[semel.Digest, *entry]{
		MaximumWeight: uint64(o.MaxBytes),
		Weigher:       func(_ semel.Digest, e *entry) uint32 { return uint32(min(weight(&e.record), math.MaxUint32)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[semel.Digest, *entry]) time.Duration {
			return e.Value.ttl
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("otter: %w", err)
	}
	return &Cache{entries: entries, largest: uint64(o.MaxBytes) / 8}, nil
}

// weight is the memory that r takes, in bytes. A result counts with all of its
// capacity, since that is what it holds on to.
func weight(r *semel.Record) uint64 {
	return overhead + uint64(cap(r.Result)+len(r.Key.Scope)+len(r.Key.ID)+len(r.Owner))
}

// Get is part of tiered.Cache. Its error is always nil.
func (c *Cache) Get(_ context.Context, d semel.Digest) (semel.Record, bool, error) {
	e, ok := c.entries.GetIfPresent(d)
	if !ok {
		return semel.Record{}, false, nil
	}
	return e.record, true, nil
}

// Put is part of tiered.Cache. A record that is too large takes the place of an
// older one all the same: that is forgotten. Its error is always nil.
func (c *Cache) Put(_ context.Context, r semel.Record, ttl time.Duration) error {
	if weight(&r) > c.largest || ttl <= 0 {
		c.entries.Invalidate(r.Digest)
		return nil
	}
	c.entries.Set(r.Digest, &entry{r, ttl})
	return nil
}

// Prompt is part of tiered.Prompt: Get and Put wait for nothing.
func (c *Cache) Prompt() {}

// Size tells how many records the cache holds and how many bytes they take, both
// estimated, for a gauge.
func (c *Cache) Size() (records int, bytes uint64) {
	return c.entries.EstimatedSize(), c.entries.WeightedSize()
}

// Close forgets everything and ends the goroutine that drops what has ended.
func (c *Cache) Close() error {
	c.entries.StopAllGoroutines()
	c.entries.InvalidateAll()
	return nil
}
