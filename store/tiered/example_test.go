package tiered_test

import (
	"context"
	"fmt"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

func Example() {
	database := memory.New(memory.Options{}) // stands for one that is durable
	store, err := tiered.New(database, tiered.Options{Caches: []tiered.Cache{&near{}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	pay := func(context.Context) (semel.Result, error) {
		fmt.Println("charged")
		return semel.Result{Code: 201, Data: []byte("receipt")}, nil
	}
	ask := semel.Ask{Key: semel.Key{Scope: "shop", ID: "order-42"}}
	for range 2 { // the second is answered without the database
		answer, err := guard.Do(context.Background(), ask, pay)
		fmt.Println(string(answer.Data), answer.Replayed, err)
	}
	fmt.Println(store.Stats().Tiers[0].Hits)
	// Output:
	// charged
	// receipt false <nil>
	// receipt true <nil>
	// 1
}
