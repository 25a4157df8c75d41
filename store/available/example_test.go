package available_test

import (
	"context"
	"fmt"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
)

func Example() {
	database := breakable(memory.New(memory.Options{})) // stands for one that is far away
	store, err := available.New(database, available.Options{Local: memory.New(memory.Options{})})
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	database.set(true) // the network is gone

	ctx := context.Background()
	ask := semel.Ask{Key: semel.Key{Scope: "sensors", ID: "reading-7"}}
	for range 2 { // duplicates are still recognised, in this process
		answer, err := guard.Do(ctx, ask, func(context.Context) (semel.Result, error) {
			fmt.Println("written")
			return semel.Result{Code: 202}, nil
		})
		fmt.Println(answer.Code, answer.Replayed, answer.Unconfirmed, err)
	}
	database.set(false) // it is back
	fmt.Println(store.Close(ctx))
	held, err := database.Get(ctx, guard.Digest(ask.Key))
	fmt.Println(held.Record.State, held.Record.Code, err)
	// Output:
	// written
	// 202 false true <nil>
	// 202 true true <nil>
	// <nil>
	// done 202 <nil>
}
