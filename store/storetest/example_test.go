package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
)

// The whole test of an adapter. A store that keeps files uses at.Dir, one that
// keeps tables or keys in a server uses at.Name, and each uses at.Now if it can.
func Example() {
	_ = func(t *testing.T) { // TestStore
		storetest.Run(t, storetest.Maker{
			Has: storetest.Batches | storetest.Sweeps | storetest.Lists,
			Open: func(_ testing.TB, at storetest.Place) semel.Store {
				return memory.New(memory.Options{Now: at.Now})
			},
		})
	}
}

func ExampleLoseAnswers() {
	ctx := context.Background()
	store := storetest.LoseAnswers(memory.New(memory.Options{}), func(c storetest.Call) bool { return c.Number == 1 })
	claim := semel.Record{
		Digest: semel.Key{Scope: "tenant", ID: "order-42"}.Digest(nil),
		State:  semel.Pending, Nonce: semel.Nonce{1, 2, 3}, Attempt: 1,
	}
	_, err := store.CompareAndSwap(ctx, semel.Version{}, claim)
	fmt.Println(err)
	r, err := store.CompareAndSwap(ctx, semel.Version{}, claim)
	fmt.Println(errors.Is(err, semel.ErrConflict), r.Record.Nonce == claim.Nonce)
	// Output:
	// storetest: lost on the way
	// true true
}
