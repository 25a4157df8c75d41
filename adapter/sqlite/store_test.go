package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/store/batch"
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

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has:  has,
		Open: func(t testing.TB, at storetest.Place) semel.Store { return open(t, at) },
	})
}

// A second batch in front is of no use, but does no harm either.
func TestStoreBehindBatch(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has:  has,
		Open: func(t testing.TB, at storetest.Place) semel.Store { return batch.New(open(t, at), batch.Options{}) },
		Close: func(t testing.TB, s semel.Store) {
			b := s.(*batch.Store)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if err := b.Unwrap().(*sqlite.Store).Close(); err != nil {
				t.Error(err)
			}
		},
	})
}
