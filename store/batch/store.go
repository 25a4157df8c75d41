package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// MaxBatch is the largest number of swaps in one commit. Default 512.
	MaxBatch int
	// MaxBytes is the size of the results in one commit, in bytes, above which no
	// more swaps are added to it. A larger single result goes alone. Default 8 MiB.
	MaxBytes int
	// Workers is how many commits may be under way at once. More than one suits a
	// database that commits in parallel, and nothing else. Default 1.
	Workers int
	// Timeout is the deadline of one commit. It is the batch's own: no caller's
	// context reaches the store, since the commit is also for others. Default 10 s.
	Timeout time.Duration
}

// Target is what a Store can stand in front of.
type Target interface {
	semel.Store
	semel.Batcher
}

// Store is a semel.Store that collects the swaps of its callers. It is safe
// for concurrent use.
type Store struct {
	target  Target
	options Options
	pool    sync.Pool // of *swap
	workers sync.WaitGroup

	mu     sync.Mutex
	work   sync.Cond // a worker may have something to do
	idle   sync.Cond // nothing is under way, and the store is closed
	queue  queue
	busy   int // commits under way, at most options.Workers
	closed bool
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Unwrapper = (*Store)(nil)
)

var errClosed = errors.New("batch: the store is closed; nothing was written")

// New gives a store in front of target, and starts its workers: Close stops
// them.
func New(target Target, o Options) *Store {
	fill := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	fill(&o.MaxBatch, 512)
	fill(&o.MaxBytes, 8<<20)
	fill(&o.Workers, 1)
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	s := &Store{target: target, options: o}
	s.work.L, s.idle.L = &s.mu, &s.mu
	s.pool.New = func() any { return &swap{done: make(chan struct{}, 1)} }
	for range o.Workers + 1 {
		s.workers.Go(s.run)
	}
	return s
}

// Unwrap gives the store behind this one.
func (s *Store) Unwrap() semel.Store { return s.target }

// Get reads straight from the store behind this one. It sees every swap that
// was answered.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	return s.target.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store.
//
// If nothing is under way, it is the store's own call, on this goroutine and
// with this context. Else the swap is queued. If ctx ends while it is queued, it
// is taken out and never written. If ctx ends later, nobody knows what becomes of
// the swap, as with any store: the commit goes on, for the others.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if ctx.Err() != nil {
		return semel.Reading{}, fmt.Errorf("batch: nothing was written: %w", context.Cause(ctx))
	}
	if s.enter() {
		defer s.leave()
		return s.target.CompareAndSwap(ctx, old, next)
	}
	w := s.pool.Get().(*swap)
	w.Old, w.Next = old, next
	if !s.enqueue(w) {
		return semel.Reading{}, errClosed
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		// Nobody puts w back into the pool: its worker may be about to answer it.
		if s.withdraw(w) {
			return semel.Reading{}, fmt.Errorf("batch: nothing was written: %w", context.Cause(ctx))
		}
		return semel.Reading{}, fmt.Errorf("batch: the commit goes on and nobody knows its outcome yet: %w", context.Cause(ctx))
	}
	reading, err := w.out.Reading, w.out.Err
	*w = swap{done: w.done}
	s.pool.Put(w)
	return reading, err
}

// Close refuses new swaps, sends those that are queued, and waits until the
// last commit has ended. It does not close the store behind this one.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.work.Broadcast()
	for s.busy > 0 {
		s.idle.Wait()
	}
	s.mu.Unlock()
	s.workers.Wait()
	return nil
}

// enter begins a commit of one, if it would wait for nobody.
func (s *Store) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.busy >= s.options.Workers || !s.queue.empty() {
		return false
	}
	s.busy++
	return true
}

// leave ends a commit. What has arrived meanwhile is for a worker.
func (s *Store) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release()
}

// release gives up the right to commit. It is called with s.mu held.
func (s *Store) release() {
	s.busy--
	if !s.queue.empty() {
		s.work.Signal()
	}
	if s.closed {
		s.work.Broadcast()
		s.idle.Broadcast()
	}
}

func (s *Store) enqueue(w *swap) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.queue.push(w)
	if s.busy < s.options.Workers {
		s.work.Signal()
	}
	return true
}

// withdraw takes a swap out of the queue, unless a worker has it already.
func (s *Store) withdraw(w *swap) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.remove(w)
}
