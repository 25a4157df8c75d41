package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// Now is the store's clock. All processes that have the file open must agree on
	// it. Default: the machine's clock.
	Now func() time.Time
	// ReadOnly opens a file that exists, for reading alone: nothing in it changes,
	// and every swap is [semel.ErrRejected]. A gateway may have it open meanwhile.
	ReadOnly bool
	// Readers is how many reads may be under way at once. Default 4.
	Readers int
	// CacheBytes bounds the memory for pages of the connection that writes; each
	// reader has an eighth of it. Default 128 MiB, which keeps the keys of about a
	// million records at hand; it is used up only as the file grows.
	CacheBytes int
	// BusyTimeout is how long to wait while another process writes. Default 5 s.
	BusyTimeout time.Duration
	// Batch sets how swaps are collected into commits. The zero value suits.
	Batch batch.Options
}

func (o Options) filled() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 128 << 20
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	return o
}

// Store is a semel.Store in a SQLite file. It is safe for concurrent use.
type Store struct {
	file  *file
	batch *batch.Store // nil if the file is read only
}

var (
	_ semel.Store   = (*Store)(nil)
	_ semel.Batcher = (*Store)(nil)
	_ semel.Sweeper = (*Store)(nil)
	_ semel.Lister  = (*Store)(nil)
	_ semel.Journal = (*Store)(nil)
	_ semel.Days    = (*Store)(nil)

	_ semel.Describer = (*Store)(nil)
	_ semel.Measurer  = (*Store)(nil)
)

var (
	errClosed   = errors.New("sqlite: the store is closed; nothing was written")
	errReadOnly = errors.New("sqlite: the file was opened for reading only")
)

// Get is part of semel.Store. It reads what is committed and waits for no
// writer.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	if err := ended(ctx); err != nil {
		return semel.Reading{}, err
	}
	return s.file.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store. What it answers without an error is
// on the disk.
//
// A duplicate costs one read: it writes nothing, takes no write lock and waits
// for no commit, unless another process wrote the key a moment ago.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.batch == nil {
		return semel.Reading{}, errors.Join(semel.ErrRejected, errReadOnly)
	}
	if err := ended(ctx); err != nil {
		return semel.Reading{}, err
	}
	if old.IsZero() && s.file.mayHold(&next.Digest) {
		held, err := s.file.Get(ctx, next.Digest)
		if err != nil {
			return semel.Reading{}, err
		}
		if held.Record.Held() {
			return held, semel.ErrConflict
		}
	}
	return s.batch.CompareAndSwap(ctx, old, next)
}

// SwapMany is part of semel.Batcher: one transaction, past the batch that
// collects single swaps. Once it has begun it does not follow ctx.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	err := ended(ctx)
	if s.batch == nil {
		err = errors.Join(semel.ErrRejected, errReadOnly)
	}
	if err == nil {
		return s.file.SwapMany(ctx, swaps)
	}
	out := make([]semel.Swapped, len(swaps))
	for i := range out {
		out[i].Err = err
	}
	return out
}

// Describe is part of semel.Describer. What it says holds for every file: Open
// sets what it needs.
func (s *Store) Describe() semel.Description {
	return semel.Description{
		Survives:   semel.SurvivesCrash,
		Durability: "on this machine's disk before a request starts and before its answer goes; lost with the disk",
		Clock:      "this machine's",
	}
}

// ended gives an error if ctx has ended before anything was done.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("sqlite: nothing was done: %w", context.Cause(ctx))
}

// Close waits for the commits under way and closes the file. Do not call the
// store afterwards: that gives errors. The last process to close the file moves
// what is in the -wal file into the database.
func (s *Store) Close() error {
	var err error
	if s.batch != nil {
		err = s.batch.Close()
	}
	return errors.Join(err, s.file.close())
}
