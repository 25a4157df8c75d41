package pocketbase

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// storm is the clients.
type storm struct {
	ops     []operation
	address string // of the network
	journal *journal
	client  *http.Client
	sent    atomic.Int64
}

func newStorm(t *testing.T, ops []operation, address string) *storm {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &storm{
		ops: ops, address: address, journal: newJournal(),
		client: &http.Client{Transport: transport, Timeout: 20 * time.Second},
	}
}

// ask sends one request and writes down what came of it.
func (s *storm) ask(ctx context.Context, what send) answer {
	o := &s.ops[what.op]
	body := o.body()
	if what.forged {
		body = o.forged()
	}
	// A body that is no more than a Reader cannot be sent again by net/http on its own.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+recordsPath, struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		panic(err) // the address is one
	}
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", authorization(o.tenant))
	r.Header.Set("Idempotency-Key", `"`+o.key+`"`)
	a := answer{sent: time.Now()}
	s.sent.Add(1)
	if resp, err := s.client.Do(r); err == nil {
		content, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil { // an answer that was cut is none
			resp.Body = io.NopCloser(bytes.NewReader(content))
			sent := a.sent
			a = read(resp, content)
			a.sent = sent
		}
	}
	a.send, a.came = what, time.Now()
	s.journal.add(a)
	return a
}

func authorization(tenant string) string { return "Bearer " + tenant }

// run sends the plan's requests, many at a time. A client that gets no answer
// pauses, longer and longer, as clients do. Another body is sent only once the
// operation is settled: before, it could be the first.
func (s *storm) run(ctx context.Context, sends []send, clients int, number uint64) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for n := range clients {
		source := rand.New(rand.NewPCG(number, uint64(n)+100))
		wait.Go(func() {
			pause := time.Duration(0)
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(sends) {
					return
				}
				what := sends[i]
				if what.forged && !s.journal.isSettled(what.op) {
					continue
				}
				if a := s.ask(ctx, what); a.meaning != nothing {
					pause = 0
					continue
				}
				pause = min(10*time.Millisecond+2*pause, 150*time.Millisecond)
				rest(ctx, time.Duration(source.Float64()*float64(pause)))
			}
		})
	}
	wait.Wait()
}

// settle asks until the answer is more than "ask again", or until ctx ends.
func (s *storm) settle(ctx context.Context, what send) {
	for ctx.Err() == nil && s.ask(ctx, what).meaning == nothing {
		rest(ctx, 50*time.Millisecond)
	}
}

// settleAll settles every operation, and sends another body under each key.
func (s *storm) settleAll(ctx context.Context) {
	next := make(chan int)
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for op := range next {
				s.settle(ctx, send{op: op})
				s.settle(ctx, send{op: op, forged: true})
				s.settle(ctx, send{op: op})
			}
		})
	}
	for op := range s.ops {
		next <- op
	}
	close(next)
	wait.Wait()
}

// rest waits; nothing depends on for how long.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
