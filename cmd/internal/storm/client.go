package storm

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

// Client sends requests and writes each into the journal. It retries where the
// storm can see it; net/http is kept from doing so by itself. It is safe for
// concurrent use.
type Client struct {
	http    *http.Client
	urls    []string
	journal *Journal
	zero    time.Time // what the journal's times count from
}

const (
	answerWithin = 3 * time.Second
	maxTries     = 200
	firstPause   = 20 * time.Millisecond
	longestPause = 700 * time.Millisecond
)

// NewClient makes a client of an API that is reached through any of these
// addresses, host:port: each try takes one of them.
func NewClient(j *Journal, addresses ...string) *Client {
	c := &Client{
		http:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}, Timeout: answerWithin},
		journal: j,
		zero:    time.Now(),
	}
	for _, address := range addresses {
		c.urls = append(c.urls, "http://"+address+"/payments")
	}
	return c
}

// Patience sets how long an answer is waited for; before the first request only.
func (c *Client) Patience(d time.Duration) { c.http.Timeout = d }

// Close closes the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) begin()               { c.zero = time.Now() }
func (c *Client) since() time.Duration { return time.Since(c.zero) }

// Until asks for p until the answer is definitive, with full jitter between the
// tries. It tells whether there was one before ctx ended.
func (c *Client) Until(ctx context.Context, p *Payment, k Copy) bool {
	return c.try(ctx, p, k, maxTries)
}

func (c *Client) try(ctx context.Context, p *Payment, k Copy, tries int) bool {
	source := rand.New(rand.NewPCG(k.Seed, 2))
	pause := firstPause
	for range maxTries {
		e := c.Ask(ctx, p, k, source.IntN(len(c.urls)))
		if ctx.Err() != nil {
			return false
		}
		if e.Definitive() {
			return true
		}
		wait := time.Duration(source.Int64N(int64(pause)))
		if e.Reason != ReasonNone {
			wait += firstPause // it said so itself: it needs a moment
		}
		pause = min(2*pause, longestPause)
		if !Sleep(ctx, wait) {
			return false
		}
	}
	return false
}

// Ask sends one request, through the address of that index, and gives what is in
// the journal now. A request whose ctx ended counts all the same: it may well have
// arrived.
func (c *Client) Ask(ctx context.Context, p *Payment, k Copy, address int) Entry {
	e := Entry{Account: p.Account, Key: p.Key, Amount: k.Amount, Sent: c.since()}
	text := fmt.Sprintf(`{"reference":%q,"amount":%d}`, p.Key, k.Amount)
	// Without GetBody, and with a body, net/http never sends a request twice.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.urls[address], io.NopCloser(strings.NewReader(text)))
	if err != nil {
		panic(err) // the address is one
	}
	r.ContentLength = int64(len(text))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", Authorization(p.Account))
	key := p.Key
	if k.Quoted {
		key = strconv.Quote(key)
	}
	r.Header.Set("Idempotency-Key", key)
	resp, err := c.http.Do(r)
	if err != nil {
		e.Reason = ReasonNone
	} else {
		e.read(resp)
	}
	e.Ended = c.since()
	c.journal.add(e)
	return e
}

// Authorization is the header by which an account is known.
func Authorization(account string) string { return "Bearer " + account }

// read takes in an answer. Half an answer is none.
func (e *Entry) read(resp *http.Response) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		e.Reason = ReasonNone
		return
	}
	e.Status, e.Body, e.Location = resp.StatusCode, string(body), resp.Header.Get("Location")
	e.Replayed = resp.Header.Get("Idempotent-Replayed") == "true"
	e.Unconfirmed = resp.Header.Get("Semel-Unconfirmed") == "true"
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
