package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/store/scopetest"
)

func TestScope(t *testing.T) {
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			suiteOfScope(t, servers.Postgres(t).URL("postgres"), pgx.TxOptions{IsoLevel: level})
		})
	}
}

// suiteOfScope runs scopetest against the server or the pooler at an URL.
func suiteOfScope(t *testing.T, url string, o pgx.TxOptions) {
	scopetest.Run(t, scopetest.Options{New: func(t testing.TB, at scopetest.Place, s scopetest.Settings) *scopetest.Bench {
		p, through := between(t, url)
		db := sql(t, url)
		run(t, db, "CREATE SCHEMA IF NOT EXISTS "+at.Name)
		run(t, db, "CREATE TABLE IF NOT EXISTS "+at.Name+".effects (name text NOT NULL)")
		store := opened(t, url, "k"+at.Name, postgres.Options{MaxConns: 2})
		pool := pooled(t, through, s.Conns)
		scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{Policy: s.Policy, Tx: o, LockWait: s.LockWait})
		must(t, err)
		b := benchOf(t, scope, at.Name, db)
		b.Own = func(t testing.TB) *scopetest.Own { return own(t, store, pool, at.Name) }
		b.Elsewhere = func(t testing.TB) *scopetest.Own {
			// The same schema in another database: nothing in it says that it is another.
			run(t, db, "CREATE DATABASE "+at.Name)
			other := databaseOf(t, url, at.Name)
			_ = opened(t, other, "k"+at.Name, postgres.Options{MaxConns: 2})
			elsewhere := sql(t, other)
			run(t, elsewhere, "CREATE SCHEMA "+at.Name)
			run(t, elsewhere, "CREATE TABLE "+at.Name+".effects (name text NOT NULL)")
			return own(t, store, elsewhere, at.Name)
		}
		b.Lose = func(when scopetest.Loss) { p.lossAt(when) }
		return b
	}})
}

// pooled is the application's pool.
func pooled(t testing.TB, url string, conns int) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(url)
	must(t, err)
	c.MaxConns = int32(conns)
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// inTx is what an operation's helpers do with the transaction in their context.
func inTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	tx, ok := postgres.TxFrom(ctx)
	if !ok {
		return errors.New("no transaction in the context")
	}
	return fn(tx)
}

func benchOf(t testing.TB, scope *postgres.Scope, schema string, db *pgxpool.Pool) *scopetest.Bench {
	exec := func(statement string) func(context.Context) error {
		return func(ctx context.Context) error {
			return inTx(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, statement)
				return err
			})
		}
	}
	return &scopetest.Bench{
		Guard: scope.Guard(), Policy: scope.Policy(),
		Do: func(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn scopetest.Operation) (semel.Answer, error) {
			return scope.Do(ctx, key, fp, func(ctx context.Context, _ pgx.Tx) (semel.Result, error) { return fn(ctx) })
		},
		Effect: func(ctx context.Context, name string) error {
			return inTx(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO "+schema+".effects VALUES ($1)", name)
				return err
			})
		},
		Count: func(name string) int {
			return int(number(t, db, "SELECT count(*) FROM "+schema+".effects WHERE name = $1", name))
		},
		Fail: exec("INSERT INTO " + schema + ".effects VALUES (NULL)"),
		Ends: map[string]func(context.Context) error{
			"Commit":   func(ctx context.Context) error { return inTx(ctx, func(tx pgx.Tx) error { return tx.Commit(ctx) }) },
			"Rollback": func(ctx context.Context) error { return inTx(ctx, func(tx pgx.Tx) error { return tx.Rollback(ctx) }) },
			"COMMIT":   exec("/* now */ commit"), "END": exec("SELECT 1; END"), "ROLLBACK": exec("rollback"),
			"PREPARE TRANSACTION": exec("PREPARE TRANSACTION 'x'"),
			"batch": func(ctx context.Context) error {
				return inTx(ctx, func(tx pgx.Tx) error {
					b := &pgx.Batch{}
					b.Queue("SELECT 1")
					b.Queue("COMMIT")
					return tx.SendBatch(ctx, b).Close()
				})
			},
			"row": func(ctx context.Context) error {
				return inTx(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, "ABORT").Scan() })
			},
		},
		Undo: exec("DO $$ BEGIN RAISE EXCEPTION 'undone for a test' USING ERRCODE = '40001'; END $$"),
	}
}

// own begins a transaction past the scope.
func own(t testing.TB, store *postgres.Store, pool *pgxpool.Pool, schema string) *scopetest.Own {
	ctx := context.Background()
	tx, err := pool.Begin(ctx)
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback(ctx) })
	return &scopetest.Own{
		Store: postgres.In(store, tx),
		Effect: func(name string) error {
			_, err := tx.Exec(ctx, "INSERT INTO "+schema+".effects VALUES ($1)", name)
			return err
		},
		Fail: func() error {
			_, err := tx.Exec(ctx, "SELECT 1/0")
			return err
		},
		Commit: func() error { return tx.Commit(ctx) }, Rollback: func() error { return tx.Rollback(ctx) },
	}
}

func databaseOf(t testing.TB, url, name string) string {
	t.Helper()
	c, err := pgx.ParseConfig(url)
	must(t, err)
	_, options, _ := strings.Cut(url, "?")
	return fmt.Sprintf("postgres://%s@%s/%s?%s", c.User, c.Host+":"+strconv.Itoa(int(c.Port)), name, options)
}
