package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/store/scopetest"
)

// TestScope runs the suite at each level that SQLite takes for its own.
func TestScope(t *testing.T) {
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run(level.String(), func(t *testing.T) {
			scopetest.Run(t, scopetest.Options{OneWriter: true, New: func(t testing.TB, at scopetest.Place, s scopetest.Settings) *scopetest.Bench {
				return newBench(t, at, s, level)
			}})
		})
	}
}

func newBench(t testing.TB, at scopetest.Place, settings scopetest.Settings, level sql.IsolationLevel) *scopetest.Bench {
	t.Helper()
	path := filepath.Join(at.Dir, "app.db")
	store, db := openShop(t, path)
	db.SetMaxOpenConns(settings.Conns)
	scope, err := sqlite.NewScope(store, db, sqlite.ScopeOptions{Policy: settings.Policy, LockWait: settings.LockWait, Tx: sql.TxOptions{Isolation: level}})
	if err != nil {
		t.Fatal(err)
	}
	outside, err := sqlite.OpenDB(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	b := &scopetest.Bench{
		Guard: scope.Guard(), Policy: scope.Policy(),
		Do: func(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn scopetest.Operation) (semel.Answer, error) {
			return scope.Do(ctx, key, fp, func(ctx context.Context, _ *sql.Tx) (semel.Result, error) { return fn(ctx) })
		},
		Effect: func(ctx context.Context, name string) error { return inTx(ctx, "INSERT INTO effect VALUES (?)", name) },
		Fail:   func(ctx context.Context) error { return inTx(ctx, "INSERT INTO nowhere VALUES (1)") },
		Count: func(name string) (n int) {
			if err := outside.QueryRow("SELECT count(*) FROM effect WHERE name = ?", name).Scan(&n); err != nil {
				t.Error(err)
			}
			return n
		},
		Ends: map[string]func(ctx context.Context) error{
			"Commit":   func(ctx context.Context) error { return ofTx(ctx, (*sql.Tx).Commit) },
			"Rollback": func(ctx context.Context) error { return ofTx(ctx, (*sql.Tx).Rollback) },
		},
		Own: func(t testing.TB) *scopetest.Own { return own(t, store, db) },
		Elsewhere: func(t testing.TB) *scopetest.Own {
			_, other := openShop(t, filepath.Join(t.TempDir(), "other.db"))
			return own(t, store, other)
		},
	}
	for _, text := range []string{"COMMIT", "END TRANSACTION", "ROLLBACK", "SELECT 1; commit", "/**/BEGIN"} {
		b.Ends[text] = func(ctx context.Context) error { return inTx(ctx, text) }
	}
	return b
}

// openShop opens a file with a table for effects.
func openShop(t testing.TB, path string) (*sqlite.Store, *sql.DB) {
	t.Helper()
	store, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	db, err := sqlite.OpenDB(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS effect (name TEXT NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return store, db
}

func inTx(ctx context.Context, query string, args ...any) error {
	return ofTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

func ofTx(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, ok := sqlite.TxFrom(ctx)
	if !ok {
		return errors.New("there is no transaction in the context")
	}
	return do(tx)
}

func own(t testing.TB, store *sqlite.Store, db *sql.DB) *scopetest.Own {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	exec := func(query string, args ...any) error {
		_, err := tx.Exec(query, args...)
		return err
	}
	return &scopetest.Own{
		Store:  sqlite.In(store, tx),
		Effect: func(name string) error { return exec("INSERT INTO effect VALUES (?)", name) },
		Fail:   func() error { return exec("INSERT INTO nowhere VALUES (1)") },
		Commit: tx.Commit, Rollback: tx.Rollback,
	}
}

// A step's record would wait for the transaction that it is a step of: it is refused
// before anything happens.
func TestScopeStep(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		s := newShop(t, sqlite.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		_, err := s.scope.Do(t.Context(), orderKey, orderFP, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			if r, err := order(ctx, tx); err != nil {
				return r, err
			}
			claim, _ := semel.ClaimFrom(ctx)
			return claim.Step(ctx, "charge", func(context.Context) (semel.Result, error) {
				t.Error("the step ran")
				return semel.Result{}, nil
			})
		})
		if !errors.Is(err, semel.ErrRejected) || !errors.Is(err, semel.ErrNotDone) || !strings.Contains(err.Error(), "one writer") {
			t.Errorf("optimistic %t: %v, want an error that says why", optimistic, err)
		}
		s.absent(t)
	}
}

// What is committed is on the disk, whatever the name of the database asks for.
func TestOpenDBIsDurable(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	db, err := sqlite.OpenDB(s.path + "?_pragma=synchronous(0)&_pragma=fullfsync(0)&_pragma=checkpoint_fullfsync(0)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for pragma, want := range map[string]int{"synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1} {
		var got int
		if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", pragma, got, err, want)
		}
	}
}

// A scope gives its connection back as it was: with the application's own patience.
func TestScopeGivesItsConnectionBack(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{LockWait: 70 * time.Millisecond})
	s.db.SetMaxOpenConns(1)
	for range 2 { // one that executes, and one that is replayed
		if _, err := s.scope.Do(t.Context(), orderKey, orderFP, order); err != nil {
			t.Fatal(err)
		}
		var patience int
		if err := s.db.QueryRow("PRAGMA busy_timeout").Scan(&patience); err != nil || patience != 5000 {
			t.Errorf("the connection waits %d ms, %v; want 5000 as before", patience, err)
		}
	}
}

// A store that was opened to read takes no key in the application's transactions.
func TestScopeOfAReader(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	reader, err := sqlite.Open(s.path, sqlite.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fresh, err := sqlite.OpenDB(s.path) // whose connections no other store has looked at
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if _, err := sqlite.NewScope(reader, fresh, sqlite.ScopeOptions{}); err == nil || !strings.Contains(err.Error(), "no scope") || !errors.Is(err, semel.ErrRejected) {
		t.Errorf("a scope: %v, want %v", err, semel.ErrRejected)
	}
	tx := begin(t, fresh)
	defer func() { _ = tx.Rollback() }()
	policy := s.scope.Policy()
	ask := semel.Ask{Key: orderKey, Fingerprint: orderFP, Policy: &policy}
	_, err = s.scope.Guard().Within(t.Context(), sqlite.In(reader, tx), ask, func(context.Context) (semel.Result, error) {
		t.Error("the operation ran")
		return semel.Result{}, nil
	})
	if !errors.Is(err, semel.ErrRejected) {
		t.Errorf("a caller's transaction: %v, want %v", err, semel.ErrRejected)
	}
	_ = tx.Commit()
	s.absent(t)
}

// A caller's transaction that has read, and whose view is old, cannot write: its
// caller learns that and what to do.
func TestInOverAnOldView(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	deferred, err := sqlite.OpenDB(s.path + "?_txlock=deferred")
	if err != nil {
		t.Fatal(err)
	}
	defer deferred.Close()
	tx := begin(t, deferred)
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM orders").Scan(&n); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "INSERT INTO account VALUES (1)")
	if _, err := s.within(tx, order); !errors.Is(err, semel.ErrUndone) || !strings.Contains(err.Error(), "IMMEDIATE") {
		t.Errorf("got %v, want %v that says what to do", err, semel.ErrUndone)
	}
	if err := tx.Commit(); err == nil {
		t.Error("it was committed without its key")
	}
	s.absent(t)
}

// A caller's transaction that has not locked yet, beside another that has: the key
// may be in that one.
func TestInBesideAnotherWriter(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	deferred, err := sqlite.OpenDB(s.path + "?_txlock=deferred&_pragma=busy_timeout(20)")
	if err != nil {
		t.Fatal(err)
	}
	defer deferred.Close()
	writer := begin(t, s.db)
	defer func() { _ = writer.Rollback() }()
	tx := begin(t, deferred)
	defer func() { _ = tx.Rollback() }()
	if _, err := s.within(tx, order); !errors.Is(err, semel.ErrInProgress) {
		t.Errorf("got %v, want %v", err, semel.ErrInProgress)
	}
	_ = tx.Rollback()
	_ = writer.Rollback()
	s.absent(t)
}
