package memory_test

import (
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has: storetest.Batches | storetest.Sweeps | storetest.Lists,
		Open: func(_ testing.TB, at storetest.Place) semel.Store {
			return memory.New(memory.Options{Now: at.Now})
		},
	})
}

func TestStoreWithTheProcessClock(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Has:      storetest.Batches | storetest.Sweeps | storetest.Lists,
		RealTime: true,
		Open:     func(testing.TB, storetest.Place) semel.Store { return memory.New(memory.Options{}) },
	})
}
