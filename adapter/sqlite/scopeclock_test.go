package sqlite_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// TestScopeForgotten: a key is gone once its time has ended, and a new one once it
// was swept.
func TestScopeForgotten(t *testing.T) {
	s := &shop{path: filepath.Join(t.TempDir(), "app.db")}
	var later atomic.Int64
	var err error
	if s.store, err = sqlite.Open(s.path, sqlite.Options{Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }}); err != nil {
		t.Fatal(err)
	}
	defer s.store.Close()
	if s.db, err = sqlite.OpenDB("file:" + s.path); err != nil {
		t.Fatal(err)
	}
	defer s.db.Close()
	s.exec(t, "CREATE TABLE orders (what TEXT)")
	if s.scope, err = sqlite.NewScope(s.store, s.db, sqlite.ScopeOptions{}); err != nil {
		t.Fatal(err)
	}
	do := func(replayed bool) {
		t.Helper()
		if a, err := s.scope.Do(context.Background(), orderKey, orderFP, order); err != nil || a.Replayed != replayed {
			t.Fatalf("%+v, %v; want replayed %t", a, err, replayed)
		}
	}
	do(false)
	do(true)
	later.Store(int64(s.scope.Policy().Remember + time.Minute))
	if _, err := s.scope.Do(context.Background(), orderKey, orderFP, order); !errors.Is(err, semel.ErrGone) {
		t.Errorf("a key that is past its time and not swept: %v, want %v", err, semel.ErrGone)
	}
	if n, err := s.store.Sweep(context.Background(), 10); err != nil || n == 0 {
		t.Fatalf("swept %d, %v", n, err)
	}
	do(false)
	if n := s.orders(t); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
	var h []semel.Entry
	if h, err = s.store.History(context.Background(), s.scope.Guard().Digest(orderKey)); err != nil || len(h) != 4 {
		t.Errorf("%d lines of the journal, %v; want 4", len(h), err)
	}
}
