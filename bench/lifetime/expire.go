// Package lifetime measures P15 on PostgreSQL and SQLite: what requests feel of a million
// records that expire, of a day of the journal that is dropped, and how much room the
// tables take after hours of keys that come and go. Only the bench command imports it.
package lifetime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/bench/internal/bulk"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

const (
	expiring = 1_000_000
	callers  = 16
	// every is how often a caller begins an operation: some 800 pairs a second in all,
	// which leaves the machine room, as a machine in production has it.
	every = 20 * time.Millisecond
	// What the sweeper may do, as package lifecycle has it by default.
	sweepBatch = 25
	sweepShare = 0.1
	// slice is how long the sweeper runs, or does not, at a time: short, since a
	// machine's moods last longer. A round has perRound of them.
	slice    = 500 * time.Millisecond
	perRound = 24
)

// Part is one of the benches here.
type Part func(ctx context.Context, w io.Writer, url string, o rounds.Options) ([]rounds.Result, error)

// Run gives the part a server of its own.
func (part Part) Run(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	dir, err := os.MkdirTemp(programs.Dir(), "lifetime")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user
		return nil, err
	}
	db, err := server.StartPostgres(filepath.Join(dir, "postgres"), server.PostgresOptions{Settings: bulk.Server()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	return part(ctx, w, db.URL("postgres"), o)
}

// Expire has a million records expire: half of them lose their result, half their key.
func Expire(ctx context.Context, w io.Writer, url string, o rounds.Options) (_ []rounds.Result, err error) {
	const schema = "expiring"
	store, err := postgres.Open(ctx, url, postgres.Options{Schema: schema})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	start := time.Now()
	err = bulk.Load(ctx, url, schema, expiring, 25*time.Hour, func(i uint64) semel.Record {
		r := pairs.Finished(pairs.Record(i))
		if i%2 == 0 {
			r.TTL, r.Replay = 24*time.Hour, time.Hour
		}
		return r
	})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "\nP15 PostgreSQL: a million records expire (half become tombstones, half are forgotten) while %d callers claim and complete,\n"+
		"    each every %v; the sweeper has batches of %d and %.0f %% of the time; it runs in every other slice of %v (loaded in %v)\n",
		callers, every, sweepBatch, 100*sweepShare, slice, time.Since(start).Round(time.Second))
	var counter pairs.Counter
	counter.Skip(10 * expiring)
	side := paced(&counter, store, every)
	if _, err := side(ctx, slice); err != nil { // connections, plans
		return nil, err
	}
	line, swept, err := turns(ctx, w, store, side, o)
	if err != nil {
		return nil, err
	}
	start, rest := time.Now(), 0
	for {
		n, err := store.Sweep(ctx, 10*sweepBatch)
		if err != nil {
			return nil, err
		}
		if rest += n; n < 10*sweepBatch {
			break
		}
	}
	fmt.Fprintf(w, "    the other %d without a pause and without requests: %v, %.0f/s\n", rest, time.Since(start).Round(time.Millisecond), float64(rest)/time.Since(start).Seconds())
	if swept+rest != expiring {
		return nil, fmt.Errorf("%d were swept, want %d", swept+rest, expiring)
	}
	return []rounds.Result{line}, nil
}

// turns measures requests with and without the sweeper, in turn, and tells how many
// records it swept. What is compared is the median of the slices' p99: a machine that
// stands still for a moment would decide it otherwise. All together is printed as well.
func turns(ctx context.Context, w io.Writer, store semel.Sweeper, side func(context.Context, time.Duration) (rounds.Sample, error), o rounds.Options) (rounds.Result, int, error) {
	line := rounds.Result{ID: "P15", What: "p99 of requests while the sweeper runs", Against: "without it", Unit: "x", Goal: 1.10, AtMost: true}
	var all [2]rounds.Sample
	swept, sweeping := 0, time.Duration(0)
	for round := range o.Filled().Rounds {
		var p50, p99 [2][]float64
		for turn := range perRound {
			with := (turn + turn/2 + round) % 2 // 0 1 1 0, then 1 0 0 1
			var s rounds.Sample
			var n int
			var err error
			if with == 0 {
				s, err = side(ctx, slice)
			} else {
				s, n, err = beside(ctx, store, side)
				swept, sweeping = swept+n, sweeping+slice
			}
			if err != nil {
				return line, swept, err
			}
			p50[with], p99[with] = append(p50[with], float64(s.Quantile(0.5))), append(p99[with], float64(s.Quantile(0.99)))
			all[with].Add(&s)
		}
		short := func(of []float64) string { return rounds.Short(time.Duration(rounds.Median(of))) }
		ratio := rounds.Median(p99[1]) / rounds.Median(p99[0])
		line.Rounds = append(line.Rounds, ratio)
		fmt.Fprintf(w, "    round %d  without: p50 %s p99 %s   with: p50 %s p99 %s   %.2fx\n", round+1, short(p50[0]), short(p99[0]), short(p50[1]), short(p99[1]), ratio)
	}
	line.Reached = rounds.Median(line.Rounds)
	fmt.Fprintf(w, "    all: without p99 %s p99.9 %s, with p99 %s p99.9 %s; %d swept in %v beside the requests, %.0f/s\n", rounds.Short(all[0].Quantile(0.99)), rounds.Short(all[0].Quantile(0.999)),
		rounds.Short(all[1].Quantile(0.99)), rounds.Short(all[1].Quantile(0.999)), swept, sweeping, float64(swept)/sweeping.Seconds())
	return line, swept, nil
}

// paced lets callers do pairs at a fixed rate, and measures each of the two requests
// from when it was to begin.
func paced(counter *pairs.Counter, store semel.Store, every time.Duration) func(ctx context.Context, d time.Duration) (rounds.Sample, error) {
	var next sync.Mutex
	n := uint64(20 * expiring)
	take := func() uint64 {
		next.Lock()
		defer next.Unlock()
		n++
		return n
	}
	do := pairs.Of(store)
	return func(ctx context.Context, d time.Duration) (rounds.Sample, error) {
		samples, errs := make([]rounds.Sample, callers), make([]error, callers)
		var wg sync.WaitGroup
		start := time.Now()
		for c := range callers {
			wg.Go(func() {
				at := start.Add(time.Duration(c) * every / callers)
				for ; at.Before(start.Add(d)) && errs[c] == nil && ctx.Err() == nil; at = at.Add(every) {
					time.Sleep(time.Until(at))
					errs[c] = do(take())
					samples[c].Saw(time.Since(at))
				}
			})
		}
		wg.Wait()
		var sum rounds.Sample
		for i := range samples {
			sum.Add(&samples[i])
		}
		sum.Took = time.Since(start)
		return sum, errors.Join(append(errs, ctx.Err())...)
	}
}

// beside measures requests while the sweeper runs.
func beside(ctx context.Context, store semel.Sweeper, side func(ctx context.Context, d time.Duration) (rounds.Sample, error)) (s rounds.Sample, swept int, err error) {
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for stop.Err() == nil && failed == nil {
			start := time.Now()
			var n int
			n, failed = store.Sweep(ctx, sweepBatch)
			swept += n
			rest := time.NewTimer(time.Duration(float64(time.Since(start)) * (1/sweepShare - 1)))
			select {
			case <-rest.C:
			case <-stop.Done():
			}
		}
	})
	s, err = side(ctx, slice)
	cancel()
	wg.Wait()
	return s, swept, errors.Join(err, failed)
}
