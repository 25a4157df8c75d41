package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// killable is what all servers of them have: it can be killed and started again.
type killable interface {
	Kill() error
	Start() error
}

// outages are the kills of a storm, as they happened.
type outages struct {
	mu       sync.Mutex
	at       []time.Duration
	servers  int
	gateways int
	down     time.Duration // of the server, altogether
}

func (o *outages) add(count *int, since time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*count++
	o.at = append(o.at, since)
}

// progressWithin bounds the wait for a payment after a kill. It is far beyond
// what any recovery takes.
const progressWithin = time.Minute

// busy waits until payments were made since the last outage, which is how it
// shows that the service is back, and others are running, which is when a kill
// hurts most; then for up to 200 ms more.
func (s *scene) busy(ctx context.Context, random int) error {
	if err := s.made(ctx, 10); err != nil {
		return err
	}
	time.Sleep(time.Duration(random) * time.Millisecond)
	return nil
}

// lagging is how many payments are made while a standby or a replica lags.
const lagging = 30

// made waits until so many more payments were made, and others are running.
func (s *scene) made(ctx context.Context, more int) error {
	before := s.ledger.Lines()
	deadline := time.Now().Add(progressWithin)
	for s.ledger.Lines() < before+more || s.api.Running() < 2 {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(deadline):
			return fmt.Errorf("%d payments were made in the %v since the last outage, and %d are running: the service does not come back", s.ledger.Lines()-before, progressWithin, s.api.Running())
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// killBoth kills the server so many times, and the gateways so many times, each
// in its own rhythm, so that they hit each other's recovery as well. A nil server
// is none.
func (s *scene) killBoth(ctx context.Context, one killable, servers, gateways int) (*outages, error) {
	o := &outages{}
	// Drawn beforehand: the two rhythms must not share a source.
	draw := func(n int) []int {
		all := make([]int, 3*n)
		for i := range all {
			all[i] = s.source.IntN(200)
		}
		return all
	}
	forServers, forGateways := draw(servers), draw(gateways)
	var both sync.WaitGroup
	var wrong [2]error
	both.Go(func() {
		for n := range servers {
			if wrong[0] = s.busy(ctx, forServers[3*n]); wrong[0] != nil {
				return
			}
			o.add(&o.servers, time.Since(s.zero))
			killed := time.Now()
			wrong[0] = one.Kill()
			time.Sleep(time.Duration(forServers[3*n+1]) * time.Millisecond)
			if wrong[0] = errors.Join(wrong[0], one.Start()); wrong[0] != nil {
				return
			}
			o.down += time.Since(killed)
		}
	})
	both.Go(func() {
		for n := range gateways {
			if wrong[1] = s.busy(ctx, forGateways[3*n]); wrong[1] != nil {
				return
			}
			g := s.gateways[forGateways[3*n+2]%len(s.gateways)]
			o.add(&o.gateways, time.Since(s.zero))
			g.Kill()
			time.Sleep(time.Duration(forGateways[3*n+1]) * time.Millisecond)
			if wrong[1] = g.Start(startWithin); wrong[1] != nil {
				return
			}
		}
	})
	both.Wait()
	// One more proof that all is well again.
	return o, errors.Join(wrong[0], wrong[1], s.busy(ctx, 0))
}

// underKills is a whole run: a storm with kills, what is left of it settled, and
// the four logs.
func (s *scene) underKills(one killable, servers, gateways int) (storm.Evidence, *outages) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	var o *outages
	s.storm(ctx, func() (err error) {
		o, err = s.killBoth(ctx, one, servers, gateways)
		return err
	})
	s.settle()
	return s.evidence(o.at), o
}
