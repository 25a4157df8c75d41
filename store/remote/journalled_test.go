package remote_test

import (
	"context"
	"sync"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// journalled is a memory store that keeps a journal, tells watchers, and
// describes itself.
type journalled struct {
	*memory.Store

	mu       sync.Mutex
	entries  map[semel.Digest][]semel.Entry
	watchers map[chan struct{}]semel.Digest
}

func newJournalled(now func() time.Time) *journalled {
	return &journalled{
		Store:   memory.New(memory.Options{Now: now}),
		entries: map[semel.Digest][]semel.Entry{}, watchers: map[chan struct{}]semel.Digest{},
	}
}

func (s *journalled) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	if err == nil {
		s.entries[next.Digest] = append(s.entries[next.Digest], r.Record.Entry())
		for c, d := range s.watchers {
			if d == next.Digest {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
	}
	return r, err
}

func (s *journalled) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	for i, w := range swaps {
		out[i].Reading, out[i].Err = s.CompareAndSwap(ctx, w.Old, w.Next)
	}
	return out
}

func (s *journalled) History(ctx context.Context, d semel.Digest) ([]semel.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]semel.Entry(nil), s.entries[d]...), nil
}

func (s *journalled) Watch(d semel.Digest) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[c] = d
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, c)
	}
}

func (s *journalled) watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watchers)
}

func (s *journalled) Describe() semel.Description {
	return semel.Description{
		Survives: semel.SurvivesCrash, Durability: "flushed before it is answered", Clock: "the test's",
		Cautions: []string{"it is a test"}, Traits: []semel.Trait{semel.TraitEvicts},
	}
}

var (
	_ semel.Journal   = (*journalled)(nil)
	_ semel.Batcher   = (*journalled)(nil)
	_ semel.Watcher   = (*journalled)(nil)
	_ semel.Describer = (*journalled)(nil)
)
