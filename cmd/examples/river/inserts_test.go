package main

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// TestEveryWayToInsert: one by one, many, by COPY, unique, and behind a savepoint
// that is rolled back. The transaction of a scope is all that River gets.
func TestEveryWayToInsert(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	s, _ := serve(t, url, f)
	scope, err := postgres.NewScope(s.store, s.pool, postgres.ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	insert := func(outcome error) func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
		return func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
			many := []river.InsertManyParams{{Args: ship{Order: 1}}, {Args: ship{Order: 2}}}
			_, err := s.jobs.InsertManyTx(ctx, tx, many)
			if err != nil {
				return semel.Result{}, err
			}
			if _, err := s.jobs.InsertManyFastTx(ctx, tx, many); err != nil {
				return semel.Result{}, err
			}
			unique := &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
			for i := range 2 {
				got, err := s.jobs.InsertTx(ctx, tx, ship{Order: 3}, unique)
				if err != nil {
					return semel.Result{}, err
				}
				if got.UniqueSkippedAsDuplicate != (i == 1) {
					t.Errorf("unique job, time %d: skipped %v", i+1, got.UniqueSkippedAsDuplicate)
				}
			}
			err = pgx.BeginFunc(ctx, tx, func(part pgx.Tx) error {
				if _, err := s.jobs.InsertTx(ctx, part, ship{Order: 4}, nil); err != nil {
					return err
				}
				return refused
			})
			if !errors.Is(err, refused) {
				return semel.Result{}, errors.Join(errors.New("the savepoint"), err)
			}
			return semel.Result{Code: 200}, outcome
		}
	}
	key := semel.Key{Scope: "inserts", ID: "one"}
	if _, err := scope.Do(t.Context(), key, semel.Fingerprint{}, insert(refused)); !errors.Is(err, refused) {
		t.Errorf("%v; want the operation's error", err)
	}
	check(t, db, f, 0, 0, 0)
	for range 2 {
		if _, err := scope.Do(t.Context(), key, semel.Fingerprint{}, insert(nil)); err != nil {
			t.Error(err)
		}
		check(t, db, f, 0, 5, 0)
	}
}
