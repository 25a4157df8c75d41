package main

import (
	"encoding/json"
	"strconv"
	"sync/atomic"
	"time"
)

// payments is the service that all kinds but the upstream serve:
//
//	POST /payments   reads a payment's JSON and answers with JSON that it makes
//	POST /fixed      reads the body and answers with fixed bytes
//	POST /slow       the same as /payments, after slowness
//	GET /runs        tells how many POSTs ran
type payments struct{ runs atomic.Int64 }

// slowness is how long /slow takes.
const slowness = 200 * time.Millisecond

type order struct {
	Amount      int64  `json:"amount"`
	Currency    string `json:"currency"`
	Customer    string `json:"customer"`
	Description string `json:"description"`
}

type payment struct {
	ID     string `json:"id"`
	Object string `json:"object"`
	Status string `json:"status"`
	order
}

// pay gives the answer to a POST /payments.
func (p *payments) pay(body []byte) ([]byte, error) {
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, err
	}
	id := "pay_" + strconv.FormatInt(p.runs.Add(1), 10)
	return json.Marshal(payment{ID: id, Object: "payment", Status: "captured", order: o})
}

// fixed gives the answer to a POST /fixed.
func (p *payments) fixed() []byte {
	p.runs.Add(1)
	return answer
}

var answer = []byte(`{"id":"pay_9f2c1e7a","object":"payment","status":"captured","amount":1999,"currency":"eur","customer":"cus_8f3a21","description":"order 4711, two items"}`)
