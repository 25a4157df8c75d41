package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/semelhttp"
)

type shop struct {
	store   *postgres.Store
	pool    *pgxpool.Pool
	jobs    *river.Client[pgx.Tx]
	handler http.Handler
}

// open makes the tables and puts the parts together. Nothing works on jobs until
// they are started.
func open(ctx context.Context, database, warehouse string) (_ *shop, err error) {
	s := new(shop)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.store, err = postgres.Open(ctx, database, postgres.Options{}); err != nil {
		return nil, err
	}
	if s.pool, err = pgxpool.New(ctx, database); err != nil {
		return nil, err
	}
	if err = migrate(ctx, s.pool); err != nil {
		return nil, err
	}
	scope, err := postgres.NewScope(s.store, s.pool, postgres.ScopeOptions{Policy: semel.Policy{Name: "orders"}})
	if err != nil {
		return nil, err
	}
	shipper, err := newShipper(scope.Guard(), s.pool, warehouse)
	if err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, shipper)
	s.jobs, err = river.NewClient(riverpgxv5.New(s.pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 8}}, Workers: workers,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", s.create)
	s.handler, err = semelhttp.NewHandler(scope.Guard(), mux, semelhttp.Options{
		Policy: scope.Policy(), Scope: semelhttp.HeaderScope("Authorization"), RequireKey: true,
	})
	return s, err
}

func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("the tables of River: %w", err)
	}
	_, err = pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS orders (
		id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, shipment text)`)
	return err
}

func (s *shop) close() {
	if s.jobs != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.jobs.StopAndCancel(ctx) // what was not finished is staged still
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.store != nil {
		_ = s.store.Close() // a record that is not durable was not acknowledged either
	}
}

type order struct {
	ID   int64  `json:"id"`
	Item string `json:"item"`
}

// create is POST /orders. It runs in a transaction, which commits with the
// answer, and is undone if the answer is 500 or above.
func (s *shop) create(w http.ResponseWriter, r *http.Request) {
	var o order
	if json.NewDecoder(r.Body).Decode(&o) != nil || o.Item == "" {
		http.Error(w, "an order has an item", http.StatusBadRequest)
		return
	}
	if err := s.place(r.Context(), &o); err != nil {
		http.Error(w, "the order was not taken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(o)
}

// place writes the order and stages its shipment.
func (s *shop) place(ctx context.Context, o *order) error {
	tx, inScope := postgres.TxFrom(ctx)
	claim, claimed := semel.ClaimFrom(ctx)
	if !inScope || !claimed {
		return errors.New("orders are placed in a scope")
	}
	err := tx.QueryRow(ctx, "INSERT INTO orders (item) VALUES ($1) RETURNING id", o.Item).Scan(&o.ID)
	if err != nil {
		return err
	}
	_, err = s.jobs.InsertTx(ctx, tx, ship{Operation: claim.Digest().String(), Order: o.ID, Item: o.Item}, nil)
	return err
}
