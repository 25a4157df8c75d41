// Package growth measures P16: what claim and complete, and a duplicate, cost in
// a store that holds ten thousand, a hundred thousand, a million records, and
// how many bytes a record takes. The stores stand side by side and take turns.
// Only the bench command imports it.
package growth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/bench/internal/bulk"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

const (
	smallest = 10_000
	callers  = 16
	// flat is the least share of the smallest store's rate: 1.3 times its latency.
	flat    = 0.77
	atLeast = 2 * time.Second
)

// grown is a store that holds a number of records.
type grown struct {
	store semel.Store
	held  uint64
	fill  func() error
	bytes func() (int64, error)
	with  string // what the bytes count
	close func() error
	// look tells what it costs to look around in it; nil: nothing.
	look func(w io.Writer) error
}

// mostInSQLite is the largest store that SQLite is measured with.
const mostInSQLite = 1_000_000

// SQLite measures stores of up to largest records, and a million at most.
func SQLite(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options, largest uint64) ([]rounds.Result, error) {
	dir := filepath.Join(programs.Dir(), "growth")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return measure(ctx, w, o, "SQLite", min(largest, mostInSQLite), func(held uint64) (*grown, error) { return openSQLite(dir, held) })
}

// sharedBuffers is for a server that holds gigabytes, which nobody runs with the
// default of 128 MB: with that a random read of a million records or more finds its
// pages with the system.
const sharedBuffers = "2GB"

// Postgres measures stores of up to largest records. They are loaded as rows, without
// their lines in the journal.
func Postgres(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options, largest uint64) ([]rounds.Result, error) {
	settings := bulk.Server()
	settings["shared_buffers"] = sharedBuffers
	db, err := server.StartPostgres(filepath.Join(programs.Dir(), "growing"), server.PostgresOptions{Settings: settings})
	if err != nil {
		return nil, err
	}
	results, err := measure(ctx, w, o, "PostgreSQL", largest, func(held uint64) (*grown, error) { return openPostgres(ctx, db.URL("postgres"), held) })
	return results, errors.Join(err, db.Stop())
}

// measure compares the sizes of one store.
func measure(ctx context.Context, w io.Writer, o rounds.Options, name string, largest uint64, open func(held uint64) (*grown, error)) (results []rounds.Result, err error) {
	o.For = max(o.For, atLeast)
	fmt.Fprintf(w, "\nP16 %s as it grows, %d callers, the same store at each size\n", name, callers)
	var counter pairs.Counter
	counter.Skip(10 * largest)
	var pairSides, duplicateSides []rounds.Side
	for held := uint64(smallest); held <= largest; held *= 10 {
		start := time.Now()
		g, err := open(held)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, g.close()) }()
		if err := g.fill(); err != nil {
			return nil, err
		}
		size, err := g.bytes()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "    %d records written in %v: %.0f bytes each, with %s\n", held, time.Since(start).Round(time.Second), float64(size)/float64(held), g.with)
		if g.look != nil {
			if err := g.look(w); err != nil {
				return nil, err
			}
		}
		title := fmt.Sprintf("%d held", held)
		pairSides = append(pairSides, counter.Side(title, callers, pairs.Of(g.store)))
		duplicateSides = append(duplicateSides, counter.Side(title, callers, pairs.Duplicate(g.store, held)))
	}
	for _, c := range []struct {
		what  string
		sides []rounds.Side
	}{{"claim + complete", pairSides}, {"duplicate", duplicateSides}} {
		fmt.Fprintf(w, "    %s\n", c.what)
		log := rounds.NewLog(w, c.sides, make([]int, len(c.sides))...)
		if err := rounds.Alternate(ctx, o, c.sides, log.Tell); err != nil {
			return results, err
		}
		log.Close()
		for i := range c.sides[1:] {
			results = append(results, log.Result(i+1, rounds.Result{
				ID: "P16", What: fmt.Sprintf("%s %s, %s", name, c.what, c.sides[i+1].Name), Against: c.sides[0].Name, Goal: flat,
			}))
		}
	}
	return results, nil
}

func openSQLite(dir string, held uint64) (*grown, error) {
	path := filepath.Join(dir, fmt.Sprintf("%d.db", held))
	store, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		return nil, err
	}
	return &grown{store, held, func() error { return pairs.Fill(store, 0, held) }, func() (int64, error) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		log, err := os.Stat(path + "-wal")
		if err != nil {
			return 0, err
		}
		return info.Size() + log.Size(), nil
	}, "their journal and indexes", store.Close, nil}, nil
}

func openPostgres(ctx context.Context, url string, held uint64) (*grown, error) {
	schema := fmt.Sprintf("held_%d", held)
	store, err := postgres.Open(ctx, url, postgres.Options{Schema: schema})
	if err != nil {
		return nil, err
	}
	fill := func() error {
		return bulk.Load(ctx, url, schema, held, 0, func(i uint64) semel.Record { return pairs.Finished(pairs.Record(i)) })
	}
	return &grown{store, held, fill, func() (size int64, err error) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return 0, err
		}
		defer conn.Close(ctx)
		err = conn.QueryRow(ctx, `SELECT pg_total_relation_size($1::regclass)`, schema+".records").Scan(&size)
		return size, err
	}, "their indexes", store.Close, func(w io.Writer) error { return look(ctx, w, store) }}, nil
}

// look searches for what is in doubt, and measures, twice: the first time all
// records are read.
func look(ctx context.Context, w io.Writer, store *postgres.Store) error {
	for _, when := range [...]string{"first", "then"} {
		start := time.Now()
		if _, err := store.List(ctx, semel.Filter{InDoubt: true}); err != nil {
			return err
		}
		listed := time.Since(start)
		start = time.Now()
		m, err := store.Measure(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "      %-5s what is in doubt listed in %s, measured in %s: %d records (estimated: %t), %d bytes\n",
			when, rounds.Short(listed), rounds.Short(time.Since(start)), m.Records, m.Estimated, m.Bytes)
	}
	return nil
}
