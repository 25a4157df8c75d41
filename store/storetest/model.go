package storetest

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// randomChecks: random operations, against a map that does the same.
func randomChecks() []check {
	run := func(steps, keys int) func(e *env) {
		return func(e *env) { random(e, e.seed(), steps, keys) }
	}
	return []check{
		{"300 operations on 3 keys", 0, run(300, 3)},
		{"300 operations on 12 keys", 0, run(300, 12)},
		{"a fixed walk of 300 operations", 0, func(e *env) { random(e, 1, 300, 4) }},
		{"another fixed walk of 300 operations", 0, func(e *env) { random(e, 2, 300, 4) }},
	}
}

// seed is the Maker's, or a new one.
func (e *env) seed() uint64 {
	if e.maker.Seed != 0 {
		return e.maker.Seed
	}
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		e.Fatal(err)
	}
	return binary.BigEndian.Uint64(raw[:]) >> 1
}

// model is the store as a map, and the walk through both.
type model struct {
	*env
	rand    *mathrand.Rand
	keys    int
	held    map[semel.Digest]semel.Record
	journal map[semel.Digest][]semel.Record
	seen    []semel.Version // versions that some record has had
	newest  map[semel.Digest]semel.Version
}

// random takes a walk. When a verb of env fails, the deferred line says how to
// take the same walk again.
func random(e *env, seed uint64, steps, keys int) {
	m := &model{
		env: e, rand: mathrand.New(mathrand.NewPCG(seed, uint64(keys))), keys: keys,
		held: map[semel.Digest]semel.Record{}, journal: map[semel.Digest][]semel.Record{},
		newest: map[semel.Digest]semel.Version{},
	}
	step := 0
	defer func() {
		if e.Failed() {
			e.Logf("at operation %d of %d; Maker.Seed = %d walks the same way", step, steps, seed)
		}
	}()
	for step = range steps {
		m.step()
	}
	for k := range keys {
		d := m.digest(k)
		e.digestHolds(d, m.held[d])
		if e.maker.Has&Journals != 0 && len(m.journal[d]) > 0 {
			e.history(m.journal[d]...)
		}
	}
}

func (m *model) step() {
	m.Helper()
	switch n := m.rand.IntN(100); {
	case n < 20:
		d := m.digest(m.rand.IntN(m.keys))
		m.digestHolds(d, m.held[d])
	case n < 75:
		s := m.anySwap()
		r, err := m.store.CompareAndSwap(m.ctx, s.Old, s.Next)
		m.follow(s, r, err)
	case n < 85:
		m.many()
	case n < 90:
		m.sweepAll()
	case n < 95:
		m.listSome()
	case !m.maker.RealTime:
		m.clock.move(time.Duration(m.rand.IntN(3)) * 30 * time.Minute)
	}
}

func (m *model) digest(k int) semel.Digest {
	return semel.Key{Scope: scope, ID: fmt.Sprint("k", k)}.Digest(nil)
}

// anySwap makes a swap over the right version, an old one, or none.
func (m *model) anySwap() semel.Swap {
	k := m.rand.IntN(m.keys)
	next := m.pending(fmt.Sprint("k", k))
	next.Class = semel.Class(m.rand.IntN(4))
	next.Attempt, next.Code = m.rand.IntN(5), m.rand.IntN(600)
	switch m.rand.IntN(3) {
	case 1:
		next = m.done(next, fmt.Sprint("receipt ", m.rand.IntN(1000)))
	case 2:
		next = m.released(next)
	}
	// A store that is no Sweeper may drop what is finished and past its TTL at any
	// time, which the map could not follow.
	if m.rand.IntN(3) == 0 && (next.State == semel.Pending || m.maker.Has&Sweeps != 0) {
		next = expired(next)
	}
	if m.rand.IntN(3) == 0 && m.maker.Has&Sweeps != 0 {
		next = overSoon(next)
	}
	old := m.held[next.Digest].Version
	switch n := m.rand.IntN(10); {
	case n == 0:
		old = semel.Version{}
	case n < 3 && len(m.seen) > 0:
		old = m.seen[m.rand.IntN(len(m.seen))]
	}
	return semel.Swap{Old: old, Next: next}
}

