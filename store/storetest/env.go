package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// env is what a case works with: a store, its clock, and the verbs of the suite.
// The verbs check what must hold at each call, whatever the case is about.
type env struct {
	testing.TB
	maker   *Maker
	place   Place
	clock   *clock
	store   semel.Store
	ctx     context.Context
	closers []func()

	mu     sync.Mutex
	nonces uint64
}

func newEnv(t testing.TB, m *Maker) *env {
	// The minute is for a store that hangs: its call ends with an error that says so.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := &clock{at: time.Date(2031, 2, 3, 4, 5, 6, 789_012_678, time.UTC)}
	e := &env{TB: t, maker: m, clock: c, ctx: ctx, place: newPlace(t, c.now)}
	e.store = e.open()
	return e
}

// clock is the clock of the stores of one case.
type clock struct {
	mu sync.Mutex
	at time.Time
}

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

// coarsest is how coarse a store's clock may be.
const coarsest = time.Millisecond

// pass lets d pass on the store's clock.
func (e *env) pass(d time.Duration) {
	e.Helper()
	if !e.maker.RealTime {
		e.clock.move(d)
		return
	}
	end := e.now().Add(d)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !e.now().After(end) {
		select {
		case <-tick.C:
		case <-e.ctx.Done():
			e.Fatalf("the store's clock did not reach %v: %v", end, context.Cause(e.ctx))
		}
	}
}

// movable skips the case if the store's clock cannot be set.
func (e *env) movable() {
	e.Helper()
	if e.maker.RealTime {
		e.Skip("left out: the case sets the store's clock, and Maker.RealTime says that it cannot be set")
	}
}

// now is the store's clock.
func (e *env) now() time.Time {
	e.Helper()
	r, err := e.store.Get(e.ctx, semel.Digest{0: 0xAA, 31: 0x55})
	if err != nil {
		e.Fatalf("Get: %v", err)
	}
	if r.Now.IsZero() {
		e.Fatal("Get gave a Reading without Now")
	}
	return r.Now
}

// nonce is one that no other write of the case has.
func (e *env) nonce() semel.Nonce {
	e.mu.Lock()
	e.nonces++
	n := e.nonces
	e.mu.Unlock()
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("nonce"), n))
	return semel.Nonce(sum[:16])
}

// scope is the scope of the records that pending makes.
const scope = "tenant|alice|POST /charges"

// pending is a first claim on a key, with every field of a claim filled in.
func (e *env) pending(id string) semel.Record {
	return e.in(semel.Key{Scope: scope, ID: id})
}

func (e *env) in(key semel.Key) semel.Record {
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(key.ID)),
		State: semel.Pending, Nonce: e.nonce(), Attempt: 1, TTL: time.Hour,
		Key: key, Owner: "host-1:4711",
	}
}

// done is r finished with a result.
func (e *env) done(r semel.Record, result string) semel.Record {
	r.State, r.Nonce, r.Code = semel.Done, e.nonce(), 201
	r.Result, r.TTL, r.Replay = []byte(result), 72*time.Hour, 24*time.Hour
	return r
}

// complete is r finished with some result.
func (e *env) complete(r semel.Record) semel.Record { return e.done(r, "receipt") }

// released is r given up.
func (e *env) released(r semel.Record) semel.Record {
	r.State, r.Nonce, r.TTL = semel.Released, e.nonce(), 72*time.Hour
	return r
}

// heir is another owner's claim over r.
func (e *env) heir(r semel.Record) semel.Record {
	next := e.in(r.Key)
	next.Attempt, next.Owner = r.Attempt+1, "host-2:4712"
	return next
}

// renewed is r with its lease begun anew.
func (e *env) renewed(r semel.Record) semel.Record {
	r.Nonce, r.TTL = e.nonce(), 2*time.Hour
	return r
}

// expired is r with a TTL that has ended as soon as it is written.
func expired(r semel.Record) semel.Record {
	r.TTL = 0
	return r
}

// insert writes next where nothing is held.
func (e *env) insert(next semel.Record) semel.Record {
	e.Helper()
	return e.swap(semel.Version{}, next)
}

// over writes next over what it was made from.
func (e *env) over(next semel.Record) semel.Record {
	e.Helper()
	return e.swap(next.Version, next)
}

