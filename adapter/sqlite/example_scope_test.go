package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// queries is what sqlc generates from SQL: methods over an interface that a
// *sql.DB and a *sql.Tx both are.
type queries struct{ db dbtx }

type dbtx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (q *queries) addOrder(ctx context.Context, what string) (id int64, err error) {
	err = q.db.QueryRowContext(ctx, "INSERT INTO orders (what) VALUES (?) RETURNING id", what).Scan(&id)
	return id, err
}

func (q *queries) countOrders(ctx context.Context) (n int, err error) {
	err = q.db.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n)
	return n, err
}

// The order and the answer to it are committed together, so a retry gets the
// answer and orders nothing.
func ExampleScope_Do() {
	dir, err := os.MkdirTemp("", "semel")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")
	store, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	db, err := sqlite.OpenDB(path + "?_pragma=foreign_keys(1)")
	if err != nil {
		panic(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT NOT NULL)"); err != nil {
		panic(err)
	}
	scope, err := sqlite.NewScope(store, db, sqlite.ScopeOptions{Policy: semel.Policy{Name: "orders"}})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	key := semel.Key{Scope: "tenant-7", ID: "9c1f"}
	for range 2 {
		answer, err := scope.Do(ctx, key, semel.FingerprintOf([]byte("tea")), func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			id, err := (&queries{tx}).addOrder(ctx, "tea")
			return semel.Result{Code: 201, Data: fmt.Appendf(nil, "order %d", id)}, err
		})
		fmt.Printf("%d %s, replayed: %t, %v\n", answer.Code, answer.Data, answer.Replayed, err)
	}
	n, err := (&queries{db}).countOrders(ctx)
	fmt.Println(n, "order,", err)
	// Output:
	// 201 order 1, replayed: false, <nil>
	// 201 order 1, replayed: true, <nil>
	// 1 order, <nil>
}
