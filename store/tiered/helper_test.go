package tiered_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/storetest"
	"github.com/semelhq/semel/store/tiered"
)

// shared is a cache as another process would keep it. It never forgets by
// itself, so that whatever must not be used any more is still there.
type shared struct {
	mu   sync.Mutex
	m    map[semel.Digest]semel.Record
	gets int
	puts int
	ttls []time.Duration
}

func (c *shared) Get(_ context.Context, d semel.Digest) (semel.Record, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gets++
	r, ok := c.m[d]
	return r, ok, nil
}

func (c *shared) Put(_ context.Context, r semel.Record, ttl time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[semel.Digest]semel.Record{}
	}
	c.puts++
	c.ttls = append(c.ttls, ttl)
	c.m[r.Digest] = r
	return nil
}

func (c *shared) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m = nil
}

func (c *shared) all() []semel.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []semel.Record
	for _, r := range c.m {
		out = append(out, r)
	}
	return out
}

func (c *shared) counts() (gets, puts int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets, c.puts
}

// near is the same in this process.
type near struct{ shared }

func (*near) Prompt() {}

var errCache = errors.New("the cache is not well")

// wicked is a cache that does at random what caches do on bad days. It keeps
// every record that it was ever given, and may come back with an old one.
type wicked struct {
	mu    sync.Mutex
	rand  *rand.Rand
	m     map[semel.Digest][]semel.Record
	hangs int // how many calls may still hang
}

func newWicked(seed uint64) *wicked {
	return &wicked{rand: rand.New(rand.NewPCG(seed, 7)), m: map[semel.Digest][]semel.Record{}, hangs: 3}
}

func (w *wicked) Get(ctx context.Context, d semel.Digest) (semel.Record, bool, error) {
	n, hang, r, ok := w.pick(d)
	switch {
	case n == 0:
		return semel.Record{}, false, errCache
	case n == 1:
		panic("the cache broke down")
	case n == 2:
		return r, ok, semel.ErrDamaged
	case n == 3:
		<-ctx.Done() // slower than the time limit, and then it answers
	case n == 4 && hang: // long past the limit, and whatever the context says
		time.Sleep(30 * time.Millisecond)
	case n == 5:
		return semel.Record{}, false, nil
	case n == 6:
		r.Digest[3]++
	case n == 7:
		r.State = semel.Pending
	case n == 8:
		r.State = semel.Released
	case n == 9:
		r.Version = semel.Version{}
	case n == 10:
		return semel.Record{}, true, nil
	}
	return r, ok, nil
}

func (w *wicked) pick(d semel.Digest) (n int, hang bool, r semel.Record, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = w.rand.IntN(60)
	if n == 4 && w.hangs > 0 {
		w.hangs--
		hang = true
	}
	if n == 11 {
		clear(w.m) // FLUSHALL
	}
	all := w.m[d]
	if len(all) == 0 {
		return n, hang, semel.Record{}, false
	}
	r = all[len(all)-1]
	if n < 30 {
		r = all[w.rand.IntN(len(all))]
	}
	return n, hang, r, true
}

func (w *wicked) Put(ctx context.Context, r semel.Record, _ time.Duration) error {
	w.mu.Lock()
	n := w.rand.IntN(40)
	if n != 3 { // lost
		w.m[r.Digest] = append(w.m[r.Digest], r)
	}
	w.mu.Unlock()
	switch n {
	case 0:
		return errCache // it has kept it all the same
	case 1:
		panic("the cache broke down")
	case 2:
		<-ctx.Done()
	}
	return nil
}

// promptly makes a wicked cache that is called without a time limit, so it does
// not hang either.
type promptly struct{ *wicked }

func (promptly) Prompt() {}

func (p promptly) Get(_ context.Context, d semel.Digest) (semel.Record, bool, error) {
	p.mu.Lock()
	p.hangs = 0
	p.mu.Unlock()
	return p.wicked.Get(ended(), d)
}

func (p promptly) Put(_ context.Context, r semel.Record, ttl time.Duration) error {
	return p.wicked.Put(ended(), r, ttl)
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// clock is a store's clock that the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2031, 2, 3, 4, 5, 6, 7, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newStore(t testing.TB, durable semel.Store, o tiered.Options) *tiered.Store {
	t.Helper()
	s, err := tiered.New(durable, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// broken is a durable store that can be switched off, and counts its calls.
type broken struct {
	*storetest.Faulty
	mu    sync.Mutex
	off   bool
	calls int
}

var errDown = errors.New("connection refused")

func breakable(s semel.Store) *broken {
	b := &broken{}
	b.Faulty = &storetest.Faulty{Store: s, Before: func(context.Context, storetest.Call) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.calls++
		if b.off {
			return errDown
		}
		return nil
	}}
	return b
}

func (b *broken) set(off bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.off = off
}

func (b *broken) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

func pending(id string) semel.Record {
	key := semel.Key{Scope: "tenant", ID: id}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(id)), State: semel.Pending,
		Nonce: semel.Nonce{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), 1}, Attempt: 1, TTL: time.Minute, Key: key,
	}
}

func done(r semel.Record, result string) semel.Record {
	r.State, r.Code, r.Result, r.TTL, r.Replay = semel.Done, 201, []byte(result), 72*time.Hour, 24*time.Hour
	r.Nonce[5]++
	return r
}

// finish claims and completes a key, and gives the record as stored.
func finish(t testing.TB, s semel.Store, id string) semel.Record {
	t.Helper()
	claim := write(t, s, semel.Version{}, pending(id))
	return write(t, s, claim.Version, done(claim, "receipt of "+id))
}

func write(t testing.TB, s semel.Store, old semel.Version, next semel.Record) semel.Record {
	t.Helper()
	r, err := s.CompareAndSwap(context.Background(), old, next)
	if err != nil {
		t.Fatalf("CompareAndSwap over %v: %v", old, err)
	}
	return r.Record
}

// settled waits until what was to be put into caches is there.
func settled(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("within 10 s it did not come to this: %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}
