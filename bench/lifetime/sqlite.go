package lifetime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
)

// everyInFile is how often a caller begins an operation: 160 pairs a second in all. Each
// waits for two flushes, and a machine that has other work has few of them.
const everyInFile = 100 * time.Millisecond

// mixed has every other record forgotten when the others lose their results.
type mixed struct{ semel.Batcher }

func (m mixed) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	for i := range swaps {
		if i%2 == 0 {
			swaps[i].Next.TTL, swaps[i].Next.Replay = 24*time.Hour, time.Hour
		}
	}
	return m.Batcher.SwapMany(ctx, swaps)
}

// SQLite has a million records expire in a SQLite file, and then drops the day of the
// journal that has their lines.
func SQLite(ctx context.Context, w io.Writer, _ *child.Programs, o rounds.Options) (_ []rounds.Result, err error) {
	dir, err := os.MkdirTemp("", "semel-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var back atomic.Int64
	back.Store(int64(25 * time.Hour))
	store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{Now: func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	start := time.Now()
	if err := pairs.Fill(mixed{store}, 0, expiring); err != nil {
		return nil, err
	}
	back.Store(0)
	fmt.Fprintf(w, "\nP15 SQLite, in %s: a million records expire (half become tombstones, half are forgotten) while %d callers claim and complete,\n"+
		"    each every %v; the sweeper has batches of %d and %.0f %% of the time; it runs in every other slice of %v (loaded in %v)\n",
		filepath.Dir(dir), callers, everyInFile, sweepBatch, 100*sweepShare, slice, time.Since(start).Round(time.Second))
	if err := told(ctx, w, store); err != nil {
		return nil, err
	}
	var counter pairs.Counter
	side := paced(&counter, store, everyInFile)
	if _, err := side(ctx, slice); err != nil {
		return nil, err
	}
	line, swept, err := turns(ctx, w, store, side, o)
	if err != nil {
		return nil, err
	}
	line.What = "SQLite: " + line.What
	start = time.Now()
	rest, err := store.Sweep(ctx, expiring)
	if err != nil || swept+rest != expiring {
		return nil, fmt.Errorf("%d were swept, want %d; %w", swept+rest, expiring, errors.Join(err))
	}
	fmt.Fprintf(w, "    the other %d without a pause and without requests: %v, %.0f/s\n", rest, time.Since(start).Round(time.Millisecond), float64(rest)/time.Since(start).Seconds())
	if err := told(ctx, w, store); err != nil {
		return nil, err
	}
	return []rounds.Result{line}, dropped(ctx, w, store, side)
}

// told prints a measure, and what it took.
func told(ctx context.Context, w io.Writer, store *sqlite.Store) error {
	start := time.Now()
	m, err := store.Measure(ctx)
	fmt.Fprintf(w, "    measured in %s: %d records in %d MB, journal of %d MB\n", rounds.Short(time.Since(start)), m.Records, m.Bytes>>20, m.JournalBytes>>20)
	return err
}

// dropped drops the oldest days beside requests.
func dropped(ctx context.Context, w io.Writer, store *sqlite.Store, side func(context.Context, time.Duration) (rounds.Sample, error)) error {
	days, err := store.Days(ctx)
	if err != nil {
		return err
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	var took time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		start := time.Now()
		for _, day := range days[:len(days)-1] {
			failed = errors.Join(failed, store.DropDay(ctx, day))
		}
		took = time.Since(start)
	})
	var s rounds.Sample
	for stop.Err() == nil && err == nil {
		var some rounds.Sample
		some, err = side(ctx, slice)
		s.Add(&some)
	}
	wg.Wait()
	fmt.Fprintf(w, "    %d million lines of the journal dropped in %s beside requests: p50 %s p99 %s, slowest %s\n",
		expiring/1_000_000, took.Round(time.Millisecond), rounds.Short(s.Quantile(0.5)), rounds.Short(s.Quantile(0.99)), rounds.Short(s.Quantile(0.99999)))
	return errors.Join(err, failed)
}
