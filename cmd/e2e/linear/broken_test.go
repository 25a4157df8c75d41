package linear

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// flaw is what is wrong with a broken store.
type flaw int

const (
	staleRead flaw = iota
	lostWrite
	conflictWrites
	checkThenWrite
	staleConflict
	evicted
)

// flaws names the flaws.
func flaws() map[string]flaw {
	return map[string]flaw{
		"a read of a moment ago":            staleRead,
		"a write that was only said":        lostWrite,
		"a conflict that writes":            conflictWrites,
		"a check and then a write":          checkThenWrite,
		"a conflict that tells of the past": staleConflict,
		"a record that is evicted":          evicted,
	}
}

// broken stands in front of a store and spoils one call of ten.
type broken struct {
	semel.Store
	flaw flaw

	mu     sync.Mutex
	before map[semel.Digest]semel.Reading // what was held before the last write
	rand   *rand.Rand
	lives  map[semel.Digest]byte // how often the record was evicted
}

func newBroken(f flaw, seed uint64) *broken {
	return &broken{
		Store: memory.New(memory.Options{}), flaw: f, rand: rand.New(rand.NewPCG(seed, 0)),
		before: map[semel.Digest]semel.Reading{}, lives: map[semel.Digest]byte{},
	}
}

// life is the digest under which the store behind has the record now.
func (b *broken) life(d semel.Digest) semel.Digest {
	gone := b.spoils(evicted)
	b.mu.Lock()
	defer b.mu.Unlock()
	if gone {
		b.lives[d]++
	}
	d[31] ^= b.lives[d]
	return d
}

// spoils tells whether this call is one that the flaw spoils.
func (b *broken) spoils(f flaw) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flaw == f && b.rand.IntN(10) == 0
}

// past gives what was held before the last write.
func (b *broken) past(d semel.Digest) (semel.Reading, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.before[d]
	return r, ok
}

func (b *broken) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	d = b.life(d)
	if r, ok := b.past(d); ok && b.spoils(staleRead) {
		return r, nil
	}
	return b.Store.Get(ctx, d)
}

func (b *broken) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	next.Digest = b.life(next.Digest)
	now, err := b.Store.Get(ctx, next.Digest)
	if err != nil {
		return now, err
	}
	if now.Record.Version == old && b.spoils(lostWrite) {
		next.Version, next.WrittenAt = semel.Version{Epoch: old.Epoch, Counter: old.Counter + 1}, now.Now
		return semel.Reading{Record: next, Now: now.Now}, nil
	}
	if now.Record.Version == old && b.flaw == checkThenWrite {
		runtime.Gosched()
		later, err := b.Store.Get(ctx, next.Digest)
		if err != nil {
			return later, err
		}
		old = later.Record.Version
	}
	r, err := b.Store.CompareAndSwap(ctx, old, next)
	if err == nil {
		b.mu.Lock()
		b.before[next.Digest] = now
		b.mu.Unlock()
		return r, nil
	}
	if errors.Is(err, semel.ErrConflict) && b.spoils(conflictWrites) {
		if _, err := b.Store.CompareAndSwap(ctx, r.Record.Version, next); err == nil {
			return r, semel.ErrConflict
		}
	}
	if past, ok := b.past(next.Digest); ok && past.Record.Version != old && b.spoils(staleConflict) {
		return past, err
	}
	return r, err
}
