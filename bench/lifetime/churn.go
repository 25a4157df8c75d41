package lifetime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
)

// A minute of the store's clock passes in a second, and vacuum looks as often for
// something to do: once in that minute, as by default.
const (
	perMinute = 2000
	replayFor = 10 * time.Minute
	keepFor   = 30 * time.Minute
	churnFor  = 60 * time.Minute // after the first generation is complete
)

// Churn has keys come, be answered, expire and go, and compares the room that they
// take with what the first generation took, when nothing had gone yet.
func Churn(ctx context.Context, w io.Writer, url string, _ rounds.Options) (_ []rounds.Result, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	for _, sql := range []string{
		"ALTER SYSTEM SET autovacuum_naptime = '1s'", "SELECT pg_reload_conf()", "CREATE SCHEMA churn_clock",
		"CREATE TABLE churn_clock.clock AS SELECT clock_timestamp() AS at",
		"CREATE FUNCTION churn_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM churn_clock.clock'",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	sign := "?"
	if strings.Contains(url, "?") {
		sign = "&"
	}
	store, err := postgres.Open(ctx, url+sign+"search_path=churn_clock,pg_catalog", postgres.Options{Schema: "churn"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	fmt.Fprintf(w, "\nP15 PostgreSQL, churn: %d keys a minute, replayed for %v, remembered for %v; a minute passes in a second, also for vacuum\n", perMinute, replayFor, keepFor)
	fmt.Fprintf(w, "    %8s %10s %12s %12s %12s\n", "minute", "records", "table", "digests", "due")
	var first, last size
	next := uint64(0)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	full := int(keepFor / time.Minute)
	end := full + int(churnFor/time.Minute)
	for minute := 1; minute <= end; minute++ {
		if err := turnover(ctx, store, &next); err != nil {
			return nil, err
		}
		if minute%15 == 0 || minute == full {
			last, err = sizeOf(ctx, conn)
			if err != nil {
				return nil, err
			}
			if minute == full {
				first = last
			}
			fmt.Fprintf(w, "    %8d %10d %9d kB %9d kB %9d kB\n", minute, last.records, last.table>>10, last.digests>>10, last.due>>10)
		}
		if _, err := conn.Exec(ctx, "UPDATE churn_clock.clock SET at = at + interval '1 min'"); err != nil {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var results []rounds.Result
	for _, c := range []struct {
		what  string
		ratio float64
	}{
		{"table", float64(last.table) / float64(last.records) / (float64(first.table) / float64(first.records))},
		{"indexes", float64(last.digests+last.due) / float64(last.records) / (float64(first.digests+first.due) / float64(first.records))},
	} {
		results = append(results, rounds.Result{
			ID: "P15", What: c.what + " per record after an hour of churn", Against: "the first generation",
			Unit: "x", Goal: 1.3, AtMost: true, Reached: c.ratio, Rounds: []float64{c.ratio},
		})
	}
	return results, nil
}

// turnover is a minute's work: keys come and are answered, and what is due is swept.
func turnover(ctx context.Context, store *postgres.Store, next *uint64) error {
	const workers = 32
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for c := range workers {
		from := *next + uint64(c)
		wg.Go(func() {
			for n := from; n < *next+perMinute && errs[c] == nil; n += workers {
				r := pairs.Record(n)
				claim, err := store.CompareAndSwap(ctx, semel.Version{}, r)
				if err == nil {
					done := pairs.Finished(r)
					done.Replay, done.TTL = replayFor, keepFor
					_, err = store.CompareAndSwap(ctx, claim.Record.Version, done)
				}
				errs[c] = err
			}
		})
	}
	wg.Wait()
	*next += perMinute
	for {
		n, err := store.Sweep(ctx, sweepBatch)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if n < sweepBatch {
			return errors.Join(errs...)
		}
	}
}

type size struct{ records, table, digests, due int64 }

func sizeOf(ctx context.Context, conn *pgx.Conn) (s size, err error) {
	err = conn.QueryRow(ctx, `SELECT count(*), pg_table_size('churn.records'), pg_relation_size('churn.records_pkey'), pg_relation_size('churn.records_due') FROM churn.records`).
		Scan(&s.records, &s.table, &s.digests, &s.due)
	return s, err
}
