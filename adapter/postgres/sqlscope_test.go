package postgres_test

import (
	"context"
	stdsql "database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/store/scopetest"
)

func TestSQLScope(t *testing.T) {
	for _, level := range []stdsql.IsolationLevel{stdsql.LevelReadCommitted, stdsql.LevelRepeatableRead, stdsql.LevelSerializable} {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			suiteOfSQLScope(t, servers.Postgres(t).URL("postgres"), level)
		})
	}
}

func suiteOfSQLScope(t *testing.T, url string, level stdsql.IsolationLevel) {
	scopetest.Run(t, scopetest.Options{New: func(t testing.TB, at scopetest.Place, s scopetest.Settings) *scopetest.Bench {
		p, through := between(t, url)
		db := sql(t, url)
		run(t, db, "CREATE SCHEMA IF NOT EXISTS "+at.Name)
		run(t, db, "CREATE TABLE IF NOT EXISTS "+at.Name+".effects (name text NOT NULL)")
		store := opened(t, url, "k"+at.Name, postgres.Options{MaxConns: 2})
		pool := openedDB(t, through)
		pool.SetMaxOpenConns(s.Conns)
		scope, err := postgres.NewSQLScope(store, pool, postgres.SQLScopeOptions{Policy: s.Policy, Tx: stdsql.TxOptions{Isolation: level}, LockWait: s.LockWait})
		must(t, err)
		b := benchOfSQL(scope, at.Name)
		b.Count = func(name string) int {
			return int(number(t, db, "SELECT count(*) FROM "+at.Name+".effects WHERE name = $1", name))
		}
		b.Own = func(t testing.TB) *scopetest.Own { return ownSQL(t, store, pool, at.Name) }
		b.Elsewhere = func(t testing.TB) *scopetest.Own {
			run(t, db, "CREATE DATABASE "+at.Name)
			other := databaseOf(t, url, at.Name)
			_ = opened(t, other, "k"+at.Name, postgres.Options{MaxConns: 2})
			elsewhere := sql(t, other)
			run(t, elsewhere, "CREATE SCHEMA "+at.Name)
			run(t, elsewhere, "CREATE TABLE "+at.Name+".effects (name text NOT NULL)")
			return ownSQL(t, store, openedDB(t, other), at.Name)
		}
		b.Lose = func(when scopetest.Loss) { p.lossAt(when) }
		return b
	}})
}

