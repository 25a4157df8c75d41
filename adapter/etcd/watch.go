package etcd

import (
	"context"
	"sync"
	"time"

	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

// hub has one of etcd's watches for each key that somebody waits for, and none
// else. All of them share one stream of the client.
type hub struct {
	mu     sync.Mutex
	topics map[semel.Digest]*topic
	closed bool
	going  sync.WaitGroup
}

type topic struct {
	cancel  context.CancelFunc
	waiters map[chan struct{}]struct{}
}

// Watch is part of semel.Watcher. The changes are those since the newest
// revision that this store has seen when Watch is called.
func (s *Store) Watch(digest semel.Digest) (changed <-chan struct{}, stop func()) {
	h, waiter := &s.hub, make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return waiter, func() {}
	}
	t := h.topics[digest]
	if t == nil {
		if h.topics == nil {
			h.topics = make(map[semel.Digest]*topic)
		}
		ctx, cancel := context.WithCancel(etcd.WithRequireLeader(context.Background()))
		t = &topic{cancel: cancel, waiters: make(map[chan struct{}]struct{})}
		h.topics[digest] = t
		since := s.cluster.seen() + 1
		h.going.Go(func() { s.follow(ctx, t, s.cluster.recordKey(&digest), since) })
	}
	t.waiters[waiter] = struct{}{}
	return waiter, sync.OnceFunc(func() { h.leave(digest, t, waiter) })
}

func (h *hub) leave(digest semel.Digest, t *topic, waiter chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(t.waiters, waiter)
	if len(t.waiters) == 0 {
		t.cancel()
		if h.topics[digest] == t {
			delete(h.topics, digest)
		}
	}
}

// tell wakes all who wait. A waiter that has news already needs no more.
func (h *hub) tell(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for waiter := range t.waiters {
		select {
		case waiter <- struct{}{}:
		default:
		}
	}
}

// follow tells of a key's changes until ctx ends. A watch that ends otherwise,
// as for a revision that was compacted or a leader that is lost, is begun anew
// from now on; what was missed is made good by telling once.
func (s *Store) follow(ctx context.Context, t *topic, key string, since int64) {
	for ctx.Err() == nil {
		o := []etcd.OpOption{etcd.WithRev(since)}
		if since == 0 {
			o = nil
		}
		watching, cancel := context.WithCancel(ctx)
		for answer := range s.cluster.client.Watch(watching, key, o...) {
			if answer.Err() != nil {
				break
			}
			if len(answer.Events) > 0 {
				s.hub.tell(t)
			}
		}
		cancel()
		since = 0
		// The wait is only so that a cluster that is down is not asked all the time.
		if sleep(ctx, 100*time.Millisecond) == nil {
			s.hub.tell(t)
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	for _, t := range h.topics {
		t.cancel()
	}
	h.mu.Unlock()
	h.going.Wait()
}
