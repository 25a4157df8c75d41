package postgres_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// What a scope costs on the wire against BEGIN, INSERT, COMMIT of the same pool:
// no round trip more, directly, through a pooler, and in both variants. A replay
// takes two: the second is the ROLLBACK.
func TestScopeRoundTrips(t *testing.T) {
	server := private(t, nil)
	bouncer, err := server.Bouncer(filepath.Join(t.TempDir(), "bouncer"))
	must(t, err)
	defer bouncer.Kill()
	run(t, sql(t, server.URL("postgres")), "CREATE TABLE ledger (name text NOT NULL)")
	for _, c := range []struct{ name, url string }{{"direct", server.URL("postgres")}, {"pooler", bouncer.URL("postgres") + "&default_query_exec_mode=exec"}} {
		p, through := between(t, c.url)
		store := opened(t, server.URL("postgres"), "wire_scope_"+c.name, postgres.Options{MaxConns: 2})
		pool := pooled(t, through, 1)
		count := func(what string, want int64, fn func() error) {
			t.Helper()
			trips := p.trips.Load()
			must(t, fn())
			trips = p.trips.Load() - trips
			t.Logf("%s, %s: %d round trips", c.name, what, trips)
			if trips != want {
				t.Errorf("%s: %s took %d round trips, want %d", c.name, what, trips, want)
			}
		}
		plain := func() error { return plainly(pool) }
		must(t, plain()) // the driver prepares its statement
		count("BEGIN, INSERT, COMMIT", 3, plain)
		for _, optimistic := range []bool{false, true} {
			scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
			must(t, err)
			variant := map[bool]string{false: "claim first", true: "optimistic"}[optimistic]
			for i := range 2 {
				must(t, inScope(scope, fmt.Sprint("warm", i, optimistic)))
			}
			count("the same in a scope, "+variant, 3, func() error { return inScope(scope, "k"+variant) })
			count("a replay, "+variant, 2, func() error { return inScope(scope, "k"+variant) }) // with the rollback
		}
	}
}

func plainly(pool *pgxpool.Pool) error {
	ctx := context.Background()
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO ledger VALUES ($1)", "plain"); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// inScope is plainly in a scope.
func inScope(scope *postgres.Scope, id string) error {
	_, err := scope.Do(context.Background(), semel.Key{Scope: "tenant", ID: id}, semel.FingerprintOf([]byte(id)), func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
		_, err := tx.Exec(ctx, "INSERT INTO ledger VALUES ($1)", id)
		return semel.Result{Code: 201, Data: []byte(id)}, err
	})
	return err
}

// A scope's commit is one flush, as any other: key, journal and effect are in
// the same one.
func TestScopeFlushes(t *testing.T) {
	const n = 150
	server := private(t, map[string]string{"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "autovacuum": "off", "checkpoint_timeout": "1h"})
	db := sql(t, server.URL("postgres"))
	run(t, db, "CREATE TABLE ledger (name text NOT NULL)")
	store := opened(t, server.URL("postgres"), "flushes", postgres.Options{MaxConns: 2})
	flushes := func(fn func(pool *pgxpool.Pool)) int64 {
		pool := pooled(t, server.URL("postgres"), 1)
		before := number(t, db, "SELECT wal_sync FROM pg_stat_wal")
		fn(pool)
		pool.Close() // a connection that ends tells its figures
		eventually(t, "the connection has ended", func() bool {
			return number(t, db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'") == 0
		})
		var after int64
		eventually(t, "its flushes are counted", func() bool {
			after = number(t, db, "SELECT wal_sync FROM pg_stat_wal")
			return after-before >= n
		})
		return after - before
	}
	plain := flushes(func(pool *pgxpool.Pool) {
		for range n {
			must(t, plainly(pool))
		}
	})
	ours := flushes(func(pool *pgxpool.Pool) {
		scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{})
		must(t, err)
		for i := range n {
			must(t, inScope(scope, fmt.Sprint(i)))
		}
	})
	t.Logf("%d transactions: %d flushes plainly, %d in a scope", n, plain, ours)
	if ours > plain+n/10 { // the guard's own keys, and the server's background
		t.Errorf("%d transactions in a scope took %d flushes, and plainly %d", n, ours, plain)
	}
}
