// Package postgres measures PostgreSQL: transaction scopes (P1, P2), claim and
// complete with its journal against two plain autocommitted statements without one
// (P3, P4), replays over HTTP against a bare handler (P5), and operations of one
// durable step (P13). The server is a private one on this machine, with its usual
// durability. Only the bench command imports it.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

// atLeast is how long a side is measured in each round.
const atLeast = 3 * time.Second

// held is how many finished records are there when lookups are measured.
const held = 100_000

// Run measures P3, P4 and P5.
func Run(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	db, err := server.StartPostgres(filepath.Join(programs.Dir(), "postgres"), server.PostgresOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	url := db.URL("postgres")
	results, err = swaps(ctx, w, url, o)
	if err != nil {
		return results, err
	}
	more, err := replays(ctx, w, programs, url, o)
	return append(results, more...), err
}

// swaps measures P3 and P4.
func swaps(ctx context.Context, w io.Writer, url string, o rounds.Options) (results []rounds.Result, err error) {
	o.For = max(o.For, atLeast)
	store, err := postgres.Open(ctx, url, postgres.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	plain, err := openPlain(ctx, url)
	if err != nil {
		return nil, err
	}
	defer plain.pool.Close()
	var counter pairs.Counter
	counter.Skip(held)
	if err := pairs.Fill(store, 0, held); err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "\nP3  PostgreSQL, durable: claim and complete in Semel, with its journal, against plain autocommitted INSERT and UPDATE\n"+
		"    without one (%d connections); %v a side\n", plainConnections, o.Filled().For)
	for _, c := range []struct {
		id      string
		callers int
		goal    float64
	}{{"P3", 512, 6}, {"P4", 64, 2.5}, {"P4", 1, 1}} {
		sides := []rounds.Side{counter.Side("plain", c.callers, plain.pair), counter.Side("semel", c.callers, pairs.Of(store))}
		fmt.Fprintf(w, "    %d callers, pairs a second\n", c.callers)
		log := rounds.NewLog(w, sides, 0, 0)
		if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
			return results, err
		}
		log.Close()
		results = append(results, log.Result(1, rounds.Result{
			ID: c.id, What: fmt.Sprintf("PostgreSQL claim + complete, %d callers", c.callers), Against: "autocommit, no journal", Goal: c.goal,
		}))
	}
	looked, err := lookups(ctx, w, o, &counter, store)
	return append(results, looked...), err
}

// lookups measures the field's guide: a duplicate under 20 ms from the database.
func lookups(ctx context.Context, w io.Writer, o rounds.Options, counter *pairs.Counter, store *postgres.Store) ([]rounds.Result, error) {
	line := rounds.Result{ID: "P5", What: "duplicate from PostgreSQL, p99", Against: "the field's guide", Unit: "ms", Goal: 20, AtMost: true}
	side := counter.Side("", 16, pairs.Duplicate(store, held))
	for range o.Filled().Rounds {
		s, err := side.Measure(ctx, time.Second)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "    a duplicate, 16 callers: %.0f/s, p50 %s, p99 %s\n", s.Rate(), rounds.Short(s.Quantile(0.5)), rounds.Short(s.Quantile(0.99)))
		line.Rounds = append(line.Rounds, float64(s.Quantile(0.99))/1e6)
	}
	line.Reached = rounds.Median(line.Rounds)
	return []rounds.Result{line}, nil
}
