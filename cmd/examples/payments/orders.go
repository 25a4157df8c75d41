package main

import (
	"encoding/json"
	"log"
	"net/http"

	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/semelhttp"
)

// order is POST /orders, of the class transactional: what it writes and its
// answer to every retry are one commit. A status of 500 or more undoes both.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Reference string `json:"reference"`
		Amount    int64  `json:"amount"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Reference == "" || asked.Amount <= 0 {
		http.Error(w, `an order is {"reference":"yours","amount":cents}`, http.StatusBadRequest)
		return
	}
	tx, _ := postgres.TxFrom(r.Context())
	var id int64
	err := tx.QueryRow(r.Context(), `INSERT INTO orders (reference, amount) VALUES ($1, $2) RETURNING id`, asked.Reference, asked.Amount).Scan(&id)
	if err == nil {
		_, err = tx.Exec(r.Context(), `INSERT INTO entries (order_id, account, amount) VALUES ($1, 'receivable', $2), ($1, 'sales', -$2)`, id, asked.Amount)
	}
	if err != nil {
		log.Print("order: ", err)
		http.Error(w, "the order was not taken; send it again", http.StatusServiceUnavailable)
		return
	}
	send(w, answer(http.StatusCreated, map[string]any{"order": id, "reference": asked.Reference, "amount": asked.Amount}))
}

// answer is what customers get, and what is stored for their retries.
func answer(status int, body any) semelhttp.Answer {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own types
	}
	return semelhttp.Answer{Status: status, Body: b, Header: http.Header{"Content-Type": {"application/json"}}}
}

func send(w http.ResponseWriter, a semelhttp.Answer) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // whoever has left asks again, with the same key
}
