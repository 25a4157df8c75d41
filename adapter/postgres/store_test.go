package postgres_test

import (
	"os"
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

// TestStore is also the test of package batch in front of a database: Open puts it
// there.
func TestStore(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	storetest.Run(t, storetest.Maker{
		Has: has, RealTime: true,
		Open: func(t testing.TB, at storetest.Place) semel.Store { return open(t, url, at.Name, postgres.Options{}) },
	})
}
