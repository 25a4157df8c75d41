package available_test

import (
	"context"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
)

// TestStore: while the main store answers, this one is as any other.
func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has: storetest.Batches | storetest.Sweeps | storetest.Lists,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			s, err := available.New(memory.New(memory.Options{Now: at.Now}), available.Options{
				Local: memory.New(memory.Options{Now: at.Now}), Patience: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	})
}

// TestStoreBesideALocalRecord: the same while a key is held locally, which is
// asked first for all others, and while the background looks after it.
func TestStoreBesideALocalRecord(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has: storetest.Batches | storetest.Sweeps | storetest.Lists,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			main := breakable(memory.New(memory.Options{Now: at.Now}))
			s, err := available.New(main, available.Options{
				Local: memory.New(memory.Options{Now: at.Now}), Patience: time.Minute, Retry: time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			main.set(true)
			next := semel.Record{Digest: semel.Digest{1}, State: semel.Pending, TTL: 1 << 62}
			if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil || !r.Unconfirmed {
				t.Fatalf("not claimed locally: %+v, %v", r, err)
			}
			main.set(false)
			return s
		},
		Close: func(_ testing.TB, s semel.Store) { _ = s.(*available.Store).Close(context.Background()) },
	})
}
