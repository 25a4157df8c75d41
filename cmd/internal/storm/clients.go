package storm

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Clients are the clients' side of a storm: each copy of each payment is one.
type Clients struct {
	Client   *Client
	Payments []Payment

	begun atomic.Int64
}

const (
	// maxAsking bounds the clients that ask at the same time.
	maxAsking = 200
	// Lull is how long clients may go on after the last payment was begun.
	Lull = time.Second
	// settlers is how many clients ask for what is left at the end.
	settlers = 16
)

// Begun is how many of the payments clients have begun to ask for.
func (c *Clients) Begun() int { return int(c.begun.Load()) }

// Run asks for the payments, each at its time and by all of its clients, until
// there are no more or over is closed, and for another Lull. A machine that is too
// slow for all of them does less of it in the same time. Times count from now on.
func (c *Clients) Run(ctx context.Context, over <-chan struct{}) {
	c.Client.begin()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, maxAsking)
	var clients sync.WaitGroup
	for i := range c.Payments {
		p := &c.Payments[i]
		if !c.until(asking, over, p.At) {
			break
		}
		c.begun.Add(1)
		for _, k := range p.Copies {
			clients.Go(func() {
				if !Sleep(asking, k.After) {
					return
				}
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
					c.Client.Until(asking, p, k)
				case <-asking.Done():
				}
			})
		}
	}
	lull := time.AfterFunc(Lull, cancel)
	defer lull.Stop()
	clients.Wait()
}

// until waits for a payment's time, and tells whether it may begin.
func (c *Clients) until(ctx context.Context, over <-chan struct{}, at time.Duration) bool {
	timer := time.NewTimer(at - c.Client.since())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-over:
	case <-ctx.Done():
	}
	select {
	case <-over:
		return false
	default:
		return ctx.Err() == nil
	}
}

// Settle asks for every payment that was begun, and for every other body that
// its key was used with, until the answer is definitive or ctx ends.
func (c *Clients) Settle(ctx context.Context) {
	work := make(chan *Payment)
	var clients sync.WaitGroup
	for range settlers {
		clients.Go(func() {
			for p := range work {
				c.Client.Until(ctx, p, Copy{Amount: p.Amount, Seed: 1})
				for _, k := range p.Copies {
					if k.Amount != p.Amount {
						c.Client.Until(ctx, p, k)
					}
				}
			}
		})
	}
	for i := range c.Begun() {
		work <- &c.Payments[i]
	}
	close(work)
	clients.Wait()
}

// Sleep waits and tells whether ctx is still good.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
