package semel

import (
	"context"
	"sync"
	"time"
)

// flights lets the duplicates of one process wait for one attempt, so that a
// herd costs the store what a single request costs. Requests with the same
// digest and another fingerprint do not share a flight: each asks the store.
type flights struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[flightKey]*flight
	}
}

type flightKey struct {
	digest      Digest
	fingerprint Fingerprint
}

// flight is one attempt under way, seen by those who wait for it.
type flight struct {
	key flightKey
	// Guarded by the shard's mutex until landed is closed, then fixed.
	landed  chan struct{} // nil while nobody waits
	outcome *outcome      // nil if nobody waited
}

// outcome is what a flight came to.
type outcome struct {
	verdict Verdict
	err     error
}

// join gives the flight under key and its channel, or registers own and gives
// nil.
func (f *flights) join(key flightKey, own *flight) (*flight, <-chan struct{}) {
	shard := &f.shards[key.digest[0]%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if leader := shard.m[key]; leader != nil {
		if leader.landed == nil {
			leader.landed = make(chan struct{})
		}
		return leader, leader.landed
	}
	if shard.m == nil {
		shard.m = make(map[flightKey]*flight)
	}
	own.key = key
	shard.m[key] = own
	return nil, nil
}

// land ends the flight and wakes all who wait for it. Later calls do nothing.
func (f *flights) land(own *flight, v *Verdict, err error) {
	shard := &f.shards[own.key.digest[0]%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.m[own.key] != own {
		return
	}
	delete(shard.m, own.key)
	if own.landed != nil {
		own.outcome = &outcome{*v, err}
		close(own.landed)
	}
}

// wait waits for the flight, for at most limit, and tells what it came to.
func (l *flight) wait(ctx context.Context, landed <-chan struct{}, limit time.Duration) (Verdict, error) {
	if limit <= 0 {
		return Verdict{Action: Refuse, Reason: InProgress}, nil
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-landed:
		return l.outcome.verdict, l.outcome.err
	case <-timer.C:
		return Verdict{Action: Refuse, Reason: InProgress}, nil
	case <-ctx.Done():
		return Verdict{}, context.Cause(ctx)
	}
}
