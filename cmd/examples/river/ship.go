package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// ship is the job: have the warehouse send an order.
type ship struct {
	Operation string `json:"operation"` // the digest of the operation that staged it
	Order     int64  `json:"order"`
	Item      string `json:"item"`
}

// Kind is part of river.JobArgs.
func (ship) Kind() string { return "ship" }

// shipper works on jobs. River runs a job again after an error, after a worker's
// death, and sometimes while a slow worker still has it.
type shipper struct {
	river.WorkerDefaults[ship]
	guard     *semel.Guard
	policy    semel.Policy
	pool      *pgxpool.Pool
	warehouse string
	client    *http.Client
}

func newShipper(guard *semel.Guard, pool *pgxpool.Pool, warehouse string) (*shipper, error) {
	policy, err := semel.Policy{
		Name: "ship",
		// The warehouse takes a key once, so another worker may go on when a lease ends.
		Class: semel.Fenced,
		Lease: 5 * time.Second,
		// Longer than the lease: who waits for a dead worker goes on in the same attempt.
		Wait: 10 * time.Second,
		// Longer than River's 25 attempts, which take three weeks.
		Remember: 30 * 24 * time.Hour,
	}.Filled()
	client := &http.Client{Transport: &semelhttp.Transport{}, Timeout: 30 * time.Second}
	return &shipper{guard: guard, policy: policy, pool: pool, warehouse: warehouse, client: client}, err
}

// Work is part of river.Worker.
func (s *shipper) Work(ctx context.Context, job *river.Job[ship]) error {
	ask := semel.Ask{Key: semel.Key{Scope: semel.JoinScope("job", job.Args.Kind()), ID: job.Args.Operation}, Policy: &s.policy}
	_, err := s.guard.Do(ctx, ask, func(ctx context.Context) (semel.Result, error) {
		claim, _ := semel.ClaimFrom(ctx)
		shipment, err := claim.Step(ctx, "ship", func(ctx context.Context) (semel.Result, error) { return s.call(ctx, job.Args) })
		if err != nil {
			return semel.Result{}, err
		}
		_, err = s.pool.Exec(ctx, "UPDATE orders SET shipment = $2 WHERE id = $1", job.Args.Order, string(shipment.Data))
		return shipment, err
	})
	return err
}

// call asks the warehouse. The transport takes the step's derived key from ctx,
// which is the same whoever works on the job, and however often.
func (s *shipper) call(ctx context.Context, job ship) (semel.Result, error) {
	body, err := json.Marshal(job)
	if err != nil {
		return semel.Result{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.warehouse+"/shipments", bytes.NewReader(body))
	if err != nil {
		return semel.Result{}, err
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return semel.Result{}, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusCreated {
		err = fmt.Errorf("the warehouse answered %s: %s", answer.Status, data)
	}
	return semel.Result{Code: answer.StatusCode, Data: data}, err
}
