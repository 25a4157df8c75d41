package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/internal/server"
)

func ExampleNewScope() {
	dir, err := os.MkdirTemp("", "semel")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	server, err := server.StartMariaDB(dir, server.MariaDBOptions{}) // yours is there already
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Kill()
	if err := server.CreateDatabase("shop"); err != nil {
		fmt.Println(err)
		return
	}

	store, err := mysql.Open(context.Background(), server.URL("shop"), mysql.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	db, err := mysql.OpenDB(server.URL("shop")) // in place of sql.Open
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE orders (item VARCHAR(40) NOT NULL)"); err != nil {
		fmt.Println(err)
		return
	}
	scope, err := mysql.NewScope(store, db, mysql.ScopeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	orders(scope, db)
	// Output:
	// ordered tea, replayed false, <nil>
	// ordered tea, replayed true, <nil>
	// 1 order
}

// orders has the same request come twice.
func orders(scope *mysql.Scope, db *sql.DB) {
	ctx := context.Background()
	key := semel.Key{Scope: "tenant-7", ID: "order-42"}
	for range 2 {
		answer, err := scope.Do(ctx, key, semel.FingerprintOf([]byte("tea")), func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			_, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?)", "tea")
			return semel.Result{Code: 201, Data: []byte("ordered tea")}, err
		})
		fmt.Printf("%s, replayed %t, %v\n", answer.Data, answer.Replayed, err)
	}
	var n int
	if err := db.QueryRow("SELECT COUNT(*) FROM orders").Scan(&n); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(n, "order")
}
