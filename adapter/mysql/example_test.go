package mysql_test

import (
	"context"
	"fmt"
	"os"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/internal/server"
)

func Example() {
	dir, err := os.MkdirTemp("", "semel")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := server.StartMariaDB(dir, server.MariaDBOptions{}) // yours is there already
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Kill()
	if err := db.CreateDatabase("shop"); err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	store, err := mysql.Open(ctx, db.URL("shop"), mysql.Options{})
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
