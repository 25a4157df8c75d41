package batch_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
)

func Example() {
	store := batch.New(memory.New(memory.Options{}), batch.Options{})
	defer store.Close()

	var wg sync.WaitGroup
	for i := range 100 { // a hundred callers share a few commits
		wg.Go(func() {
			next := semel.Record{Digest: semel.Digest{byte(i)}, State: semel.Done}
			if _, err := store.CompareAndSwap(context.Background(), semel.Version{}, next); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
	held, err := store.Get(context.Background(), semel.Digest{99})
	fmt.Println(held.Record.State, err)
	// Output: done <nil>
}
