package available

import (
	"context"
	"errors"
	"fmt"

	"github.com/semelhq/semel"
)

var (
	errDown = errors.New("available: the main store is down")
	errSlow = errors.New("available: the main store did not answer in time, and nobody knows whether it was written")
)

// read reads the main store.
func (s *Store) read(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	return s.ask(ctx, func(ctx context.Context) (semel.Reading, error) { return s.main.Get(ctx, d) })
}

// write swaps in the main store.
func (s *Store) write(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	return s.ask(ctx, func(ctx context.Context) (semel.Reading, error) { return s.main.CompareAndSwap(ctx, old, next) })
}

// ask makes one call of the main store, for as long as there is patience. The
// call's context is its own: if the store does not heed it, the call is left
// behind and must not use the caller's. If ctx ends, its cause is the error.
func (s *Store) ask(ctx context.Context, call func(context.Context) (semel.Reading, error)) (semel.Reading, error) {
	own, cancel := context.WithTimeout(context.Background(), s.options.Patience)
	done := make(chan semel.Swapped, 1)
	go func() {
		defer cancel()
		var out semel.Swapped
		out.Reading, out.Err = guarded(own, call)
		done <- out
	}()
	out := semel.Swapped{Err: errSlow}
	select {
	case out = <-done:
	case <-own.Done():
		select {
		case out = <-done: // cancel came after it
		default:
		}
	case <-ctx.Done():
		cancel()
		return semel.Reading{}, fmt.Errorf("available: %w", context.Cause(ctx))
	}
	s.note(out.Err)
	return out.Reading, out.Err
}

// guarded makes a panic of the store an error.
func guarded(ctx context.Context, call func(context.Context) (semel.Reading, error)) (r semel.Reading, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("available: the main store panicked: %v", v)
		}
	}()
	return call(ctx)
}

// answered tells whether err, or its absence, is an answer of a store that works.
func answered(err error) bool {
	return err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrDamaged) || errors.Is(err, semel.ErrRejected)
}

// note counts failures of the main store in a row, and judges by them whether
// it is down.
func (s *Store) note(err error) {
	if answered(err) {
		if s.failures.Swap(0) != 0 && s.down.Swap(false) {
			s.wake()
		}
		return
	}
	if s.failures.Add(1) >= downAfter && !s.down.Swap(true) {
		s.wake()
	}
}