func openedDB(t testing.TB, url string) *stdsql.DB {
	t.Helper()
	db, err := postgres.OpenDB(url)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func benchOfSQL(scope *postgres.SQLScope, schema string) *scopetest.Bench {
	with := func(fn func(tx *stdsql.Tx) error) func(context.Context) error {
		return func(ctx context.Context) error {
			tx, ok := postgres.SQLTxFrom(ctx)
			if !ok {
				return errors.New("no transaction in the context")
			}
			return fn(tx)
		}
	}
	exec := func(statement string, args ...any) func(context.Context) error {
		return with(func(tx *stdsql.Tx) error {
			_, err := tx.Exec(statement, args...)
			return err
		})
	}
	return &scopetest.Bench{
		Guard: scope.Guard(), Policy: scope.Policy(),
		Do: func(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn scopetest.Operation) (semel.Answer, error) {
			return scope.Do(ctx, key, fp, func(ctx context.Context, _ *stdsql.Tx) (semel.Result, error) { return fn(ctx) })
		},
		Effect: func(ctx context.Context, name string) error {
			return exec("INSERT INTO "+schema+".effects VALUES ($1)", name)(ctx)
		},
		Fail: exec("INSERT INTO " + schema + ".effects VALUES (NULL)"),
		Ends: map[string]func(context.Context) error{
			"Commit": with((*stdsql.Tx).Commit), "Rollback": with((*stdsql.Tx).Rollback),
			"COMMIT": exec("/* now */ commit"), "END": exec("SELECT 1; END"), "ROLLBACK": exec("rollback"),
			"PREPARE TRANSACTION": exec("PREPARE TRANSACTION 'x'"),
			"prepared": with(func(tx *stdsql.Tx) error {
				p, err := tx.Prepare("COMMIT")
				if err == nil {
					_, err = p.Exec()
				}
				return err
			}),
			"row": with(func(tx *stdsql.Tx) error { return tx.QueryRow("ABORT").Err() }),
		},
		Undo: exec("DO $$ BEGIN RAISE EXCEPTION 'undone for a test' USING ERRCODE = '40001'; END $$"),
	}
}

func ownSQL(t testing.TB, store *postgres.Store, db *stdsql.DB, schema string) *scopetest.Own {
	t.Helper()
	tx, err := db.Begin()
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	exec := func(statement string, args ...any) error {
		_, err := tx.Exec(statement, args...)
		return err
	}
	return &scopetest.Own{
		Store:  postgres.SQLIn(store, tx),
		Effect: func(name string) error { return exec("INSERT INTO "+schema+".effects VALUES ($1)", name) },
		Fail:   func() error { return exec("SELECT 1/0") },
		Commit: tx.Commit, Rollback: tx.Rollback,
	}
}

func TestSQLScopeRefused(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	store := opened(t, url, "sqlrefused", postgres.Options{MaxConns: 2})
	plain, err := stdsql.Open("pgx", url)
	must(t, err)
	defer plain.Close()
	db := openedDB(t, url)
	level := func(l stdsql.IsolationLevel) postgres.SQLScopeOptions {
		return postgres.SQLScopeOptions{Tx: stdsql.TxOptions{Isolation: l}}
	}
	for name, c := range map[string]struct {
		db   *stdsql.DB
		o    postgres.SQLScopeOptions
		want string
	}{
		"another's driver": {plain, postgres.SQLScopeOptions{}, "open it with this package's OpenDB"},
		"no database":      {nil, postgres.SQLScopeOptions{}, "needs a store and a *sql.DB"},
		"another database": {openedDB(t, servers.Postgres(t).URL("template1")), postgres.SQLScopeOptions{}, "sqlrefused"},
		"uncommitted":      {db, level(stdsql.LevelReadUncommitted), "taken for Read Committed"},
		"snapshot":         {db, level(stdsql.LevelSnapshot), "taken for Repeatable Read"},
		"linearizable":     {db, level(stdsql.LevelLinearizable), "there is no level"},
		"read only":        {db, postgres.SQLScopeOptions{Tx: stdsql.TxOptions{ReadOnly: true}}, "read only"},
	} {
		if _, err := postgres.NewSQLScope(store, c.db, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := postgres.OpenDB("postgres://x:port/"); err == nil {
		t.Error("an URL that does not parse was taken")
	}
}

// TestSQLScopeLevel: the server has the level that was asked for.
func TestSQLScopeLevel(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	store, db := opened(t, url, "sqllevel", postgres.Options{MaxConns: 2}), openedDB(t, url)
	for level, want := range map[stdsql.IsolationLevel]string{
		stdsql.LevelDefault: "read committed", stdsql.LevelReadCommitted: "read committed",
		stdsql.LevelRepeatableRead: "repeatable read", stdsql.LevelSerializable: "serializable",
	} {
		scope, err := postgres.NewSQLScope(store, db, postgres.SQLScopeOptions{Tx: stdsql.TxOptions{Isolation: level}})
		must(t, err)
		var got string
		_, err = scope.Do(t.Context(), semel.Key{Scope: "tenant", ID: level.String()}, semel.Fingerprint{}, func(_ context.Context, tx *stdsql.Tx) (semel.Result, error) {
			return semel.Result{}, tx.QueryRow("SHOW transaction_isolation").Scan(&got)
		})
		if err != nil || got != want {
			t.Errorf("%v: the server has %q, %v; want %q", level, got, err, want)
		}
	}
}

// TestSQLScopeSavepoint: what failed behind a savepoint is forgotten with it.
func TestSQLScopeSavepoint(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	store, db := opened(t, url, "sqlsavepoint", postgres.Options{MaxConns: 2}), openedDB(t, url)
	scope, err := postgres.NewSQLScope(store, db, postgres.SQLScopeOptions{})
	must(t, err)
	_, err = scope.Do(t.Context(), semel.Key{Scope: "tenant", ID: "savepoint"}, semel.Fingerprint{}, func(_ context.Context, tx *stdsql.Tx) (semel.Result, error) {
		for _, statement := range []string{"SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO SAVEPOINT a", "SELECT 1"} {
			if _, err := tx.Exec(statement); err != nil && statement != "SELECT 1/0" {
				return semel.Result{}, err
			}
		}
		return semel.Result{Code: 201}, nil
	})
	must(t, err)
}

// TestSQLScopeRestart: the server is killed and comes back; the pool's connections
// are dead, and the epoch is another.
func TestSQLScopeRestart(t *testing.T) {
	p := private(t, nil)
	store, db := opened(t, p.URL("postgres"), "sqlrestart", postgres.Options{MaxConns: 2}), openedDB(t, p.URL("postgres"))
	db.SetMaxIdleConns(4)
	scope, err := postgres.NewSQLScope(store, db, postgres.SQLScopeOptions{})
	must(t, err)
	var runs atomic.Int64
	do := func(id string) (semel.Answer, error) {
		return scope.Do(t.Context(), semel.Key{Scope: "tenant", ID: id}, semel.Fingerprint{}, func(_ context.Context, tx *stdsql.Tx) (semel.Result, error) {
			runs.Add(1)
			_, err := tx.Exec("SELECT 1")
			return semel.Result{Code: 201, Data: []byte(id)}, err
		})
	}
	_, err = do("before")
	must(t, err)
	must(t, p.Kill())
	must(t, p.Start())
	if a, err := do("after"); err != nil || a.Replayed {
		t.Errorf("after the restart: %+v, %v", a, err)
	}
	if a, err := do("before"); err != nil || !a.Replayed || string(a.Data) != "before" {
		t.Errorf("a duplicate after the restart: %+v, %v", a, err)
	}
	if runs.Load() != 2 {
		t.Errorf("%d runs, want 2", runs.Load())
	}
}

// TestSQLInEnded: a COMMIT as text, in a transaction of the caller's own, is not
// noticed before a key is in it; then it is.
func TestSQLInEnded(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	store := opened(t, url, "sqlended", postgres.Options{MaxConns: 2})
	db := openedDB(t, url)
	guard, err := semel.NewGuard(store, semel.Options{})
	must(t, err)
	policy, err := semel.Policy{Class: semel.Transactional}.Filled()
	must(t, err)
	tx, err := db.Begin()
	must(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec("COMMIT")
	must(t, err)
	ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: "ended"}, Policy: &policy}
	_, err = guard.Within(t.Context(), postgres.SQLIn(store, tx), ask, func(context.Context) (semel.Result, error) {
		t.Error("the operation ran")
		return semel.Result{}, nil
	})
	if !errors.Is(err, semel.ErrRejected) {
		t.Errorf("%v, want %v", err, semel.ErrRejected)
	}
	if r, err := store.Get(t.Context(), guard.Digest(ask.Key)); err != nil || r.Record.Held() {
		t.Errorf("held: %+v, %v", r.Record, err)
	}
}

// TestSQLScopeWire: over database/sql, too, the scope adds no round trip to BEGIN
// and COMMIT.
func TestSQLScopeWire(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	p, through := between(t, url)
	store := opened(t, url, "sqlwire", postgres.Options{MaxConns: 2})
	db := openedDB(t, through)
	db.SetMaxOpenConns(1)
	scope, err := postgres.NewSQLScope(store, db, postgres.SQLScopeOptions{})
	must(t, err)
	do := func(id string) {
		t.Helper()
		_, err := scope.Do(t.Context(), semel.Key{Scope: "tenant", ID: id}, semel.Fingerprint{}, func(_ context.Context, tx *stdsql.Tx) (semel.Result, error) {
			_, err := tx.Exec("SELECT 1")
			return semel.Result{Code: 201}, err
		})
		must(t, err)
	}
	do("warm") // statements are prepared once for each connection
	before := p.trips.Load()
	do("counted")
	if n := p.trips.Load() - before; n != 3 {
		t.Errorf("an operation of one statement took %d round trips, want 3: BEGIN, the statement, COMMIT", n)
	}
	before = p.trips.Load()
	do("counted")
	if n := p.trips.Load() - before; n != 2 {
		t.Errorf("a duplicate took %d round trips, want 2: BEGIN and ROLLBACK", n)
	}
}
