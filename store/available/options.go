package available

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// Options are a store's settings. Local is needed, the rest has defaults.
type Options struct {
	// Local takes the records while the main store cannot be reached. It must be a
	// semel.Lister and used for nothing else, by no other process. What it holds of
	// an earlier process is reconciled.
	Local semel.Store
	// Patience is how long the main store may take to answer a read or an insert,
	// before the key is claimed locally. Default 250 ms.
	Patience time.Duration
	// Retry is how often the main store is tried while it is down, and how often what
	// is still held locally is looked at. Default 1 s.
	Retry time.Duration
	// MaxLocal bounds the keys that are held locally. Beyond it new keys are
	// refused, as without this store. Default 100,000.
	MaxLocal int
	// Conflict is told of each key that another process held in the main store, too:
	// it ran twice, or may have. It is called on a goroutine of the store or of a
	// request, must return quickly and must not call the store. A conflict that was
	// told just before a crash is told again. Default: they are only counted.
	Conflict func(Conflict)
}

// Conflict is a key that was held locally and by another in the main store.
type Conflict struct {
	// Local is what this process held, and answered with until now. It is dropped.
	Local semel.Record
	// Main is what the main store holds. It stands, and is the answer from now on.
	Main semel.Record
}

// downAfter is how many calls of the main store fail in a row before new keys
// are claimed locally without asking it. While it is taken to be down, what it
// has finished runs again, so one lost call is no reason.
const downAfter = 3

// loadTimeout bounds the reading of what Local holds, at the start.
const loadTimeout = 30 * time.Second

// New gives a store in front of main. It reads what Local holds; main need not
// be there. Close ends it.
func New(main semel.Store, o Options) (*Store, error) {
	switch {
	case main == nil:
		return nil, errors.New("available: a main store is needed")
	case o.Local == nil:
		return nil, errors.New("available: Options.Local is nil; give it a store of this process, such as memory or a SQLite file")
	case o.Local == main:
		return nil, errors.New("available: Options.Local is the main store; give it a store of this process, such as memory or a SQLite file")
	case o.Patience < 0 || o.Retry < 0 || o.MaxLocal < 0:
		return nil, fmt.Errorf("available: Options has Patience %v, Retry %v, MaxLocal %d; each must be positive, or 0 for its default", o.Patience, o.Retry, o.MaxLocal)
	}
	lister, ok := semel.As[semel.Lister](o.Local)
	if !ok {
		return nil, fmt.Errorf("available: Options.Local is a %T, which cannot list what it holds, so nothing could be reconciled; take memory or a SQLite file", o.Local)
	}
	if o.Patience == 0 {
		o.Patience = 250 * time.Millisecond
	}
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.MaxLocal == 0 {
		o.MaxLocal = 100_000
	}
	s := &Store{main: main, options: o, news: make(chan struct{}, 1), stop: make(chan struct{})}
	s.index.m = make(map[semel.Digest]*entry)
	if err := s.load(lister); err != nil {
		return nil, err
	}
	s.running.Go(s.run)
	return s, nil
}

// load takes up what an earlier process has left in Local.
func (s *Store) load(lister semel.Lister) error {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	f := semel.Filter{Limit: 1000}
	for {
		page, err := lister.List(ctx, f)
		if err != nil {
			return fmt.Errorf("available: what Options.Local holds could not be read, so it could not be reconciled: %w", err)
		}
		for _, r := range page {
			if _, _, live := unmark(r); live {
				s.index.add(r.Digest, math.MaxInt) // more than is allowed now is there none the less
			} else if r.Owner != dropped {
				return fmt.Errorf("available: Options.Local holds the key %q, which was not written by this package; give it a store of its own", r.Key.ID)
			}
		}
		if len(page) < f.Limit {
			return nil
		}
		f.After = slices.MaxFunc(page, func(a, b semel.Record) int { return bytes.Compare(a.Digest[:], b.Digest[:]) }).Digest
	}
}
