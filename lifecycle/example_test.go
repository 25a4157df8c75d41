package lifecycle_test

import (
	"context"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

// A result is dropped when its replay is over, and the key is forgotten later.
func Example() {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	guard, err := semel.NewGuard(memory.New(memory.Options{Now: func() time.Time { return now }}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	policy, err := lifecycle.Inventory.Apply(semel.Policy{Name: "hold"}).Filled()
	if err != nil {
		fmt.Println(err)
		return
	}
	sweeper, err := lifecycle.New(guard, lifecycle.Options{Policies: []*semel.Policy{&policy}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := semel.Ask{Key: semel.Key{Scope: "shop", ID: "seat-7"}, Policy: &policy}
	hold := func(context.Context) (semel.Result, error) { return semel.Result{Code: 201, Data: []byte("held")}, nil }
	ctx := context.Background()
	for range 4 { // now, after 20 minutes, after 40, and after an hour
		answer, err := guard.Do(ctx, ask, hold)
		fmt.Println(string(answer.Data), answer.Replayed, err)
		now = now.Add(20*time.Minute + time.Second)
		if _, err := sweeper.Once(ctx); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// held false <nil>
	//  true semel: the operation ran and its result is not kept
	//  true semel: the operation ran and its result is not kept
	// held false <nil>
}
