// Package sqlite measures the SQLite store against plain SQLite: claim and
// complete, durable and journaled, over one autocommitted statement for each
// without a journal. Only the bench command imports it; for a figure of your own
// machine run that, in a directory on the disk that is meant (TMPDIR).
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/rounds"
)

const (
	// held is how many finished records each side has at the start.
	held = 500_000
	// atLeast is how long a side is measured in each round: shorter, and there is no
	// checkpoint in it.
	atLeast = 3 * time.Second
)

// bench is what all comparisons share.
type bench struct {
	store *sqlite.Store
	plain *plain
	next  atomic.Uint64 // the number of the last operation
}

// Run measures P9: 512 callers and one caller, and lookups beside 512 writers.
func Run(ctx context.Context, w io.Writer, _ *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	o.For = max(o.For, atLeast)
	o = o.Filled()
	dir, err := os.MkdirTemp("", "semel-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintf(w, "P9  SQLite, durable: claim and complete in Semel, with its journal, against plain autocommitted INSERT and UPDATE\n"+
		"    without one; %d records held, %v a side, in %s\n", held, o.For, filepath.Dir(dir))
	b := new(bench)
	b.next.Store(held)
	semelPath, plainPath := filepath.Join(dir, "semel.db"), filepath.Join(dir, "plain.db")
	if err := fill(semelPath, plainPath); err != nil {
		return nil, err
	}
	if b.store, err = sqlite.Open(semelPath, sqlite.Options{}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.store.Close()) }()
	if b.plain, err = openPlain(plainPath); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.plain.db.Close()) }()

	for _, c := range []struct {
		callers int
		goal    float64
	}{{512, 8}, {1, 1}} {
		sides := []rounds.Side{b.side("plain", c.callers, b.plain.pair), b.side("semel", c.callers, b.pair)}
		fmt.Fprintf(w, "    %d callers, pairs a second\n", c.callers)
		log := rounds.NewLog(w, sides, 0, 0)
		if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
			return results, err
		}
		log.Close()
		results = append(results, log.Result(1, rounds.Result{
			ID: "P9", What: fmt.Sprintf("SQLite claim + complete, %d callers", c.callers), Against: "autocommit, no journal", Goal: c.goal,
		}))
	}
	looked, err := b.lookups(w, o)
	return append(results, looked...), err
}

// operation does one thing, the n-th.
type operation func(n uint64) error

// side lets callers do operations, one after the other each.
func (b *bench) side(name string, callers int, do operation) rounds.Side {
	return rounds.Side{Name: name, Measure: func(ctx context.Context, d time.Duration) (rounds.Sample, error) {
		samples, errs := make([]rounds.Sample, callers), make([]error, callers)
		var wg sync.WaitGroup
		start := time.Now()
		end := start.Add(d)
		for i := range callers {
			wg.Go(func() {
				for from := time.Now(); from.Before(end) && errs[i] == nil && ctx.Err() == nil; {
					errs[i] = do(b.next.Add(1))
					to := time.Now()
					samples[i].Saw(to.Sub(from))
					from = to
				}
			})
		}
		wg.Wait()
		var sum rounds.Sample
		for i := range samples {
			sum.Add(&samples[i])
		}
		sum.Took = time.Since(start)
		return sum, errors.Join(errs...)
	}}
}

// pair claims and completes the n-th operation.
func (b *bench) pair(n uint64) error {
	r := record(n)
	claim, err := b.store.CompareAndSwap(context.Background(), semel.Version{}, r)
	if err != nil {
		return err
	}
	_, err = b.store.CompareAndSwap(context.Background(), claim.Record.Version, finished(r))
	return err
}

// lookup is what a replay waits for: the duplicate of some key that is held.
func (b *bench) lookup(uint64) error {
	r, err := b.store.CompareAndSwap(context.Background(), semel.Version{}, record(rand.Uint64N(held)))
	if !errors.Is(err, semel.ErrConflict) || r.Record.Result == nil {
		return fmt.Errorf("a duplicate of a key that is held gave %w", errors.Join(err, errors.New("no result")))
	}
	return nil
}

// read is what a waiter does: it reads a key.
func (b *bench) read(uint64) error {
	d := record(rand.Uint64N(held)).Digest
	r, err := b.store.Get(context.Background(), d)
	if err == nil && !r.Record.Held() {
		err = errors.New("a key that is held is not found")
	}
	return err
}

// lookups measures the field's guide: under 20 ms from the database.
func (b *bench) lookups(w io.Writer, o rounds.Options) ([]rounds.Result, error) {
	var results []rounds.Result
	for _, c := range []struct {
		what    string
		writers int
		do      operation
	}{
		{"lookup (Get), alone", 0, b.read},
		{"lookup (Get), 512 writers beside", 512, b.read},
		{"duplicate, alone", 0, b.lookup},
		{"duplicate, 512 writers beside", 512, b.lookup},
	} {
		line := rounds.Result{ID: "P9", What: c.what + ", p99", Against: "the field's guide", Unit: "ms", Goal: 20, AtMost: true}
		for range o.Rounds {
			s, err := b.beside(c.writers, c.do)
			if err != nil {
				return results, err
			}
			fmt.Fprintf(w, "    %s: %.0f/s, p50 %s, p99 %s, p99.9 %s\n", c.what, s.Rate(),
				rounds.Short(s.Quantile(0.5)), rounds.Short(s.Quantile(0.99)), rounds.Short(s.Quantile(0.999)))
			line.Rounds = append(line.Rounds, float64(s.Quantile(0.99))/1e6)
		}
		line.Reached = rounds.Median(line.Rounds)
		results = append(results, line)
	}
	return results, nil
}

// beside measures one caller for a second while others write.
func (b *bench) beside(writers int, do operation) (rounds.Sample, error) {
	writing := make(chan error, 1)
	go func() {
		_, err := b.side("", writers, b.pair).Measure(context.Background(), time.Second)
		writing <- err
	}()
	s, err := b.side("", 1, do).Measure(context.Background(), time.Second)
	return s, errors.Join(err, <-writing)
}
