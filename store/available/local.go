package available

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/semelhq/semel"
)

const (
	// claimMark and the nonce of the claim follow the owner in a local record. The
	// claim may have landed in the main store, too, and is recognised there by it.
	claimMark = " claim="
	// dropped is the owner of a local record that stands for nothing any more.
	dropped = "reconciled"
)

func mark(r semel.Record, claim semel.Nonce) semel.Record {
	r.Owner += claimMark + claim.String()
	return r
}

// unmark undoes mark, and tells whether r was marked.
func unmark(r semel.Record) (semel.Record, semel.Nonce, bool) {
	var claim semel.Nonce
	i := strings.LastIndex(r.Owner, claimMark)
	if i < 0 {
		return r, claim, false
	}
	n, err := hex.Decode(claim[:], []byte(r.Owner[i+len(claimMark):]))
	if err != nil || n != len(claim) {
		return r, claim, false
	}
	r.Owner = r.Owner[:i]
	return r, claim, true
}

// holding is what Local holds of a key.
type holding struct {
	// reading is as callers see it: of epoch 0, and unconfirmed.
	reading semel.Reading
	version semel.Version // in Local
	claim   semel.Nonce
	live    bool // it stands for something
}

// view gives a reading of Local as callers may see it.
func view(r semel.Reading) holding {
	h := holding{version: r.Record.Version}
	record, claim, live := unmark(r.Record)
	if live {
		record.Version = semel.Version{Counter: h.version.Counter}
		h.claim, h.live = claim, true
	} else {
		record = semel.Record{}
	}
	h.reading = semel.Reading{Record: record, Now: r.Now, Unconfirmed: true}
	return h
}

// held reads a key in Local, if it may hold it.
func (s *Store) held(ctx context.Context, d semel.Digest) (holding, error) {
	if !s.index.has(d) {
		return holding{}, nil
	}
	r, err := s.options.Local.Get(ctx, d)
	if err != nil {
		return holding{}, fmt.Errorf("available: the local store: %w", err)
	}
	return view(r), nil
}

// insertLocal claims a key in Local, since main did not answer but with why.
func (s *Store) insertLocal(ctx context.Context, next semel.Record, why error) (semel.Reading, error) {
	lock := &s.writing[next.Digest[0]%stripes]
	lock.Lock()
	defer lock.Unlock()
	if !s.index.add(next.Digest, s.options.MaxLocal) {
		return semel.Reading{}, fmt.Errorf("available: %d keys are held locally, which is the most allowed: %w", s.options.MaxLocal, why)
	}
	next = mark(next, next.Nonce)
	r, err := s.options.Local.CompareAndSwap(ctx, semel.Version{}, next)
	if errors.Is(err, semel.ErrConflict) && !view(r).live {
		r, err = s.options.Local.CompareAndSwap(ctx, r.Record.Version, next)
	}
	if err != nil && !errors.Is(err, semel.ErrConflict) {
		// It may have been written all the same, so the index keeps it until somebody
		// has looked.
		return semel.Reading{}, errors.Join(fmt.Errorf("available: the local store: %w", err), why)
	}
	if err == nil {
		s.grants.Add(1)
	}
	if next.State != semel.Pending {
		s.wake()
	}
	return view(r).reading, err
}

// swapLocal goes over a version that Local gave out.
func (s *Store) swapLocal(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	lock := &s.writing[next.Digest[0]%stripes]
	lock.Lock()
	h, err := s.held(ctx, next.Digest)
	if err == nil && h.live {
		defer lock.Unlock()
		if h.reading.Record.Version != old {
			return h.reading, semel.ErrConflict
		}
		r, err := s.options.Local.CompareAndSwap(ctx, h.version, mark(next, h.claim))
		if err == nil && next.State != semel.Pending {
			s.wake()
		}
		return view(r).reading, err
	}
	lock.Unlock()
	if err != nil {
		return semel.Reading{}, err
	}
	// It was reconciled, so the main store has what became of it.
	r, err := s.read(ctx, next.Digest)
	if err != nil {
		return semel.Reading{}, err
	}
	return r, semel.ErrConflict
}

// drop makes Local's record stand for nothing.
func (s *Store) drop(ctx context.Context, h *holding) error {
	d := h.reading.Record.Digest
	lock := &s.writing[d[0]%stripes]
	lock.Lock()
	defer lock.Unlock()
	next := semel.Record{Digest: d, State: semel.Released, Nonce: h.claim, Owner: dropped}
	_, err := s.options.Local.CompareAndSwap(ctx, h.version, next)
	if err != nil && !errors.Is(err, semel.ErrConflict) {
		return fmt.Errorf("available: the local store: %w", err)
	}
	if err == nil {
		s.index.remove(d)
	}
	return err
}

// forget takes a key out of the index that Local does not hold.
func (s *Store) forget(ctx context.Context, d semel.Digest) error {
	lock := &s.writing[d[0]%stripes]
	lock.Lock()
	defer lock.Unlock()
	h, err := s.held(ctx, d)
	if err == nil && !h.live {
		s.index.remove(d)
	}
	return err
}

// index knows which keys Local may hold. It costs nothing while there are none.
type index struct {
	size atomic.Int64
	mu   sync.Mutex
	m    map[semel.Digest]*entry
}

// entry is guarded by the index's mutex.
type entry struct {
	busy bool // being reconciled
	told bool // its conflict was told
}

func (x *index) has(d semel.Digest) bool {
	if x.size.Load() == 0 {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.m[d] != nil
}

// add tells whether d is in the index now: a new one is refused beyond limit.
func (x *index) add(d semel.Digest, limit int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m[d] != nil {
		return true
	}
	if len(x.m) >= limit {
		return false
	}
	x.m[d] = new(entry)
	x.size.Add(1)
	return true
}

func (x *index) remove(d semel.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m[d] != nil {
		delete(x.m, d)
		x.size.Add(-1)
	}
}

// begin reserves d for one who reconciles it.
func (x *index) begin(d semel.Digest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.m[d]
	if e == nil || e.busy {
		return false
	}
	e.busy = true
	return true
}

func (x *index) end(d semel.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.m[d]; e != nil {
		e.busy = false
	}
}

// tell notes that d's conflict is told, and gives false if it was before.
func (x *index) tell(d semel.Digest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.m[d]
	if e == nil || e.told {
		return false
	}
	e.told = true
	return true
}

func (x *index) all() []semel.Digest {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]semel.Digest, 0, len(x.m))
	for d := range x.m {
		out = append(out, d)
	}
	return out
}
