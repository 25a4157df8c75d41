package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/internal/server"
)

// private starts a server for one test.
func private(t testing.TB, settings map[string]string) *server.Postgres {
	t.Helper()
	p, err := server.StartPostgres(filepath.Join(t.TempDir(), "primary"), server.PostgresOptions{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() }) // the test may have killed it already
	return p
}

// standby gives p a standby.
func standby(t testing.TB, p *server.Postgres, synchronous bool) *server.Postgres {
	t.Helper()
	s, err := p.Standby(filepath.Join(t.TempDir(), "standby"), synchronous)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Kill() })
	return s
}

// must fails the test on an error of something that only has to work.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sql opens the database as a stranger would: past the store.
func sql(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func run(t testing.TB, db *pgxpool.Pool, statement string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// number asks for one number.
func number(t testing.TB, db *pgxpool.Pool, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := db.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// eventually waits until a condition holds that must come about by itself.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 30 s still not: %s", what)
		}
	}
}

// opened is a store that is closed with the test.
func opened(t testing.TB, url, schema string, o postgres.Options) *postgres.Store {
	t.Helper()
	s := open(t, url, schema, o)
	t.Cleanup(func() { _ = s.Close() }) // its server may be gone
	return s
}

// pending is a claim of the key with this ID.
func pending(id string) semel.Record {
	key := semel.Key{Scope: "tenant", ID: id}
	r := semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(id)), State: semel.Pending,
		Attempt: 1, TTL: time.Hour, Key: key, Owner: "host:1",
	}
	copy(r.Nonce[:], fmt.Sprint("claim ", id))
	return r
}

// done is the completion of the key with this ID.
func done(id string) semel.Record {
	r := pending(id)
	r.State, r.Code, r.Result = semel.Done, 201, []byte("receipt "+id)
	r.TTL, r.Replay = 72*time.Hour, 24*time.Hour
	copy(r.Nonce[:], fmt.Sprint("done ", id))
	return r
}

func mustSwap(t testing.TB, s semel.Store, old semel.Version, next semel.Record) semel.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := s.CompareAndSwap(ctx, old, next)
	if err != nil {
		t.Fatalf("swap over %v: %v", old, err)
	}
	return r.Record
}

// mustConflict fails the test unless an insert of want's key meets want.
func mustConflict(t testing.TB, s semel.Store, want semel.Record) {
	t.Helper()
	r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(want.Key.ID))
	if !errors.Is(err, semel.ErrConflict) || r.Record.Version != want.Version || string(r.Record.Result) != string(want.Result) {
		t.Fatalf("a duplicate of %v at %v got %+v, %v", want.Key.ID, want.Version, r.Record, err)
	}
}

// unknown fails the test unless err says that nobody knows.
func unknown(t testing.TB, what string, err error) {
	t.Helper()
	for _, wrong := range []error{semel.ErrConflict, semel.ErrRejected, semel.ErrDamaged} {
		if err == nil || errors.Is(err, wrong) {
			t.Fatalf("%s: got %v, want an error that is not %v", what, err, wrong)
		}
	}
}
