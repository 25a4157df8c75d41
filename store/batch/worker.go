package batch

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/semelhq/semel"
)

// load is what one worker sends together. Its slices are used again.
type load struct {
	swaps []semel.Swap
	from  []*swap // who waits for which
}

// run sends loads until the store is closed and its queue is empty. There is
// one goroutine more than there may be commits, so that the next commit is under
// way while the callers of the last one are answered.
func (s *Store) run() {
	var l load
	for s.take(&l) {
		out, err := s.send(l.swaps)
		s.leave()
		l.answer(out, err)
		clear(l.swaps)
		clear(l.from)
		l.swaps, l.from = l.swaps[:0], l.from[:0]
	}
}

// take waits for swaps and for the right to commit, and fills l. It gives false
// once there will be no more swaps.
func (s *Store) take(l *load) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queue.empty() || s.busy >= s.options.Workers {
		if s.closed && s.queue.empty() {
			return false
		}
		s.work.Wait()
	}
	s.busy++
	size := 0
	for len(l.from) < s.options.MaxBatch && !s.queue.empty() {
		w := s.queue.first
		size += len(w.Next.Result)
		if len(l.from) > 0 && size > s.options.MaxBytes {
			break
		}
		s.queue.remove(w)
		l.swaps, l.from = append(l.swaps, w.Swap), append(l.from, w)
	}
	return true
}

// answer tells everybody in l what came of it.
func (l *load) answer(out []semel.Swapped, err error) {
	for i, w := range l.from {
		if err != nil {
			w.out.Err = err
		} else {
			w.out = out[i]
		}
		w.done <- struct{}{} // has room: each swap is answered once
	}
}

// send gives as many answers as there are swaps, or an error that is the
// answer to each: after a panic, too, nobody knows what was written.
func (s *Store) send(swaps []semel.Swap) (out []semel.Swapped, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("batch: the store panicked, and nobody knows what was written: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), s.options.Timeout)
	defer cancel()
	out = s.target.SwapMany(ctx, swaps)
	if len(out) != len(swaps) {
		return nil, fmt.Errorf("batch: the store gave %d answers to %d swaps, and nobody knows which are meant", len(out), len(swaps))
	}
	return out, nil
}
