// Package load is an HTTP/1.1 client that costs little, because it shares the
// processors with what it measures: connections that stay open, one goroutine
// and one request at a time on each (no pipelining), requests whose bytes are
// made beforehand and differ in the key only, answers of which the status, the
// length and one header are looked at. The load is closed: the next request goes
// out when the answer is there.
//
// It takes only answers that have a Content-Length, and no interim ones; it is
// no client for anything but this module's benches.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel/bench/internal/rounds"
)

// Client is a number of connections to one server.
type Client struct {
	conns []*conn
}

// Dial opens n connections. They are used in turns and not by two at a time.
func Dial(address string, n int) (*Client, error) {
	c := new(Client)
	for range n {
		raw, err := net.Dial("tcp4", address)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, &conn{Conn: raw, buffer: make([]byte, 0, 16<<10)})
	}
	return c, nil
}

// Close closes all connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Keys gives the number of the next request's key. It is called by many at once.
type Keys func() uint64

// Counting gives each number once, from one after start.
func Counting(next *atomic.Uint64) Keys { return func() uint64 { return next.Add(1) } }

// Cycling gives the numbers below n again and again.
func Cycling(n uint64) Keys {
	var next atomic.Uint64
	return func() uint64 { return next.Add(1) % n }
}

// Run sends requests on all connections for a while. An answer that is not the
// expected one ends it with an error.
func (c *Client) Run(ctx context.Context, d time.Duration, r *Request, keys Keys) (rounds.Sample, error) {
	samples := make([]rounds.Sample, len(c.conns))
	errs := make([]error, len(c.conns))
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(d)
	for i, conn := range c.conns {
		wg.Go(func() { errs[i] = conn.run(ctx, &samples[i], r, keys, end) })
	}
	wg.Wait()
	var sum rounds.Sample
	for i := range samples {
		sum.Add(&samples[i])
	}
	sum.Took = time.Since(start)
	return sum, errors.Join(append(errs, ctx.Err())...)
}

// Side is a side of a comparison: this client's load. cpu tells how much
// processor time the server has used so far.
func (c *Client) Side(name string, r *Request, keys Keys, cpu func() time.Duration) rounds.Side {
	return rounds.Side{Name: name, Measure: func(ctx context.Context, d time.Duration) (rounds.Sample, error) {
		before := cpu()
		s, err := c.Run(ctx, d, r, keys)
		s.CPU = cpu() - before
		return s, err
	}}
}

// Each sends one request for each of the numbers below n, spread over the
// connections, as to have something that can be replayed.
func (c *Client) Each(ctx context.Context, r *Request, n uint64) error {
	var next atomic.Uint64
	errs := make([]error, len(c.conns))
	var wg sync.WaitGroup
	for i, conn := range c.conns {
		wg.Go(func() {
			own := r.clone()
			for k := next.Add(1) - 1; k < n && errs[i] == nil && ctx.Err() == nil; k = next.Add(1) - 1 {
				_, errs[i] = conn.exchange(own, k)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Burst sends the same request on all connections at once and gives the answers
// and how long it took until the last of them was there.
func (c *Client) Burst(r *Request, key uint64) ([]Answer, time.Duration) {
	answers := make([]Answer, len(c.conns))
	begin := make(chan struct{})
	var ready, done sync.WaitGroup
	ready.Add(len(c.conns))
	for i, conn := range c.conns {
		done.Go(func() {
			own := r.clone()
			own.check = false
			err := conn.SetDeadline(time.Now().Add(answerWithin))
			ready.Done()
			<-begin
			if err != nil {
				answers[i].Err = err
				return
			}
			answer, err := conn.exchange(own, key)
			answers[i] = answer.clone(err)
		})
	}
	ready.Wait()
	start := time.Now()
	close(begin)
	done.Wait()
	return answers, time.Since(start)
}

// Get asks for a path and gives the body of the answer.
func Get(address, path string) (string, error) {
	c, err := Dial(address, 1)
	if err != nil {
		return "", err
	}
	defer c.Close()
	r := &Request{bytes: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path)}
	answer, err := c.conns[0].exchange(r, 0)
	return string(bytes.TrimSpace(answer.Body)), err
}
