package tiered

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// Store is a semel.Store that answers for finished records from caches, and
// asks the store behind it for everything else. It is safe for concurrent use.
// What the store behind it can do beyond that is reached through Unwrap.
type Store struct {
	durable     semel.Store
	tiers       []*tier
	clock       clock
	overwritten overwritten
	misses      atomic.Uint64

	down    atomic.Bool  // the last call of the durable store failed
	retried atomic.Int64 // when it was last asked only for being down

	closed atomic.Bool
	mu     sync.Mutex // held to begin or refuse behind
	behind sync.WaitGroup
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Unwrapper = (*Store)(nil)
)

// Unwrap gives the durable store.
func (s *Store) Unwrap() semel.Store { return s.durable }

// Get is part of semel.Store. A record that is finished may come from a cache:
// then Now is estimated, and Unconfirmed is set while the durable store's last
// call failed.
func (s *Store) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if ctx.Err() != nil {
		return semel.Reading{}, fmt.Errorf("tiered: nothing was asked: %w", context.Cause(ctx))
	}
	if held, ok := s.lookup(ctx, s.tiers, d); ok {
		return held, nil
	}
	asked := s.clock.now()
	r, err := s.durable.Get(ctx, d)
	s.heard(ctx, asked, &r, err)
	if err == nil {
		s.keep(ctx, &r)
	}
	return r, err
}

// CompareAndSwap is part of semel.Store. An insert that meets a finished
// record in a cache is told of it; every other swap is the durable store's.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if ctx.Err() != nil {
		return semel.Reading{}, fmt.Errorf("tiered: nothing was asked or written: %w", context.Cause(ctx))
	}
	if !old.IsZero() {
		s.overwritten.add(next.Digest, old)
	} else if held, ok := s.lookup(ctx, s.tiers, next.Digest); ok {
		return held, semel.ErrConflict
	}
	asked := s.clock.now()
	r, err := s.durable.CompareAndSwap(ctx, old, next)
	s.heard(ctx, asked, &r, err)
	if err == nil || errors.Is(err, semel.ErrConflict) {
		s.keep(ctx, &r)
	}
	return r, err
}

// lookup asks caches, nearest first, and puts what a farther one has into the
// nearer ones.
func (s *Store) lookup(ctx context.Context, tiers []*tier, d semel.Digest) (semel.Reading, bool) {
	if s.clock.known() { // else no copy's age can be told
		for i, t := range tiers {
			r, found := t.get(ctx, d)
			if !found || s.overwritten.covers(d, r.Version) {
				continue
			}
			at, slack := s.clock.estimate()
			ttl := left(&r, at, slack)
			if ttl <= 0 {
				continue
			}
			t.hits.Add(1)
			s.fill(ctx, tiers[:i], &r, ttl)
			if at.Before(r.WrittenAt) {
				at = r.WrittenAt
			}
			return semel.Reading{Record: r, Now: at, Unconfirmed: s.unconfirmed(d)}, true
		}
	}
	s.misses.Add(1)
	return semel.Reading{}, false
}

// keep puts what the durable store has acknowledged or returned into the
// caches, if it is finished.
func (s *Store) keep(ctx context.Context, r *semel.Reading) {
	if r.Unconfirmed || !finished(&r.Record, r.Record.Digest) {
		return
	}
	at, slack := s.clock.estimate()
	if ttl := left(&r.Record, at, slack); ttl > 0 {
		s.fill(ctx, s.tiers, &r.Record, ttl)
	}
}

// heard notes how a call of the durable store went.
func (s *Store) heard(ctx context.Context, asked time.Time, r *semel.Reading, err error) {
	if !answered(err) {
		// A caller that left says nothing about the store.
		if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
			s.down.Store(true)
		}
		return
	}
	// It may itself go on without the store that is behind it.
	if s.down.Load() != r.Unconfirmed {
		s.down.Store(r.Unconfirmed)
	}
	if !r.Now.IsZero() && !r.Unconfirmed {
		s.clock.told(asked, r.Now)
	}
}

// answered tells whether err, or its absence, is an answer of a store that works.
func answered(err error) bool {
	return err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrDamaged) || errors.Is(err, semel.ErrRejected)
}

const (
	// retryAfter is how often the durable store is asked only for being down.
	retryAfter = time.Second
	// retryTimeout bounds that call.
	retryTimeout = 5 * time.Second
)

// unconfirmed tells whether an answer from a cache is to be flagged. While it
// is, the durable store is asked now and then behind the requests: if all of them
// are answered by caches, nobody else would notice that it is back.
func (s *Store) unconfirmed(d semel.Digest) bool {
	if !s.down.Load() {
		return false
	}
	last, now := s.retried.Load(), time.Now().UnixNano()
	due := now-last >= int64(retryAfter) || now < last // the clock was set back
	if due && s.retried.CompareAndSwap(last, now) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed.Load() {
			s.behind.Go(func() { s.retry(d) })
		}
	}
	return true
}

func (s *Store) retry(d semel.Digest) {
	// A store that panics still does not work, and nobody waits for the answer.
	defer func() { _ = recover() }()
	ctx, cancel := context.WithTimeout(context.Background(), retryTimeout)
	defer cancel()
	asked := s.clock.now()
	r, err := s.durable.Get(ctx, d)
	s.heard(ctx, asked, &r, err)
}

// Close waits until the records that are on their way into the caches are
// there, and closes neither the caches nor the durable store. The store may be
// used on; it then fills only caches that are Prompt. The error names caches
// whose calls hang.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed.Swap(true)
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.behind.Wait()
	var errs []error
	for _, t := range s.tiers {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}
