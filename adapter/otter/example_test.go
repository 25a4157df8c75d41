package otter_test

import (
	"context"
	"fmt"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

func ExampleNew() {
	near, err := otter.New(otter.Options{MaxBytes: 16 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer near.Close()
	database := memory.New(memory.Options{}) // stands for one that is durable
	store, err := tiered.New(database, tiered.Options{Caches: []tiered.Cache{near}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	ctx := context.Background()
	next := semel.Record{Digest: semel.Digest{1}, State: semel.Done, Result: []byte("receipt"), TTL: 1 << 50, Replay: 1 << 50}
	if _, err := store.CompareAndSwap(ctx, semel.Version{}, next); err != nil {
		fmt.Println(err)
	}
	held, err := store.Get(ctx, semel.Digest{1}) // not by asking the database
	fmt.Printf("%s %v, %d hit\n", held.Record.Result, err, store.Stats().Tiers[0].Hits)
	// Output: receipt <nil>, 1 hit
}
