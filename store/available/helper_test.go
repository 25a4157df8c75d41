package available_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/storetest"
)

var (
	errDown = errors.New("connection refused")
	errLost = errors.New("connection reset by peer")
)

// broken is a store that the test switches off and spoils.
type broken struct {
	*storetest.Faulty
	off    atomic.Bool
	lose   atomic.Bool // answers of writes
	writes atomic.Int64
	calls  atomic.Int64
}

func breakable(s semel.Store) *broken {
	b := &broken{}
	b.Faulty = &storetest.Faulty{
		Store: s,
		Before: func(_ context.Context, c storetest.Call) error {
			b.calls.Add(1)
			if b.off.Load() {
				return errDown
			}
			if c.Writes() {
				b.writes.Add(1)
			}
			return nil
		},
		After: func(_ context.Context, c storetest.Call) error {
			if c.Writes() && b.lose.Load() {
				return errLost
			}
			return nil
		},
	}
	return b
}

func (b *broken) set(off bool) { b.off.Store(off) }

// process is one process with its own way to the main store.
type process struct {
	*available.Store
	way   *broken
	local *memory.Store

	mu        sync.Mutex
	conflicts []available.Conflict
}

func newProcess(t testing.TB, main semel.Store, o available.Options) *process {
	t.Helper()
	p := &process{way: breakable(main), local: memory.New(memory.Options{})}
	if o.Local == nil {
		o.Local = p.local
	}
	if o.Retry == 0 {
		o.Retry = 2 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second // whether it was slow must not depend on the machine
	}
	o.Conflict = func(c available.Conflict) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conflicts = append(p.conflicts, c)
	}
	var err error
	if p.Store, err = available.New(p.way, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func (p *process) told() []available.Conflict {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]available.Conflict(nil), p.conflicts...)
}

// guard gives a guard over s, whose store is switched off only later.
func guard(t testing.TB, s semel.Store) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func ask(t testing.TB, id string) semel.Ask {
	t.Helper()
	p, err := semel.Policy{Wait: time.Millisecond, ClaimWithin: 50 * time.Millisecond}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	return semel.Ask{Key: semel.Key{Scope: "tenant", ID: id}, Fingerprint: semel.FingerprintOf([]byte(id)), Policy: &p}
}

// nonces makes each write's own.
type nonces struct{ n atomic.Uint64 }

func (n *nonces) pending(id string) semel.Record {
	key := semel.Key{Scope: "tenant", ID: id}
	r := semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(id)), State: semel.Pending,
		Attempt: 1, TTL: time.Minute, Key: key, Owner: "host-1:4711",
	}
	binary.BigEndian.PutUint64(r.Nonce[:], n.n.Add(1))
	return r
}

func (n *nonces) done(r semel.Record, result string) semel.Record {
	r.State, r.Code, r.Result, r.TTL, r.Replay = semel.Done, 201, []byte(result), 72*time.Hour, 24*time.Hour
	binary.BigEndian.PutUint64(r.Nonce[:], n.n.Add(1))
	return r
}

// write swaps, which must succeed.
func write(t testing.TB, s semel.Store, old semel.Version, next semel.Record) semel.Reading {
	t.Helper()
	r, err := s.CompareAndSwap(context.Background(), old, next)
	if err != nil {
		t.Fatalf("CompareAndSwap over %v: %v", old, err)
	}
	return r
}

func read(t testing.TB, s semel.Store, d semel.Digest) semel.Reading {
	t.Helper()
	r, err := s.Get(context.Background(), d)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	return r
}

// settled waits for what the background does.
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

// reconciled waits until the process holds nothing locally.
func (p *process) reconciled(t testing.TB) {
	t.Helper()
	settled(t, "nothing is held locally", func() bool { return p.Stats().Local == 0 })
}

// callOf is shorter to write.
type callOf = storetest.Call
