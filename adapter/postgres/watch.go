package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
)

// watch wakes those who wait for a key. A NOTIFY in every swap would make all
// commits go one after the other; so it is the waiter who speaks first: it
// announces what it waits for, and a store that finishes such a key then says so,
// in a statement of its own behind the swap. Stores for which nobody waits send
// nothing.
//
// What goes over the channel is words: the name of the sender, then w and the
// beginning of a digest for "I wait for this", or c for "this has changed".
type watch struct {
	engine  *engine
	channel string
	name    string // of this store
	cancel  context.CancelFunc
	running sync.WaitGroup
	send    chan struct{} // holds one: there is something to send
	hears   bool

	// interest is how many keys somebody waits for, so that swaps for which nobody
	// does look no further.
	interest atomic.Int64

	mu     sync.Mutex
	local  map[semel.Digest]map[chan struct{}]bool
	wanted map[string]time.Time // by other stores, until then
	words  map[string]bool      // to be sent
}

const (
	// wantedFor is how long an announcement holds; announceEvery how often it is
	// repeated.
	wantedFor     = 30 * time.Second
	announceEvery = 10 * time.Second
	// maxWanted bounds the keys that other stores may be known to wait for.
	maxWanted = 10_000
	// maxWords bounds one notification: PostgreSQL takes less than 8000 bytes.
	maxWords = 400
)

// word is how a key is named on the channel.
func word(verb string, d semel.Digest) string { return verb + hex.EncodeToString(d[:8]) }

func newWatch(e *engine, url string) (*watch, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{
		engine: e, channel: e.options.Schema, name: rand.Text(), cancel: cancel, send: make(chan struct{}, 1),
		local: map[semel.Digest]map[chan struct{}]bool{}, wanted: map[string]time.Time{}, words: map[string]bool{},
	}
	if e.pooled && url == "" {
		return w, nil // only what this store itself writes is heard of
	}
	c := e.pool.Config().ConnConfig
	if url != "" {
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			return nil, fmt.Errorf("postgres: Options.ListenURL is none of PostgreSQL's: %w", err)
		}
		c = config.ConnConfig
		c.DialFunc = e.pool.Config().ConnConfig.DialFunc
	}
	w.hears = true
	w.running.Go(func() { w.listen(ctx, c) })
	w.running.Go(func() { w.speak(ctx) })
	return w, nil
}

func (w *watch) close() {
	w.cancel()
	w.running.Wait()
}

// Watch is part of semel.Watcher. It hears at once of what this store writes,
// and a little later of what others do. Behind a pooler in transaction mode the
// others are heard of only if Options.ListenURL leads around it.
func (s *Store) Watch(digest semel.Digest) (changed <-chan struct{}, stop func()) {
	w := s.watch
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.local[digest] == nil {
		w.local[digest] = map[chan struct{}]bool{}
		w.say(word("w", digest))
	}
	w.local[digest][c] = true
	w.interest.Add(1)
	return c, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.interest.Add(-1)
		delete(w.local[digest], c)
		if len(w.local[digest]) == 0 {
			delete(w.local, digest)
		}
	})
}

// tell is told of every swap that was written.
func (w *watch) tell(digest semel.Digest, state semel.State) {
	if w.interest.Load() == 0 || state == semel.Pending {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(digest)
	key := word("", digest)
	if until, ok := w.wanted[key]; ok {
		delete(w.wanted, key)
		w.interest.Add(-1)
		if time.Now().Before(until) {
			w.say("c" + key)
		}
	}
}

// wake is called with mu held.
func (w *watch) wake(digest semel.Digest) {
	for c := range w.local[digest] {
		select {
		case c <- struct{}{}:
		default: // it was told already
		}
	}
}

// say has a word sent. It is called with mu held.
func (w *watch) say(word string) {
	if !w.hears {
		return
	}
	w.words[word] = true
	select {
	case w.send <- struct{}{}:
	default:
	}
}

// speak sends what is to be said, and repeats what this store waits for.
func (w *watch) speak(ctx context.Context) {
	again := time.NewTicker(announceEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			w.mu.Lock()
			for digest := range w.local {
				w.words[word("w", digest)] = true
			}
			w.forget()
			w.mu.Unlock()
		case <-w.send:
		}
		for payload := w.payload(); payload != ""; payload = w.payload() {
			// A hint that is lost costs a poll.
			_, _ = w.engine.pool.Exec(ctx, "SELECT pg_notify($1, $2)", w.channel, payload)
		}
	}
}

// payload takes as many words as one notification holds.
func (w *watch) payload() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.words) == 0 {
		return ""
	}
	out := []string{w.name}
	for word := range w.words {
		if len(out) > maxWords {
			break
		}
		out = append(out, word)
		delete(w.words, word)
	}
	return strings.Join(out, " ")
}

// listen hears what others say, over a connection of its own that it makes anew
// whenever it breaks.
func (w *watch) listen(ctx context.Context, c *pgx.ConnConfig) {
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		conn, err := pgx.ConnectConfig(ctx, c)
		if err == nil {
			if _, err = conn.Exec(ctx, "LISTEN "+pgx.Identifier{w.channel}.Sanitize()); err == nil {
				pause = 100 * time.Millisecond
				w.missed()
			}
			for err == nil {
				n, failed := conn.WaitForNotification(ctx)
				if err = failed; err == nil {
					w.heard(n.Payload)
				}
			}
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(bounded) // it is broken, or not needed any more
			cancel()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// missed wakes everybody: what was said while nobody listened is not known.
func (w *watch) missed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for digest := range w.local {
		w.wake(digest)
		w.say(word("w", digest))
	}
}

// heard takes a notification apart. What is none of ours is passed over.
func (w *watch) heard(payload string) {
	words := strings.Fields(payload)
	if len(words) == 0 || words[0] == w.name {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, said := range words[1:] {
		verb, key := said[:1], said[1:]
		switch {
		case verb == "w":
			w.want(key)
		case verb == "c":
			for digest := range w.local {
				if word("", digest) == key {
					w.wake(digest)
				}
			}
		}
	}
}

// want notes that another store waits for a key. It is called with mu held.
func (w *watch) want(key string) {
	now := time.Now()
	if _, known := w.wanted[key]; !known {
		if len(w.wanted) >= maxWanted {
			return // they poll
		}
		w.interest.Add(1)
	}
	w.wanted[key] = now.Add(wantedFor)
}

// forget drops announcements that were not repeated. It is called with mu held.
func (w *watch) forget() {
	now := time.Now()
	for key, until := range w.wanted {
		if now.After(until) {
			delete(w.wanted, key)
			w.interest.Add(-1)
		}
	}
}
