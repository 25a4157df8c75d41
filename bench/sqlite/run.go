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
	"os"
	"path/filepath"
	"time"

	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
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
	store   *sqlite.Store
	plain   *plain
	counter pairs.Counter
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
	b.counter.Skip(held)
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
		sides := []rounds.Side{b.counter.Side("plain", c.callers, b.plain.pair), b.counter.Side("semel", c.callers, pairs.Of(b.store))}
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

// lookups measures the field's guide: under 20 ms from the database.
func (b *bench) lookups(w io.Writer, o rounds.Options) ([]rounds.Result, error) {
	var results []rounds.Result
	for _, c := range []struct {
		what    string
		writers int
		do      pairs.Operation
	}{
		{"lookup (Get), alone", 0, pairs.Read(b.store, held)},
		{"lookup (Get), 512 writers beside", 512, pairs.Read(b.store, held)},
		{"duplicate, alone", 0, pairs.Duplicate(b.store, held)},
		{"duplicate, 512 writers beside", 512, pairs.Duplicate(b.store, held)},
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
func (b *bench) beside(writers int, do pairs.Operation) (rounds.Sample, error) {
	writing := make(chan error, 1)
	go func() {
		_, err := b.counter.Side("", writers, pairs.Of(b.store)).Measure(context.Background(), time.Second)
		writing <- err
	}()
	s, err := b.counter.Side("", 1, do).Measure(context.Background(), time.Second)
	return s, errors.Join(err, <-writing)
}

// fill gives both sides what they hold at the start.
func fill(semelPath, plainPath string) error {
	store, err := sqlite.Open(semelPath, sqlite.Options{})
	if err != nil {
		return err
	}
	plain, err := openPlain(plainPath)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	err = errors.Join(pairs.Fill(store, 0, held), plain.fill(0, held))
	// Closing moves everything from the -wal files into the databases, and to the disk.
	return errors.Join(err, store.Close(), plain.db.Close())
}
