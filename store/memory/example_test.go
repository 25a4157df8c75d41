package memory_test

import (
	"context"
	"fmt"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

func ExampleNew() {
	store := memory.New(memory.Options{})
	next := semel.Record{Digest: semel.Key{Scope: "a", ID: "k"}.Digest(nil), State: semel.Pending}
	_, err := store.CompareAndSwap(context.Background(), semel.Version{}, next)
	fmt.Println(err)
	_, err = store.CompareAndSwap(context.Background(), semel.Version{}, next)
	fmt.Println(err)
	// Output:
	// <nil>
	// semel: another version is held
}
