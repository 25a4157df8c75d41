// Package barrier lets callers share a costly run of something that makes sure
// of all that was so before it began: a commit that is waited for, so that
// whatever was visible before it is as durable as it is (INVARIANTS S14).
//
//	var b barrier.Barrier[none]
//	_, err := b.Wait(ctx, func() (none, error) { return none{}, commit() })
//
// A run that is under way when a caller comes proves nothing to that caller, who
// may have seen what came after its beginning. So there is one run at a time, and
// all who come while it goes on share the next one.
//
// The adapters to postgres and mysql import it; nobody else does.
package barrier

import (
	"context"
	"sync"
)

// Barrier shares runs that give a T. The zero value is ready. It is safe for
// concurrent use, and must not be copied once it is used.
type Barrier[T any] struct {
	mu      sync.Mutex
	running bool      // a goroutine makes the rounds
	next    *round[T] // has not begun; nil if nobody waits for it
}

// round is one run and who waits for it.
type round[T any] struct {
	run  func() (T, error)
	done chan struct{} // closed once what follows is set

	value T
	err   error
}

// Wait gives what a run gave that began after Wait was called, its error
// included: nothing is repeated. The run is that of the first caller who waits for
// it; it is no caller's own, so it has to bound itself. If ctx ends first, the error
// is ctx's cause, and the run goes on for the others.
func (b *Barrier[T]) Wait(ctx context.Context, run func() (T, error)) (T, error) {
	r := b.join(run)
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// join gives the round that begins next.
func (b *Barrier[T]) join(run func() (T, error)) *round[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = &round[T]{run: run, done: make(chan struct{})}
		if !b.running {
			b.running = true
			go b.rounds()
		}
	}
	return b.next
}

// rounds makes rounds until nobody waits for one.
func (b *Barrier[T]) rounds() {
	for r := b.begin(); r != nil; r = b.begin() {
		r.value, r.err = r.run()
		close(r.done)
	}
}

// begin takes the next round, which nobody can join any more.
func (b *Barrier[T]) begin() *round[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.next
	b.next = nil
	b.running = r != nil
	return r
}
