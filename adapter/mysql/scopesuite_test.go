package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/store/scopetest"
	"github.com/semelhq/semel/store/storetest"
)

// TestScope runs the suite at each level.
func TestScope(t *testing.T) {
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run(level.String(), func(t *testing.T) {
			scopetest.Run(t, scopetest.Options{New: func(t testing.TB, at scopetest.Place, s scopetest.Settings) *scopetest.Bench {
				return newBench(t, at, s, level)
			}})
		})
	}
}

func newBench(t testing.TB, at scopetest.Place, settings scopetest.Settings, level sql.IsolationLevel) *scopetest.Bench {
	t.Helper()
	url := place(t, storetest.Place{Dir: at.Dir, Name: at.Name})
	p, through := between(t, url)
	store := connect(t, url, mysql.Options{})
	t.Cleanup(func() { _ = store.Close() })
	db := appDB(t, through)
	db.SetMaxOpenConns(settings.Conns)
	db.SetMaxIdleConns(settings.Conns)
	outside := sqlDB(t, url)
	execute(t, outside, "CREATE TABLE IF NOT EXISTS effect (name VARBINARY(100) NOT NULL)")
	execute(t, outside, "CREATE TABLE IF NOT EXISTS rows_to_lock (id INT PRIMARY KEY, n INT NOT NULL)")
	scope, err := mysql.NewScope(store, db, mysql.ScopeOptions{Policy: settings.Policy, LockWait: settings.LockWait, Tx: sql.TxOptions{Isolation: level}})
	if err != nil {
		t.Fatal(err)
	}
	b := &scopetest.Bench{
		Guard: scope.Guard(), Policy: scope.Policy(),
		Do: func(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn scopetest.Operation) (semel.Answer, error) {
			return scope.Do(ctx, key, fp, func(ctx context.Context, _ *sql.Tx) (semel.Result, error) { return fn(ctx) })
		},
		Effect: func(ctx context.Context, name string) error { return inTx(ctx, "INSERT INTO effect VALUES (?)", name) },
		Fail:   func(ctx context.Context) error { return inTx(ctx, "INSERT INTO nowhere VALUES (1)") },
		Count: func(name string) (n int) {
			return number(t, outside, "SELECT count(*) FROM effect WHERE name = ?", name)
		},
		Ends: map[string]func(ctx context.Context) error{
			"Commit":   func(ctx context.Context) error { return ofTx(ctx, (*sql.Tx).Commit) },
			"Rollback": func(ctx context.Context) error { return ofTx(ctx, (*sql.Tx).Rollback) },
		},
		Undo: func(ctx context.Context) error {
			return ofTx(ctx, func(tx *sql.Tx) error { return deadlock(t, outside, tx) })
		},
		Own: func(t testing.TB) *scopetest.Own { return own(t, store, db, outside, level) },
		Elsewhere: func(t testing.TB) *scopetest.Own {
			other := database(t, name())
			execute(t, sqlDB(t, other), "CREATE TABLE effect (name VARBINARY(100) NOT NULL)")
			return own(t, store, appDB(t, other), outside, level)
		},
		Lose: func(when scopetest.Loss) {
			swap(t, store, claim(name())) // so that the epoch, which each open moves, is not what stops the packet
			p.cutNext(when == scopetest.AfterCommit)
		},
	}
	for _, text := range []string{
		"COMMIT", "commit work", "ROLLBACK", "SELECT 1; COMMIT", "/*!50000 COMMIT*/", "BEGIN", "START TRANSACTION",
		"SET autocommit=1", "CREATE TABLE mine (n INT)", "TRUNCATE TABLE effect", "LOCK TABLES effect WRITE",
	} {
		b.Ends[text] = func(ctx context.Context) error { return inTx(ctx, text) }
	}
	return b
}

// appDB is the application's pool.
func appDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := mysql.OpenDB(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func inTx(ctx context.Context, query string, args ...any) error {
	return ofTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

func ofTx(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, ok := mysql.TxFrom(ctx)
	if !ok {
		return errors.New("there is no transaction in the context")
	}
	return do(tx)
}

// own begins a transaction. Its Fail is a deadlock: other errors leave MySQL's
// transactions as they are.
func own(t testing.TB, store *mysql.Store, db, outside *sql.DB, level sql.IsolationLevel) *scopetest.Own {
	t.Helper()
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	return &scopetest.Own{
		Store: mysql.In(store, tx),
		Effect: func(name string) error {
			_, err := tx.Exec("INSERT INTO effect VALUES (?)", name)
			return err
		},
		Fail:   func() error { return deadlock(t, outside, tx) },
		Commit: tx.Commit, Rollback: tx.Rollback,
	}
}

// deadlock has tx be the victim of a deadlock with a transaction that has
// changed many more rows, and gives what tx was told.
func deadlock(t testing.TB, outside *sql.DB, tx *sql.Tx) error {
	t.Helper()
	first := number(t, outside, "SELECT IFNULL(MAX(id),0)+1 FROM rows_to_lock")
	for i := range 100 {
		execute(t, outside, "INSERT INTO rows_to_lock VALUES (?, 0)", first+i)
	}
	other, err := outside.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback()
	mine, theirs := first, first+1
	execute(t, other, fmt.Sprintf("UPDATE rows_to_lock SET n=n+1 WHERE id>%d", mine))
	if _, err := tx.Exec("UPDATE rows_to_lock SET n=n+1 WHERE id=?", mine); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := other.Exec("UPDATE rows_to_lock SET n=n+1 WHERE id=?", mine)
		done <- err
	}()
	_, err = tx.Exec("UPDATE rows_to_lock SET n=n+1 WHERE id=?", theirs)
	if met := <-done; met != nil {
		t.Errorf("the other of the deadlock was its victim: %v", met)
	}
	var coded *client.MySQLError
	if !errors.As(err, &coded) || coded.Number != 1213 {
		t.Errorf("got %v, want a deadlock", err)
	}
	return err
}
