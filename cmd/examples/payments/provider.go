package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// charge is what the provider says of one.
type charge struct {
	ID     string `json:"id"`
	Order  int64  `json:"order"`
	Amount int64  `json:"amount"`
	Status string `json:"status"`
}

// provider calls the payment provider.
type provider struct {
	url    string
	client *http.Client
}

// newProvider's client sends a step's derived key by itself, and asks again under
// the same key where an answer is lost.
func newProvider(url string) *provider {
	return &provider{url, &http.Client{Transport: &semelhttp.Transport{
		MaxAttempts: 3, BackoffBase: 50 * time.Millisecond, AttemptTimeout: 5 * time.Second,
	}}}
}

// charge has the provider charge the card. An error that is semel.ErrNotDone says
// that it did not.
func (p *provider) charge(ctx context.Context, order, amount int64, card string) (semel.Result, error) {
	body, err := json.Marshal(map[string]any{"order": order, "amount": amount, "card": card})
	if err != nil {
		return semel.Result{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/charges", bytes.NewReader(body))
	if err != nil {
		return semel.Result{}, err
	}
	status, said, err := p.ask(r)
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("the provider answered %d to a charge: %.200s", status, said)
	}
	return semel.Result{Code: status, Data: said}, err
}

// find gives what the provider has under a key, nil if it has nothing.
func (p *provider) find(ctx context.Context, key string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/charges/by-key/"+key, http.NoBody)
	if err != nil {
		return nil, err
	}
	status, said, err := p.ask(r)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, nil
	case status != http.StatusOK:
		return nil, fmt.Errorf("the provider answered %d to a question: %.200s", status, said)
	}
	return said, nil
}

func (p *provider) ask(r *http.Request) (status int, said []byte, err error) {
	resp, err := p.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	said, err = io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, said, err
}
