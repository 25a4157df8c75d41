package postgres_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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

// An order and its key in one commit: the retry is answered, and orders nothing.
func ExampleScope() {
	ctx := context.Background()
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
	pool, err := pgxpool.New(ctx, private.URL("postgres")) // the application's
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "CREATE TABLE orders (number text NOT NULL)"); err != nil {
		fmt.Println(err)
		return
	}

	store, err := postgres.Open(ctx, private.URL("postgres"), postgres.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	key := semel.Key{Scope: semel.JoinScope("tenant-7", "order"), ID: "order-42"}
	for range 2 {
		answer, err := scope.Do(ctx, key, semel.FingerprintOf([]byte("one bicycle")), func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
			_, err := tx.Exec(ctx, "INSERT INTO orders VALUES ('order-42')")
			return semel.Result{Code: 201, Data: []byte("ordered")}, err
		})
		fmt.Println(string(answer.Data), answer.Replayed, err)
	}
	var orders int
	err = pool.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&orders)
	fmt.Println(orders, "order", err)
	// Output:
	// ordered false <nil>
	// ordered true <nil>
	// 1 order <nil>
}
