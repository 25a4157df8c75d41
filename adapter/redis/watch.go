package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
)

// hub wakes those who wait for a key. It subscribes when the first comes, and
// stays so until the store is closed.
type hub struct {
	mu      sync.Mutex
	waiting map[string]map[chan struct{}]struct{} // by the last bytes of the digest
	started bool
	closed  bool
}

// newsLen is how many of a digest's last bytes are told. Two keys that have them
// in common wake each other's waiters, which look and go on waiting.
const newsLen = 8

// Watch is part of semel.Watcher. What ends a claim is told by PUBLISH in the
// script that writes it.
func (s *Store) Watch(digest semel.Digest) (changed <-chan struct{}, stop func()) {
	h, name := &s.client.hub, string(digest[len(digest)-newsLen:])
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting == nil {
		h.waiting = map[string]map[chan struct{}]struct{}{}
	}
	if h.waiting[name] == nil {
		h.waiting[name] = map[chan struct{}]struct{}{}
	}
	h.waiting[name][ch] = struct{}{}
	if !h.started && !h.closed {
		h.started = true
		s.client.patrols.Go(s.client.listen)
	}
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting[name], ch)
		if len(h.waiting[name]) == 0 {
			delete(h.waiting, name)
		}
	}
}

// close keeps a Watch from starting to listen.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// listen hands on news until the store is closed. While the connection is down,
// waiters poll, as without news.
func (c *client) listen() {
	for c.end.Err() == nil {
		subscribe := c.rueidis.B().Subscribe().Channel(c.channel).Build()
		_ = c.rueidis.Receive(c.end, subscribe, func(m rueidis.PubSubMessage) { c.hub.tell(m.Message) })
		pause, cancel := context.WithTimeout(c.end, 250*time.Millisecond)
		<-pause.Done()
		cancel()
	}
}

// tell wakes those who wait for one of the keys.
func (h *hub) tell(names string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; len(names) >= newsLen; names = names[newsLen:] {
		for ch := range h.waiting[names[:newsLen]] {
			select {
			case ch <- struct{}{}:
			default: // it has news already
			}
		}
	}
}
