package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel/cmd/internal/lossy"
	"github.com/semelhq/semel/cmd/internal/storm"
)

// An outage is one kill of the gateway.
type outage struct {
	at   time.Duration // since the storm began
	down time.Duration // until it is started again
}

// outages are whoever kills the gateway.
type outages struct {
	planned  []outage
	gateway  *gateway // nil without one
	network  *lossy.Proxy
	payments *storm.API
	up       atomic.Bool

	mu    sync.Mutex
	kills []time.Duration
}

// newOutages draws three kills, equal for equal seeds.
func newOutages(b *bench) *outages {
	o := &outages{
		planned: planOutages(b.options.Seed, b.options.Storm), gateway: b.gateway, network: b.network, payments: b.payments,
	}
	o.up.Store(true)
	return o
}

func planOutages(seed uint64, over time.Duration) (all []outage) {
	source := rand.New(rand.NewPCG(seed, 3))
	for _, part := range [...]float64{0.22, 0.48, 0.74} {
		all = append(all, outage{
			at:   time.Duration(float64(over) * (part + 0.08*source.Float64())),
			down: 100*time.Millisecond + time.Duration(source.Int64N(int64(400*time.Millisecond))),
		})
	}
	return all
}

// weather is what the network does during the storm: about one exchange in
// five is lost, more than half of these after the request was carried out.
func weather() lossy.Faults {
	return lossy.Faults{
		RequestLost: 0.06, RequestCut: 0.02, AnswerLost: 0.08, AnswerCut: 0.02, HangUp: 0.03,
		Delayed: 0.2, MaxDelay: 40 * time.Millisecond,
	}
}

// run kills the gateway, always while payments are running, and starts it again.
func (o *outages) run(ctx context.Context, zero time.Time) error {
	if o.gateway == nil {
		return nil
	}
	for n, next := range o.planned {
		if !storm.Sleep(ctx, time.Until(zero.Add(next.at))) {
			return nil
		}
		for range 500 {
			if o.payments.Running() > 1 {
				break
			}
			if !storm.Sleep(ctx, time.Millisecond) {
				return nil
			}
		}
		o.mu.Lock()
		o.kills = append(o.kills, time.Since(zero))
		o.mu.Unlock()
		o.up.Store(false)
		o.gateway.kill()
		if !storm.Sleep(ctx, next.down) {
			return nil
		}
		if err := o.gateway.start(ctx); err != nil {
			return fmt.Errorf("after kill -9 number %d: %w", n+1, err)
		}
		o.network.SetUpstream(o.gateway.address)
		o.up.Store(true)
	}
	return nil
}

// killed gives the times of the kills so far, since the storm began.
func (o *outages) killed() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.kills)
}