// overSoon is r with a replay that ends as soon as it is written, for the sweep to
// make a tombstone of what is done, and of nothing else.
func overSoon(r semel.Record) semel.Record {
	r.Replay = 1
	if r.State == semel.Pending {
		r.Result = []byte("memo")
	}
	return r
}

// follow checks an answer of the store and does to the map what was done.
func (m *model) follow(s semel.Swap, r semel.Reading, err error) {
	m.Helper()
	d := s.Next.Digest
	held := m.held[d]
	if held.Version != s.Old {
		m.conflict(s.Old, r, err, held)
		return
	}
	if err != nil {
		m.Fatalf("CompareAndSwap over %v: %v; want success", s.Old, err)
	}
	m.written(s.Old, s.Next, r)
	if v := r.Record.Version; v.Compare(m.newest[d]) <= 0 {
		m.Fatalf("version %v after %v", v, m.newest[d])
	}
	m.newest[d] = r.Record.Version
	m.seen = append(m.seen, r.Record.Version)
	m.held[d] = r.Record
	m.journal[d] = append(m.journal[d], r.Record)
}

func (m *model) many() {
	m.Helper()
	swaps := make([]semel.Swap, 1+m.rand.IntN(8))
	for i := range swaps {
		swaps[i] = m.anySwap()
	}
	if m.maker.Has&Batches != 0 {
		for i, s := range m.batch(swaps) {
			m.follow(swaps[i], s.Reading, s.Err)
		}
		return
	}
	for _, s := range swaps {
		r, err := m.store.CompareAndSwap(m.ctx, s.Old, s.Next)
		m.follow(s, r, err)
	}
}

// sweepAll forgets what a sweep may forget. The times in a walk are nothing or
// hours, so that the hours of a clock that cannot be set do not end in it, and what
// ends at once has ended.
func (m *model) sweepAll() {
	m.Helper()
	if m.maker.Has&Sweeps == 0 {
		return
	}
	now, n := m.passed(), 0
	var buried []semel.Digest
	for d, r := range m.held {
		switch {
		case r.State != semel.Pending && !now.Before(r.Expires()):
			delete(m.held, d)
			n++
		case r.Spent(now):
			m.held[d] = r.Tombstone()
			buried = append(buried, d)
			n++
		}
	}
	m.sweep(1000, n)
	for _, d := range buried {
		m.digestHolds(d, m.held[d])
	}
}

// passed gives a time of the store's clock at which what was to end at once has.
func (m *model) passed() time.Time {
	m.Helper()
	now := m.now()
	for _, r := range m.held {
		for r.Spent(r.WrittenAt.Add(coarsest)) && !r.Spent(now) {
			m.pass(coarsest)
			now = m.now()
		}
	}
	return now
}

func (m *model) listSome() {
	m.Helper()
	if m.maker.Has&Lists == 0 {
		return
	}
	f := semel.Filter{State: semel.State(m.rand.IntN(4)), InDoubt: m.rand.IntN(3) == 0, Limit: 1 + m.rand.IntN(2*m.keys)}
	if m.rand.IntN(3) == 0 {
		f.ID = fmt.Sprint("k", m.rand.IntN(m.keys))
	}
	if m.rand.IntN(3) == 0 {
		f.After = m.digest(m.rand.IntN(m.keys))
	}
	now := m.now()
	var want []semel.Record
	for _, r := range m.held {
		if f.Matches(&r, now) {
			want = append(want, r)
		}
	}
	slices.SortFunc(want, func(a, b semel.Record) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	m.lists(f, want[:min(len(want), f.Limit)]...)
}