// swap writes next, which must succeed, and gives it as stored.
func (e *env) swap(old semel.Version, next semel.Record) semel.Record {
	e.Helper()
	r, err := e.store.CompareAndSwap(e.ctx, old, next)
	if err != nil {
		e.Fatalf("CompareAndSwap over %v: %v; want success", old, err)
	}
	e.written(old, next, r)
	return r.Record
}

// written checks the reading that a successful swap gave.
func (e *env) written(old semel.Version, next semel.Record, r semel.Reading) {
	e.Helper()
	if r.Record.Version.Compare(old) <= 0 {
		e.Fatalf("wrote version %v over %v: it must be greater", r.Record.Version, old)
	}
	if r.Record.WrittenAt.IsZero() || r.Now.IsZero() || r.Record.WrittenAt.After(r.Now) {
		e.Fatalf("WrittenAt %v, Now %v: both must be set, and WrittenAt not after Now", r.Record.WrittenAt, r.Now)
	}
	if !e.maker.RealTime {
		if off := e.clock.now().Sub(r.Record.WrittenAt).Abs(); off > coarsest {
			e.Fatalf("WrittenAt %v is %v off the clock that the store was given", r.Record.WrittenAt, off)
		}
	}
	next.Version, next.WrittenAt = r.Record.Version, r.Record.WrittenAt
	if d := describe(r.Record, next); d != "" {
		e.Fatalf("CompareAndSwap did not give back what it was to write:%s", d)
	}
}

// refuse tries to write next over old, which must be refused because held is
// held, and must change nothing. The zero Record means that nothing is held.
func (e *env) refuse(old semel.Version, next, held semel.Record) {
	e.Helper()
	r, err := e.store.CompareAndSwap(e.ctx, old, next)
	e.conflict(old, r, err, held)
	e.digestHolds(next.Digest, held)
}

// conflict checks the answer to a swap that had to be refused.
func (e *env) conflict(old semel.Version, r semel.Reading, err error, held semel.Record) {
	e.Helper()
	if !errors.Is(err, semel.ErrConflict) {
		e.Fatalf("CompareAndSwap over %v while %v is held: got error %v, want ErrConflict", old, held.Version, err)
	}
	if d := describe(r.Record, held); d != "" {
		e.Fatalf("the conflict did not bring what is held:%s", d)
	}
	if r.Now.IsZero() {
		e.Fatal("the conflict's Reading has no Now")
	}
}

// holds checks that Get gives want.
func (e *env) holds(want semel.Record) {
	e.Helper()
	e.digestHolds(want.Digest, want)
}

// digestHolds checks that Get gives want, the zero Record being nothing.
func (e *env) digestHolds(d semel.Digest, want semel.Record) {
	e.Helper()
	r := e.get(d)
	if diff := describe(r.Record, want); diff != "" {
		e.Fatalf("Get did not give what is held:%s", diff)
	}
}

// get reads a digest.
func (e *env) get(d semel.Digest) semel.Reading {
	e.Helper()
	r, err := e.store.Get(e.ctx, d)
	if err != nil {
		e.Fatalf("Get: %v", err)
	}
	if r.Now.IsZero() {
		e.Fatal("Get gave a Reading without Now")
	}
	return r
}

// forget writes r as finished and past its TTL and has the store drop it.
func (e *env) forget(r semel.Record) semel.Record {
	e.Helper()
	last := e.over(expired(r))
	e.drop(last)
	return last
}

// drop has the store forget what is finished and past its TTL.
func (e *env) drop(last semel.Record) {
	e.Helper()
	switch s, ok := semel.As[semel.Sweeper](e.store); {
	case ok:
		if _, err := s.Sweep(e.ctx, 1000); err != nil {
			e.Fatalf("Sweep: %v", err)
		}
	case e.maker.Forget != nil:
		e.maker.Forget(e.TB, e.store, last.Digest)
	default:
		e.Skip("left out: the store is no Sweeper, and there is no Maker.Forget")
	}
	if r := e.get(last.Digest); r.Record.Held() {
		e.Fatalf("version %v is held after its TTL ended and the store was made to forget it", r.Record.Version)
	}
}
