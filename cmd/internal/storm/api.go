package storm

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// API is the payment API: POST /payments charges, every time it is called. It
// knows nothing of idempotency keys.
type API struct {
	ledger  *Ledger
	options APIOptions
	secret  string // of this run, for the statements
	running atomic.Int64
	server  *http.Server
	address string // host:port
}

// APIOptions are an API's settings.
type APIOptions struct {
	// Seed determines how long each charge takes.
	Seed uint64
	// Work is how long every charge takes, half of it before and half after the
	// effect. Default: what Seed says, mostly some milliseconds, for one in twelve up
	// to a second.
	Work time.Duration
}

// A receipt is the answer to a charge.
type receipt struct {
	ID        string `json:"id"`
	Account   string `json:"account"`
	Reference string `json:"reference,omitempty"`
	Amount    int    `json:"amount"`
	// Statement is only for the account's eyes: the same in all answers to it, and
	// found in no other's.
	Statement string `json:"statement"`
}

// StartAPI serves the API on a free loopback port.
func StartAPI(l *Ledger, o APIOptions) (*API, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the payment API: %w", err)
	}
	p := &API{ledger: l, secret: rand.Text(), options: o, address: listener.Addr().String()}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(listener) }() // ends with close
	return p, nil
}

// Address is host and port.
func (p *API) Address() string { return p.address }

// Running is how many charges were begun and not answered.
func (p *API) Running() int { return int(p.running.Load()) }

// Close ends the API. Charges that run are given a moment.
func (p *API) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p.server.Shutdown(ctx) != nil {
		_ = p.server.Close()
	}
}

// Statements are the accounts' own marks in their answers.
func (p *API) Statements() map[string]string {
	all := map[string]string{}
	for _, account := range accounts() {
		all[account] = p.statement(account)
	}
	return all
}

func (p *API) statement(account string) string {
	sum := sha256.Sum256([]byte(p.secret + "\n" + account))
	return "st_" + hex.EncodeToString(sum[:8])
}

// ServeHTTP charges. A client that is gone before the charge is not charged,
// as in any service whose database calls end with the request; after it, the
// charge stands. Nobody outside can tell the two apart.
func (p *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	account := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/payments":
		http.Error(w, "this API knows POST /payments and nothing else", http.StatusNotFound)
		return
	case account == "":
		http.Error(w, "who pays? send the header Authorization", http.StatusUnauthorized)
		return
	}
	reference, amount, err := order(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.running.Add(1)
	defer p.running.Add(-1)
	before, after := p.work(account, reference)
	time.Sleep(before)
	if r.Context().Err() != nil {
		return
	}
	charge := Charge{At: time.Now().UTC(), ID: newPaymentID(), Account: account, Reference: reference, Amount: amount}
	if err := p.ledger.append(charge); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	time.Sleep(after)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/payments/"+charge.ID)
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(receipt{charge.ID, account, reference, amount, p.statement(account)})
}

// work is how long a charge takes before and after it is made.
func (p *API) work(account, reference string) (before, after time.Duration) {
	if w := p.options.Work; w > 0 {
		return w / 2, w / 2
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", p.options.Seed, account, reference))
	part := func(i int) float64 { return float64(binary.BigEndian.Uint16(sum[2*i:])) / (1 << 16) }
	longest := 50 * time.Millisecond
	if part(0) < 1.0/12 {
		longest = 500 * time.Millisecond
	}
	return time.Duration(part(1) * float64(longest)), time.Duration(part(2) * float64(longest))
}

func newPaymentID() string {
	return "pay_" + strings.ToLower(rand.Text()[:12])
}

// order reads what is to be paid, from JSON or from a form.
func order(r *http.Request) (reference string, amount int, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return "", 0, err
	}
	var o struct {
		Reference string `json:"reference"`
		Amount    int    `json:"amount"`
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		err = json.Unmarshal(body, &o)
	} else {
		var form url.Values
		if form, err = url.ParseQuery(string(body)); err == nil {
			o.Reference = form.Get("reference")
			o.Amount, err = strconv.Atoi(form.Get("amount"))
		}
	}
	if err != nil || o.Amount <= 0 {
		return "", 0, fmt.Errorf("what is to be paid? send amount=1250, in cents")
	}
	return o.Reference, o.Amount, nil
}
