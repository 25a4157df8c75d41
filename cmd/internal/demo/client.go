package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// client sends requests and writes each into the journal. It retries where the
// storm can see it; net/http is kept from doing so by itself.
type client struct {
	http    *http.Client
	url     string // of the network that leads to the gateway
	journal *journal
	zero    time.Time // when the storm began
}

const (
	answerWithin = 3 * time.Second
	maxTries     = 200
	firstPause   = 20 * time.Millisecond
	longestPause = 700 * time.Millisecond
)

func newClient(address string, j *journal) *client {
	return &client{
		http:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}, Timeout: answerWithin},
		url:     "http://" + address + "/payments",
		journal: j,
		zero:    time.Now(),
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// until asks for p until the answer is definitive, with full jitter between the
// tries. It tells whether there was one before ctx ended.
func (c *client) until(ctx context.Context, p *payment, k copied) bool {
	source := rand.New(rand.NewPCG(k.seed, 2))
	pause := firstPause
	for range maxTries {
		e, err := c.ask(ctx, p, k)
		if err != nil {
			return false
		}
		if e.definitive() {
			return true
		}
		wait := time.Duration(source.Int64N(int64(pause)))
		if e.Reason != reasonNone {
			wait += firstPause // it said so itself: it needs a moment
		}
		pause = min(2*pause, longestPause)
		if !sleep(ctx, wait) {
			return false
		}
	}
	return false
}

// ask sends one request. The error is that of ctx; the request counts all the
// same, it may well have arrived.
func (c *client) ask(ctx context.Context, p *payment, k copied) (Entry, error) {
	e := Entry{Account: p.account, Key: p.key, Amount: k.amount, Sent: time.Since(c.zero)}
	text := fmt.Sprintf(`{"reference":%q,"amount":%d}`, p.key, k.amount)
	// Without GetBody, and with a body, net/http never sends a request twice.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, io.NopCloser(strings.NewReader(text)))
	if err != nil {
		return e, err
	}
	r.ContentLength = int64(len(text))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+p.account)
	key := p.key
	if k.quoted {
		key = strconv.Quote(key)
	}
	r.Header.Set("Idempotency-Key", key)
	resp, err := c.http.Do(r)
	if err != nil {
		e.Reason = reasonNone
	} else {
		e.read(resp)
	}
	e.Ended = time.Since(c.zero)
	c.journal.add(e)
	return e, ctx.Err()
}

// read takes in an answer. Half an answer is none.
func (e *Entry) read(resp *http.Response) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		e.Reason = reasonNone
		return
	}
	e.Status, e.Body, e.Location = resp.StatusCode, string(body), resp.Header.Get("Location")
	e.Replayed = resp.Header.Get("Idempotent-Replayed") == "true"
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return
	}
	e.Reason = "status " + strconv.Itoa(resp.StatusCode)
	var problem struct{ Type string }
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(body, &problem) == nil {
		if _, kind, found := strings.Cut(problem.Type, "#"); found {
			e.Reason = kind
		}
	}
}

// sleep waits and tells whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
