package postgres_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/store/storetest"
)

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

const has = storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Journals | storetest.Durable | storetest.Shared

// open opens a store that holds nothing, in a schema of its own.
func open(t testing.TB, url, schema string, o postgres.Options) *postgres.Store {
	t.Helper()
	o.Schema = schema
	if o.MaxConns == 0 {
		o.MaxConns = 4
	}
	s, err := postgres.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// suite runs storetest against the server or the pooler at an URL.
func suite(t *testing.T, url string, o postgres.Options) {
	t.Parallel() // the cases wait for leases to end
	storetest.Run(t, storetest.Maker{
		Has: has, RealTime: true,
		Open: func(t testing.TB, at storetest.Place) semel.Store { return open(t, url, at.Name, o) },
	})
}

// TestStore is also the test of package batch in front of a database: Open puts it
// there.
func TestStore(t *testing.T) { suite(t, servers.Postgres(t).URL("postgres"), postgres.Options{}) }

func TestStoreAlone(t *testing.T) {
	suite(t, servers.Postgres(t).URL("postgres"), postgres.Options{Alone: true})
}

// A pooler in transaction mode, a database whose default isolation is
// SERIALIZABLE, and a role whose commits do not wait for the disk, all at once.
func TestStoreBehindPooler(t *testing.T) {
	p := private(t, map[string]string{"default_transaction_isolation": "serializable", "synchronous_commit": "off"})
	b, err := p.Bouncer(filepath.Join(t.TempDir(), "bouncer"))
	must(t, err)
	t.Cleanup(func() { _ = b.Kill() })
	suite(t, b.URL("postgres"), postgres.Options{})
}
