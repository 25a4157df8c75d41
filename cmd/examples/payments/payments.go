package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// pay is POST /payments, of the class at-most-once: it starts once. What was
// begun and not ended is ended by resolve, with or without the customer's retry.
func (s *shop) pay(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	var asked struct {
		Order int64  `json:"order"`
		Card  string `json:"card"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Order <= 0 || asked.Card == "" {
		http.Error(w, `a payment is {"order":number,"card":"token"}`, http.StatusBadRequest)
		return
	}
	var amount int64
	switch err := s.pool.QueryRow(ctx, `SELECT amount FROM orders WHERE id = $1`, asked.Order).Scan(&amount); {
	case errors.Is(err, pgx.ErrNoRows):
		http.Error(w, "there is no such order", http.StatusNotFound)
		return
	case err != nil:
		failed(w, errors.Join(err, semel.ErrNotDone))
		return
	}

	// The money moves in a step: the provider gets the step's derived key, the same in every attempt.
	claim, _ := semel.ClaimFrom(ctx)
	step, err := claim.Step(ctx, "charge", func(ctx context.Context) (semel.Result, error) {
		return s.provider.charge(ctx, asked.Order, amount, asked.Card)
	})
	if err != nil {
		failed(w, err)
		return
	}
	answered, err := s.settle(ctx, step.Data)
	if err != nil {
		failed(w, errors.Join(err, semel.ErrInDoubt))
		return
	}
	send(w, answered)
}

// failed answers that nothing was done, if that is certain, and else that
// nobody knows: then resolve will find out.
func failed(w http.ResponseWriter, err error) {
	log.Print("payment: ", err)
	outcome := semelhttp.OutcomeUnknown
	if errors.Is(err, semel.ErrNotDone) && !errors.Is(err, semel.ErrInDoubt) {
		outcome = semelhttp.OutcomeNotDone
	}
	w.Header().Set(semelhttp.OutcomeHeader, outcome)
	http.Error(w, "nothing was charged; send it again", http.StatusServiceUnavailable)
}

// settle writes what the provider said into the ledger, in a transaction, and
// gives the answer. The transaction's key is the charge itself: whoever comes here
// first, the handler or resolve, writes it, and nobody does it twice.
func (s *shop) settle(ctx context.Context, said []byte) (semelhttp.Answer, error) {
	var c charge
	if err := json.Unmarshal(said, &c); err != nil {
		return semelhttp.Answer{}, fmt.Errorf("the provider's answer: %w", err)
	}
	if c.Status != "succeeded" {
		return answer(http.StatusPaymentRequired, c), nil
	}
	key := semel.Key{Scope: "ledger", ID: c.ID}
	_, err := s.scope.Do(ctx, key, semel.FingerprintOf([]byte(c.ID)), func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
		if _, err := tx.Exec(ctx, `UPDATE orders SET charge = $2 WHERE id = $1`, c.Order, c.ID); err != nil {
			return semel.Result{}, err
		}
		_, err := tx.Exec(ctx, `INSERT INTO entries (order_id, account, amount) VALUES ($1, 'bank', $2), ($1, 'receivable', -$2)`, c.Order, c.Amount)
		return semel.Result{Code: http.StatusCreated}, err
	})
	return answer(http.StatusCreated, c), err
}

// resolve finds out what became of a payment that is in doubt, and ends it.
func (s *shop) resolve(ctx context.Context, u semel.Unresolved) (semel.Settlement, error) {
	said, err := s.provider.find(ctx, u.DerivedKey("charge"))
	switch {
	case err != nil:
		return semel.Settlement{}, err
	case said == nil && time.Since(u.Record.WrittenAt) < s.underWay:
		return semel.Settlement{}, nil // it may be on its way yet: ask again
	case said == nil:
		return semel.Settlement{State: semel.Released, Why: "the provider has no charge with the key " + u.DerivedKey("charge")}, nil
	}
	answered, err := s.settle(ctx, said)
	if err != nil {
		return semel.Settlement{}, err
	}
	result, err := answered.Result()
	return semel.Settlement{State: semel.Done, Result: result, Why: "the provider has it: " + string(said)}, err
}
