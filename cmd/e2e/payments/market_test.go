package payments

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// kind is what a request asks for.
type kind string

const (
	order   kind = "order"
	payment kind = "payment"
)

// A request is one of a customer's and what came back: a line of the journal.
type request struct {
	kind     kind
	customer int
	order    int64 // that a payment is for
	sent     time.Duration
	ended    time.Duration
	status   int // 0 without an answer
	// refusal is a problem's kind, or the text of another answer that is no result.
	refusal  string
	replayed bool
	body     string
}

// result tells whether the answer is the operation's.
func (r *request) result() bool {
	return r.refusal == "" && (r.status == http.StatusCreated || r.status == http.StatusPaymentRequired)
}

// amount is what a customer's order is about, in cents.
func amount(customer int) int64 { return int64(1000 + customer) }

// card is what a customer pays with: every tenth one's is declined.
func card(customer int) string {
	if customer%10 == 9 {
		return "card_declined"
	}
	return "card_good"
}

// leaves tells that a customer sends a payment once, hangs up and never comes back.
func leaves(customer int) bool { return customer%8 == 3 }

// key is an operation's. Two tenants use the same ones.
func key(k kind, customer int) string { return fmt.Sprintf("%s-%04d", k, customer/2) }

func authorization(customer int) string { return "Bearer " + [...]string{"acme", "globex"}[customer%2] }

// name is an operation's, for people and for the order itself.
func name(k kind, customer int) string { return fmt.Sprintf("%s of customer %d", k, customer) }

// market is all customers, and their journal.
type market struct {
	http *http.Client
	urls []string
	zero time.Time

	begun    atomic.Int64 // customers
	progress func() float64

	mu      sync.Mutex
	journal []request
}

func newMarket(addresses []string) *market {
	m := &market{zero: time.Now(), http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}, Timeout: 4 * time.Second,
	}}
	for _, a := range addresses {
		m.urls = append(m.urls, "http://"+a)
	}
	return m
}

const (
	// atOnce is how many customers there are at the same time.
	atOnce = 16
	// duplicates is how often a request is sent at most before anybody knows the
	// answer to the first.
	duplicates = 4
	// answeredWithin bounds the asking for one answer, far beyond any outage.
	answeredWithin = 90 * time.Second
)

// run has customers order and pay, at least so many, and more until over is
// closed. It tells who had no answer.
func (m *market) run(ctx context.Context, customers int, over <-chan struct{}) (unanswered []string) {
	var all sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, atOnce)
	for customer := 0; ; customer++ {
		select {
		case <-over:
			if customer >= customers {
				all.Wait()
				return unanswered
			}
		default: // no faster than the outages come, so that they hit all of the run
			for pause := 0; pause < 100 && float64(customer-2*atOnce)/float64(customers) > m.progress(); pause++ {
				storm.Sleep(ctx, 2*time.Millisecond)
			}
		}
		slots <- struct{}{}
		m.begun.Add(1)
		all.Go(func() {
			defer func() { <-slots }()
			ordered := request{kind: order, customer: customer}
			if m.until(ctx, &ordered) && ordered.status == http.StatusCreated {
				paid := request{kind: payment, customer: customer}
				var said struct{ Order int64 }
				if json.Unmarshal([]byte(ordered.body), &said) == nil {
					paid.order = said.Order
				}
				if leaves(customer) {
					m.sendAndLeave(ctx, &paid)
					return
				}
				if m.until(ctx, &paid) {
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			unanswered = append(unanswered, strconv.Itoa(customer))
		})
	}
}

// until asks with duplicates, each until it knows, and gives one of the answers.
func (m *market) until(ctx context.Context, ask *request) bool {
	ctx, cancel := context.WithTimeout(ctx, answeredWithin)
	defer cancel()
	source := rand.New(rand.NewPCG(seed, uint64(ask.customer)<<1|uint64(len(ask.kind)&1)))
	answers := make([]request, 1+source.IntN(duplicates))
	var all sync.WaitGroup
	for i := range answers {
		answers[i] = *ask
		after := time.Duration(source.IntN(20)) * time.Millisecond
		if source.IntN(4) == 0 {
			after *= 20 // when the first may have been answered
		}
		mine := rand.New(rand.NewPCG(source.Uint64(), 1))
		all.Go(func() {
			for storm.Sleep(ctx, after) {
				m.send(ctx, &answers[i], m.urls[mine.IntN(len(m.urls))])
				if answers[i].result() {
					return
				}
				after = time.Duration(20+mine.IntN(200)) * time.Millisecond
			}
		})
	}
	all.Wait()
	*ask = answers[0]
	for _, a := range answers {
		if !a.result() {
			return false
		}
	}
	return true
}

// sendAndLeave makes one request and does not wait for the answer.
func (m *market) sendAndLeave(ctx context.Context, r *request) {
	n := r.customer / 8
	ctx, cancel := context.WithTimeout(ctx, time.Duration(2+n%20)*time.Millisecond)
	defer cancel()
	m.send(ctx, r, m.urls[n%len(m.urls)])
}

// send makes one request and writes it into the journal. A request whose ctx
// ended counts all the same: it may well have arrived.
func (m *market) send(ctx context.Context, r *request, url string) {
	text := fmt.Sprintf(`{"reference":%q,"amount":%d}`, name(order, r.customer), amount(r.customer))
	if r.kind == payment {
		text = fmt.Sprintf(`{"order":%d,"card":%q}`, r.order, card(r.customer))
	}
	r.sent, r.status, r.refusal, r.replayed, r.body = time.Since(m.zero), 0, "no answer", false, ""
	// Without GetBody net/http never sends a request twice.
	h, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/"+string(r.kind)+"s", io.NopCloser(strings.NewReader(text)))
	if err != nil {
		panic(err) // the address is one
	}
	h.ContentLength = int64(len(text))
	h.Header.Set("Authorization", authorization(r.customer))
	h.Header.Set("Idempotency-Key", key(r.kind, r.customer))
	if resp, err := m.http.Do(h); err == nil {
		r.read(resp)
	}
	r.ended = time.Since(m.zero)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal = append(m.journal, *r)
}

// read takes in an answer. Half an answer is none.
func (r *request) read(resp *http.Response) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return
	}
	r.status, r.body, r.refusal = resp.StatusCode, string(body), ""
	r.replayed = resp.Header.Get("Idempotent-Replayed") == "true"
	var problem struct{ Type string }
	switch {
	case strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(body, &problem) == nil:
		_, r.refusal, _ = strings.Cut(problem.Type, "#")
	case !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json"):
		r.refusal = strings.TrimSpace(r.body)
	}
}
