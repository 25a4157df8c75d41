package available

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// abandoned is how long after the end of its lease a pending record is given
// up: whoever held it has stopped trying to complete it.
const abandoned = 5 * time.Minute

// settled tells whether nobody will change the local record any more: it is
// finished, or its holder is gone or has said that nobody knows.
func (s *Store) settled(h *holding) bool {
	r := &h.reading.Record
	return r.State != semel.Pending || r.TTL <= 0 || h.reading.Now.After(r.Expires().Add(abandoned))
}

// run reconciles in the background, one key at a time, until the store closes.
func (s *Store) run() {
	tick := time.NewTicker(s.options.Retry)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.running.Go(func() {
		<-s.stop
		cancel()
	})
	var tried time.Time // when the main store was last tried while it was down
	for {
		select {
		case <-s.stop:
			return
		case <-s.news:
		case <-tick.C:
		}
		switch {
		case s.down.Load() && time.Since(tried) >= s.options.Retry:
			tried = time.Now()
			s.pass(ctx)
		case !s.down.Load() && s.index.size.Load() > 0:
			s.pass(ctx)
		}
	}
}

// wake has the background look for work now.
func (s *Store) wake() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// pass tries each key that is held locally once, and stops when the main store
// does not answer. What was dropped is then swept out of Local.
func (s *Store) pass(ctx context.Context) {
	if s.down.Load() {
		if _, err := s.read(ctx, semel.Digest{}); !answered(err) {
			return
		}
	}
	failed := s.failed.Load()
	for _, d := range s.index.all() {
		if ctx.Err() != nil || s.down.Load() {
			return
		}
		s.reconcile(ctx, d)
	}
	if s.failed.Load() != failed {
		return // what could not be brought over must not be swept
	}
	if sweeper, ok := semel.As[semel.Sweeper](s.options.Local); ok {
		_, _ = sweeper.Sweep(ctx, s.options.MaxLocal) // what is left is for the next pass
	}
}

// reconcile brings what Local holds of a key into the main store, and tells
// whether it is still held locally.
func (s *Store) reconcile(ctx context.Context, d semel.Digest) (left bool) {
	if !s.index.begin(d) {
		return s.index.has(d)
	}
	defer s.index.end(d)
	h, err := s.held(ctx, d)
	switch {
	case err != nil:
	case !h.live:
		err = s.forget(ctx, d)
	case !s.settled(&h):
		return true
	case h.reading.Record.State == semel.Released:
		if err = s.giveUp(ctx, &h); err == nil {
			err = s.drop(ctx, &h)
		}
	default:
		if err = s.push(ctx, &h); err == nil {
			err = s.drop(ctx, &h)
		}
	}
	if err != nil {
		s.failed.Add(1)
	}
	return err != nil
}

// giveUp releases the claim if it has landed in the main store, too. Nothing
// else is to be told of an operation that did nothing.
func (s *Store) giveUp(ctx context.Context, h *holding) error {
	r, err := s.read(ctx, h.reading.Record.Digest)
	if err == nil && r.Record.State == semel.Pending && r.Record.Nonce == h.claim {
		_, err = s.write(ctx, r.Record.Version, h.reading.Record)
	}
	if err == nil {
		s.reconciled.Add(1)
	}
	return err
}

// pushes bounds how often the main store may change under one push.
const pushes = 4

// push writes a finished record, or one that nobody knows the end of, into the
// main store. Sent again after a lost answer it is recognised by its nonce.
func (s *Store) push(ctx context.Context, h *holding) error {
	next := h.reading.Record
	if next.State == semel.Pending {
		next.TTL = 0 // in doubt there, too, or free for another run if its class says so
	}
	var old semel.Version
	for range pushes {
		r, err := s.write(ctx, old, next)
		held := &r.Record
		switch {
		case err == nil, errors.Is(err, semel.ErrConflict) && held.Nonce == next.Nonce && held.State == next.State:
			s.reconciled.Add(1)
			return nil
		case errors.Is(err, semel.ErrRejected) && next.Result != nil:
			next.Result, next.Replay = nil, 0
			continue
		case !errors.Is(err, semel.ErrConflict):
			return err
		case !held.Held(): // swept meanwhile
			old = semel.Version{}
		case held.State == semel.Pending && held.Nonce == h.claim: // our own claim, which had landed
			old = held.Version
		case held.State == semel.Released: // nothing was done there, and ours came after it
			old = held.Version
			next.Attempt = held.Attempt + h.reading.Record.Attempt
		default:
			s.conflict(h, held)
			return nil
		}
	}
	return errors.New("available: the record keeps changing in the main store")
}

// conflict tells that another has held the key in the main store.
func (s *Store) conflict(h *holding, held *semel.Record) {
	if !s.index.tell(h.reading.Record.Digest) {
		return
	}
	s.conflicts.Add(1)
	if s.options.Conflict != nil {
		s.options.Conflict(Conflict{Local: h.reading.Record, Main: *held})
	}
}

// Close stops the background and reconciles what it can until ctx ends. The
// error says how many keys are left locally: pending ones, and all if the main
// store is down. A durable Local keeps them for the next process, a store in
// memory does not. Close closes neither store; call it when no request is left.
func (s *Store) Close(ctx context.Context) error {
	s.stopping.Do(func() { close(s.stop) })
	s.running.Wait()
	for before := int64(-1); ctx.Err() == nil && s.index.size.Load() > 0 && s.index.size.Load() != before; {
		before = s.index.size.Load()
		s.pass(ctx)
	}
	if n := s.index.size.Load(); n > 0 {
		return fmt.Errorf("available: %d keys are still held locally and were not reconciled with the main store (down: %t)", n, s.down.Load())
	}
	return nil
}
