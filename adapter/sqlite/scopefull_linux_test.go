package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/semelhq/semel"
)

// A scope on a disk that is full: what was answered is there, with its effect, and
// of what was not answered neither key nor effect. Then there is room again.
func TestScopeFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Skipf("left out: this user cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path, ballast := filepath.Join(dir, "semel.db"), filepath.Join(dir, "ballast")
	store, db, scope, err := openScope(path, ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(db.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	}()
	execSQL(t, db, "CREATE TABLE orders (n INTEGER NOT NULL, what BLOB)")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 600_000), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(n int) (semel.Answer, error) {
		return scope.Do(context.Background(), pending(n).Key, semel.Fingerprint{}, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			_, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?, ?)", n, make([]byte, 30_000))
			return semel.Result{Code: 201}, err
		})
	}
	answered := 0
	for ; answered < 100 && err == nil; answered++ {
		_, err = do(answered)
	}
	answered--
	if err == nil || answered < 2 {
		t.Fatalf("%d orders, then %v; want an error on a full disk", answered, err)
	}
	t.Logf("after %d orders: %v", answered, err)
	if !errors.Is(err, semel.ErrInDoubt) && !errors.Is(err, semel.ErrNotDone) && !errors.Is(err, semel.ErrUnavailable) {
		t.Errorf("%v, want an error that says what became of it", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for n := range answered + 1 {
		a, err := do(n)
		if err != nil || a.Replayed != (n < answered) {
			t.Errorf("order %d of %d that were answered, again: %+v, %v", n, answered, a, err)
		}
		var orders int
		if err := db.QueryRow("SELECT count(*) FROM orders WHERE n = ?", n).Scan(&orders); err != nil || orders != 1 {
			t.Errorf("order %d is there %d times, %v", n, orders, err)
		}
	}
	if err := store.Check(context.Background()); err != nil {
		t.Error(err)
	}
}
