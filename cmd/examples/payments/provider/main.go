// Provider stands in for a payment provider on the other side of the internet:
// a process of its own with a ledger of its own, which charges once per
// Idempotency-Key and tells later what became of a key. It loses answers, as
// networks do.
//
//	go run ./cmd/examples/payments/provider --ledger charges.jsonl --lose 0.2
package main

import (
	crand "crypto/rand"
	"encoding/json"
	"flag"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// charge is one line of the ledger, and the answer to whoever asks for it.
type charge struct {
	ID     string    `json:"id"`
	Key    string    `json:"key"`
	Order  int64     `json:"order"`
	Amount int64     `json:"amount"` // in cents
	Status string    `json:"status"` // succeeded or declined
	At     time.Time `json:"at"`
}

type provider struct {
	lose float64 // the share of requests that get no answer

	mu     sync.Mutex
	ledger *os.File
	byKey  map[string]charge
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8081", "`address` to listen at")
	path := flag.String("ledger", "charges.jsonl", "append-only `file` with a line per charge")
	lose := flag.Float64("lose", 0, "`share` of the requests, from 0 to 1, whose answer is lost")
	flag.Parse()
	p, err := open(*path)
	if err != nil {
		log.Fatal(err)
	}
	p.lose = *lose
	http.HandleFunc("POST /charges", p.lossy(p.charge))
	http.HandleFunc("GET /charges/by-key/{key}", p.lossy(p.find))
	log.Fatal(http.ListenAndServe(*listen, nil))
}

func open(path string) (*provider, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	p := &provider{ledger: file, byKey: map[string]charge{}}
	for lines := json.NewDecoder(file); lines.More(); {
		var c charge
		if err := lines.Decode(&c); err != nil {
			return nil, err
		}
		p.byKey[c.Key] = c
	}
	return p, nil
}

// lossy drops the connection instead of answering: half of the times before
// anything was done, half of the times after all of it.
func (p *provider) lossy(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fate := rand.Float64()
		if fate >= p.lose/2 {
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			next(w, r)
		}
		if fate < p.lose {
			panic(http.ErrAbortHandler)
		}
	}
}

// charge is POST /charges. What it answers is on the disk.
func (p *provider) charge(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Order  int64  `json:"order"`
		Amount int64  `json:"amount"`
		Card   string `json:"card"`
	}
	key := strings.Trim(r.Header.Get("Idempotency-Key"), `"`)
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Amount <= 0 || key == "" {
		http.Error(w, "a charge needs an Idempotency-Key, an order, an amount in cents and a card", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c, known := p.byKey[key]
	if !known {
		c = charge{ID: "ch_" + crand.Text()[:12], Key: key, Order: asked.Order, Amount: asked.Amount, Status: "succeeded", At: time.Now()}
		if asked.Card == "card_declined" {
			c.Status = "declined"
		}
		if err := p.keep(c); err != nil {
			log.Fatal("the ledger cannot be written: ", err) // whoever restarts us reads what is there
		}
	}
	answer(w, http.StatusCreated, c)
}

func (p *provider) keep(c charge) error {
	if err := json.NewEncoder(p.ledger).Encode(c); err != nil {
		return err
	}
	p.byKey[c.Key] = c
	return p.ledger.Sync()
}

// find is GET /charges/by-key/{key}.
func (p *provider) find(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	c, known := p.byKey[r.PathValue("key")]
	p.mu.Unlock()
	if !known {
		http.Error(w, "no charge has this key", http.StatusNotFound)
		return
	}
	answer(w, http.StatusOK, c)
}

func answer(w http.ResponseWriter, status int, c charge) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(c) // whoever has left asks again
}
