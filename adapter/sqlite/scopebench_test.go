package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// BenchmarkScope compares an operation of one insert in a scope with the same in
// a transaction of database/sql alone.
func BenchmarkScope(b *testing.B) {
	insert := func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders (what) VALUES (NULL)")
		return semel.Result{Code: 201, Data: []byte("ordered")}, err
	}
	b.Run("plain", func(b *testing.B) {
		s := newShop(b, sqlite.ScopeOptions{})
		for b.Loop() {
			tx, err := s.db.Begin()
			if err == nil {
				_, err = insert(context.Background(), tx)
			}
			if err == nil {
				err = tx.Commit()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, optimistic := range map[string]bool{"claim": false, "optimistic": true} {
		b.Run(name, func(b *testing.B) {
			s := newShop(b, sqlite.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
			n := 0
			for b.Loop() {
				n++
				if _, err := s.scope.Do(context.Background(), semel.Key{Scope: "tenant", ID: fmt.Sprint(n)}, orderFP, insert); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("replay", func(b *testing.B) {
		s := newShop(b, sqlite.ScopeOptions{})
		for b.Loop() {
			if _, err := s.scope.Do(context.Background(), orderKey, orderFP, insert); err != nil {
				b.Fatal(err)
			}
		}
	})
}
