package postgres_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// The suite behind a pooler in transaction mode, to which the driver prepares
// nothing, as one has to tell it there.
func TestScopeBehindPooler(t *testing.T) {
	t.Parallel()
	p := private(t, nil)
	b, err := p.Bouncer(filepath.Join(t.TempDir(), "bouncer"))
	must(t, err)
	t.Cleanup(func() { _ = b.Kill() })
	suiteOfScope(t, b.URL("postgres")+"&default_query_exec_mode=exec", pgx.TxOptions{})
}

// What cannot be a scope is refused when it is made, with words that say why.
func TestScopeRefused(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	db := sql(t, url)
	store := opened(t, url, "k"+schema, postgres.Options{MaxConns: 2})
	pool := pooled(t, url, 2)
	run(t, db, "CREATE DATABASE "+schema)
	run(t, db, "CREATE ROLE "+schema+" LOGIN")
	elsewhere := databaseOf(t, url, schema)
	_ = opened(t, elsewhere, "k"+schema, postgres.Options{MaxConns: 2})
	bare := strings.Replace(url, "://postgres@", "://"+schema+"@", 1)
	if bare == url {
		bare = databaseOf(t, url, "postgres")
		c, err := pgx.ParseConfig(url)
		must(t, err)
		bare = strings.Replace(bare, c.User+"@", schema+"@", 1)
	}
	for _, c := range []struct {
		name string
		make func() (*postgres.Scope, error)
		says string
	}{
		{"no pool", func() (*postgres.Scope, error) { return postgres.NewScope(store, nil, postgres.ScopeOptions{}) }, "needs a store and a pool"},
		{"read only", func() (*postgres.Scope, error) {
			return postgres.NewScope(store, pool, postgres.ScopeOptions{Tx: pgx.TxOptions{AccessMode: pgx.ReadOnly}})
		}, "cannot be read only"},
		{"an own BEGIN", func() (*postgres.Scope, error) {
			return postgres.NewScope(store, pool, postgres.ScopeOptions{Tx: pgx.TxOptions{BeginQuery: "BEGIN"}})
		}, "leave BeginQuery"},
		{"a level that is none", func() (*postgres.Scope, error) {
			return postgres.NewScope(store, pool, postgres.ScopeOptions{Tx: pgx.TxOptions{IsoLevel: "snapshot; COMMIT"}})
		}, "no isolation level"},
		{"a policy", func() (*postgres.Scope, error) {
			return postgres.NewScope(store, pool, postgres.ScopeOptions{Policy: semel.Policy{Lease: 1}})
		}, "too short"},
		{"another database", func() (*postgres.Scope, error) {
			return postgres.NewScope(store, pooled(t, elsewhere, 2), postgres.ScopeOptions{})
		}, "in another database"},
		{"no rights", func() (*postgres.Scope, error) {
			return postgres.NewScope(store, pooled(t, bare, 2), postgres.ScopeOptions{})
		}, "lacks a right"},
	} {
		scope, err := c.make()
		if err == nil || scope != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error that says %q", c.name, err, c.says)
		} else {
			t.Logf("%s: %v", c.name, err)
		}
	}
}

// What pgx's transactions can do, a scope's can: nested ones whose failures are
// undone with them, batches, COPY, large objects.
func TestScopeTransactionIsWhole(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	l := newLedger(t, url, url, newSchema(t), postgres.ScopeOptions{})
	_, err := l.pay("a", func(ctx context.Context, tx pgx.Tx) error {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT 1/0")
			return err
		})
		if err == nil {
			t.Error("a failed statement in a nested transaction gave no error")
		}
		must(t, pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO "+l.schema+".effects VALUES ('nested')")
			return err
		}))
		b := &pgx.Batch{}
		b.Queue("INSERT INTO " + l.schema + ".effects VALUES ('batch')")
		must(t, tx.SendBatch(ctx, b).Close())
		n, err := tx.CopyFrom(ctx, pgx.Identifier{l.schema, "effects"}, []string{"name"}, pgx.CopyFromRows([][]any{{"copied"}}))
		if err != nil || n != 1 {
			t.Error(n, err)
		}
		objects := tx.LargeObjects()
		if _, err := objects.Create(ctx, 0); err != nil {
			t.Error(err)
		}
		names, err := tx.Query(ctx, "SELECT name FROM "+l.schema+".effects ORDER BY name")
		must(t, err)
		all, err := pgx.CollectRows(names, pgx.RowTo[string])
		if got := strings.Join(all, " "); err != nil || got != "a batch copied nested" {
			t.Error(got, err)
		}
		if err := tx.QueryRow(ctx, "SELECT name FROM "+l.schema+".effects WHERE name = 'none'").Scan(new(string)); !errors.Is(err, pgx.ErrNoRows) {
			t.Error(err)
		}
		return nil
	})
	must(t, err)
	l.has(t, "a", 1)
	_, err = l.pay("b", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Query(ctx, "SELECT name FROM "+l.schema+".effects") // never closed
		return err
	})
	if !errors.Is(err, semel.ErrNotDone) || !strings.Contains(err.Error(), "unread") {
		t.Errorf("rows left unread: %v", err)
	}
	l.has(t, "b", 0)
	_, err = l.pay("c", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Conn().Exec(ctx, "ROLLBACK") // past the transaction
		return err
	})
	if !errors.Is(err, semel.ErrNotDone) {
		t.Errorf("ended on the connection itself: %v", err)
	}
	l.has(t, "c", 0)
}
