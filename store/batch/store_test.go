package batch_test

import (
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
)

func TestStore(t *testing.T) {
	for _, o := range []batch.Options{{}, {MaxBatch: 2, Workers: 3}} {
		storetest.Run(t, storetest.Maker{
			Has: storetest.Batches | storetest.Sweeps | storetest.Lists,
			Open: func(_ testing.TB, at storetest.Place) semel.Store {
				return batch.New(memory.New(memory.Options{Now: at.Now}), o)
			},
		})
	}
}
