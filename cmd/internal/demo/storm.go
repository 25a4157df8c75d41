package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel/cmd/internal/lossy"
)

// storm is the clients' side of a run, and whoever kills the gateway.
type storm struct {
	plan     plan
	client   *client
	network  *lossy.Proxy
	payments *payments
	gateway  *gateway // nil without one

	length time.Duration
	asked  atomic.Int64 // payments that clients began to ask for
	killed atomic.Int64
	up     atomic.Bool

	mu    sync.Mutex
	kills []time.Duration
}

const (
	// maxAsking bounds the clients that ask at the same time.
	maxAsking = 200
	// lull is how long clients may go on after the last payment was begun.
	lull = time.Second
	// settlers is how many clients ask for what is left at the end.
	settlers = 16
)

// weather is what the network does during the storm: about one exchange in
// five is lost, more than half of these after the request was carried out.
func weather() lossy.Faults {
	return lossy.Faults{
		RequestLost: 0.06, RequestCut: 0.02, AnswerLost: 0.08, AnswerCut: 0.02, HangUp: 0.03,
		Delayed: 0.2, MaxDelay: 40 * time.Millisecond,
	}
}

// run asks for the payments of the plan, each by all of its clients, while the
// gateway is killed and restarted. A machine that is too slow for all of it does
// less of it in the same time. The error is that the gateway did not come back.
func (s *storm) run(ctx context.Context) error {
	s.client.zero = time.Now()
	outages := make(chan error, 1)
	go func() { outages <- s.outages(ctx) }()

	storm, cancel := context.WithTimeout(ctx, s.length+lull)
	defer cancel()
	slots := make(chan struct{}, maxAsking)
	var clients sync.WaitGroup
	for i := range s.plan.payments {
		p := &s.plan.payments[i]
		if !sleep(storm, time.Until(s.client.zero.Add(p.at))) || time.Since(s.client.zero) > s.length {
			break
		}
		s.asked.Add(1)
		for _, k := range p.copies {
			clients.Go(func() {
				if !sleep(storm, k.after) {
					return
				}
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
					s.client.until(storm, p, k)
				case <-storm.Done():
				}
			})
		}
	}
	clients.Wait()
	return errors.Join(<-outages, ctx.Err())
}

// outages kills the gateway, always while payments are running, and starts it
// again.
func (s *storm) outages(ctx context.Context) error {
	if s.gateway == nil {
		return nil
	}
	for _, o := range s.plan.outages {
		if !sleep(ctx, time.Until(s.client.zero.Add(o.at))) {
			return nil
		}
		for range 500 {
			if s.payments.running.Load() > 1 {
				break
			}
			if !sleep(ctx, time.Millisecond) {
				return nil
			}
		}
		s.mu.Lock()
		s.kills = append(s.kills, time.Since(s.client.zero))
		s.mu.Unlock()
		s.up.Store(false)
		s.gateway.kill()
		s.killed.Add(1)
		if !sleep(ctx, o.down) {
			return nil
		}
		if err := s.gateway.start(ctx); err != nil {
			return fmt.Errorf("after kill -9 number %d: %w", s.killed.Load(), err)
		}
		s.network.SetUpstream(s.gateway.address)
		s.up.Store(true)
	}
	return nil
}

// settle asks, over a sound network, for every payment that was begun, and for
// every other body that its key was used with, until the answer is definitive.
func (s *storm) settle(ctx context.Context) error {
	if err := s.network.SetFaults(lossy.Faults{}); err != nil {
		return err
	}
	work := make(chan *payment)
	var clients sync.WaitGroup
	for range settlers {
		clients.Go(func() {
			for p := range work {
				s.client.until(ctx, p, copied{amount: p.amount, seed: 1})
				for _, k := range p.copies {
					if k.amount != p.amount {
						s.client.until(ctx, p, k)
					}
				}
			}
		})
	}
	for i := range s.asked.Load() {
		work <- &s.plan.payments[i]
	}
	close(work)
	clients.Wait()
	return nil
}
