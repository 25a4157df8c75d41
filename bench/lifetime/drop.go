package lifetime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
)

// Drop drops days of the journal that hold more and more, beside requests.
func Drop(ctx context.Context, w io.Writer, url string, _ rounds.Options) (_ []rounds.Result, err error) {
	const schema = "dropping"
	store, err := postgres.Open(ctx, url, postgres.Options{Schema: schema})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	fmt.Fprintf(w, "\nP15 PostgreSQL: a day of the journal is dropped beside the requests of P15\n")
	var counter pairs.Counter
	side := paced(&counter, store, every)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	for i, lines := range []int{10_000, 100_000, 1_000_000} {
		day := today.AddDate(0, 0, -i-1)
		name := schema + ".journal_" + day.Format("20060102")
		for _, sql := range []string{
			fmt.Sprintf("CREATE TABLE %s PARTITION OF %s.journal FOR VALUES FROM ('%s') TO ('%s')", name, schema, day.Format("2006-01-02 00:00:00Z"), day.AddDate(0, 0, 1).Format("2006-01-02 00:00:00Z")),
			fmt.Sprintf("INSERT INTO %s SELECT 1, n, n, '%s', sha256(n::text::bytea), decode(repeat('00', 200), 'hex') FROM generate_series(1, %d) n", name, day.Add(12*time.Hour).Format("2006-01-02 15:04:05Z"), lines),
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return nil, err
			}
		}
		var took time.Duration
		var failed error
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Second)
			start := time.Now()
			failed = store.DropDay(ctx, day)
			took = time.Since(start)
		})
		s, err := side(ctx, 3*time.Second)
		wg.Wait()
		if err := errors.Join(err, failed); err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "    %8d lines: dropped in %s; requests p99 %s, slowest %s\n", lines, rounds.Short(took), rounds.Short(s.Quantile(0.99)), rounds.Short(s.Quantile(0.99999)))
	}
	return nil, nil
}
