package postgres

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// barrier makes sure that what is visible on the server is on its standby as
// well, before it is handed out as an answer (INVARIANTS S14). A row can be
// visible and not replicated when the wait of its COMMIT was cut off: by an
// operator, by another program's deadline, by a crash.
//
// The cheap way to know: a commit that waited for the standby has waited for all
// that was committed before it. So every swap of ours that was answered moves
// below on, up to the oldest transaction that its snapshot saw running, and what
// an older transaction wrote needs no more asking.
type barrier struct {
	// below: transactions before it are on the standby, or came to nothing.
	below atomic.Uint64
	// alone counts the writes that were acknowledged while commits waited for no
	// standby, and covered how many of them are on one: all those before a commit
	// that did wait was sent.
	alone, covered atomic.Uint64

	mu sync.Mutex
	// sure are transactions that were confirmed though an older one still runs.
	sure    map[uint32]bool
	wake    sync.Cond
	running bool
	begun   uint64 // rounds
	ended   uint64 // the last round that came to its end
	err     error  // of that round
}

// passed notes that a commit has ended whose snapshot's xmin was given.
func (b *barrier) passed(xmin uint64) {
	for {
		old := b.below.Load()
		if xmin <= old || b.below.CompareAndSwap(old, xmin) {
			return
		}
	}
}

// acknowledged notes that a write has been answered. before is what alone was
// when it was sent.
func (b *barrier) acknowledged(before uint64, waited bool) {
	if !waited {
		b.alone.Add(1)
		return
	}
	for {
		old := b.covered.Load()
		if before <= old || b.covered.CompareAndSwap(old, before) {
			return
		}
	}
}

// lacking tells whether a standby may lack writes that were acknowledged here.
func (b *barrier) lacking() bool { return b.alone.Load() != b.covered.Load() }

// known tells whether what transaction xmin wrote is on the standby. Rows know
// the lower half of the number only; what is visible is never 2^31 apart, but for
// rows that are old enough either way.
func (b *barrier) known(xmin uint32) bool {
	below := b.below.Load()
	if below != 0 && int32(uint32(below)-xmin) > 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sure[xmin]
}

// maxSure bounds barrier.sure.
const maxSure = 4096

// confirmed notes that what one transaction wrote is on the standby.
func (b *barrier) confirmed(xmin uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sure == nil || len(b.sure) >= maxSure {
		b.sure = make(map[uint32]bool)
	}
	b.sure[xmin] = true
}

// forget drops what a server's transactions were: another's have other numbers.
// After a promotion nothing is left that the standby could lack.
func (b *barrier) forget(promoted bool) {
	b.below.Store(0)
	if promoted {
		b.covered.Store(b.alone.Load())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sure = nil
}

// confirm returns once everything that was visible when it was called is on the
// standby. Callers that come together share a commit.
func (e *engine) confirm(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- e.barrier.round(e.emit) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("postgres: the record is not known to be on a standby yet: %w", context.Cause(ctx))
	}
}

// emit is one commit that has nothing in it but a wait for the standby.
func (e *engine) emit() error {
	_, err := e.exec(context.Background(), call{statement: stmtBarrier})
	return err
}

// round waits for a whole run of emit that began after the call.
func (b *barrier) round(emit func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	mine := b.begun + 1
	for b.ended < mine {
		if b.running {
			b.wake.Wait()
			continue
		}
		b.running = true
		b.begun++
		n := b.begun
		b.mu.Unlock()
		err := emit()
		b.mu.Lock()
		b.running, b.ended, b.err = false, n, err
		b.wake.Broadcast()
	}
	return b.err
}
