package postgres_test

import (
	"context"
	"fmt"
	"os"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/internal/server"
)

func Example() {
	dir, err := os.MkdirTemp("", "semel")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	private, err := server.StartPostgres(dir, server.PostgresOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer private.Kill()

	ctx := context.Background()
	store, err := postgres.Open(ctx, private.URL("postgres"), postgres.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	fmt.Println("survives:", store.Describe().Survives)

	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := semel.Ask{Key: semel.Key{Scope: semel.JoinScope("tenant-7", "charge"), ID: "order-42"}}
	for range 2 {
		answer, err := guard.Do(ctx, ask, func(context.Context) (semel.Result, error) {
			fmt.Println("charging")
			return semel.Result{Data: []byte("receipt 1")}, nil
		})
		fmt.Println(string(answer.Data), answer.Replayed, err)
	}
	// Output:
	// survives: crash
	// charging
	// receipt 1 false <nil>
	// receipt 1 true <nil>
}
