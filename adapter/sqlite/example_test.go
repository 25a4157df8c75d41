package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

func Example() {
	dir, err := os.MkdirTemp("", "semel")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	ask := semel.Ask{Key: semel.Key{Scope: semel.JoinScope("tenant-7", "charge"), ID: "order-42"}}
	charge := func(context.Context) (semel.Result, error) {
		fmt.Println("charging")
		return semel.Result{Data: []byte("receipt 1")}, nil
	}
	// The second round is the process after a restart: it opens the same file.
	for range 2 {
		store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		guard, err := semel.NewGuard(store, semel.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		answer, err := guard.Do(context.Background(), ask, charge)
		fmt.Println(string(answer.Data), answer.Replayed, err)
		if err := store.Close(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// charging
	// receipt 1 false <nil>
	// receipt 1 true <nil>
}
