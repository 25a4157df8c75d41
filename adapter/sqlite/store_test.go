package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/store/storetest"
)

const has = storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Journals | storetest.Durable | storetest.Shared

func open(t testing.TB, at storetest.Place) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(filepath.Join(at.Dir, "semel.db"), sqlite.Options{Now: at.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStore is also the test of package batch in front of a database: Open puts it
// there.
func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has:  has,
		Open: func(t testing.TB, at storetest.Place) semel.Store { return open(t, at) },
	})
}
