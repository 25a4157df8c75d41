package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// openTest opens a store that is closed with the test.
func openTest(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// openSQL opens the file as a stranger would: past the store.
func openSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, false)+"&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// touch makes an empty file.
func touch(t testing.TB, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func execSQL(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "semel.db") }

// pending is a claim of the n-th key; done is its completion.
func pending(n int) semel.Record {
	key := semel.Key{Scope: "tenant", ID: fmt.Sprint("order-", n)}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.Fingerprint{byte(n)}, State: semel.Pending,
		Nonce: semel.Nonce{byte(n), byte(n >> 8), 1}, Attempt: 1, TTL: time.Minute, Key: key, Owner: "host:1",
	}
}

func done(n int) semel.Record {
	r := pending(n)
	r.State, r.Code, r.Result = semel.Done, 201, fmt.Appendf(nil, "receipt %d", n)
	r.TTL, r.Replay = 72*time.Hour, 24*time.Hour
	return r
}

func mustSwap(t testing.TB, s semel.Store, old semel.Version, next semel.Record) semel.Record {
	t.Helper()
	r, err := s.CompareAndSwap(context.Background(), old, next)
	if err != nil {
		t.Fatalf("swap over %v: %v", old, err)
	}
	return r.Record
}

// mustHold fails the test unless want is what is held.
func mustHold(t testing.TB, s semel.Store, want semel.Record) {
	t.Helper()
	r, err := s.Get(context.Background(), want.Digest)
	if err != nil || r.Record.Version != want.Version || string(r.Record.Result) != string(want.Result) {
		t.Fatalf("held: %+v, %v; want %+v", r.Record, err, want)
	}
}
