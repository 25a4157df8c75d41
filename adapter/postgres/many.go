package postgres

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/semelhq/semel"
)

// Bounds of one statement of many swaps.
const (
	maxSwaps      = 1000
	maxSwapsBytes = 64 << 20
)

// many is one call of SwapMany.
type many struct {
	engine *engine
	swaps  []semel.Swap
	out    []semel.Swapped
	left   []int // which are not answered yet, in their order
	// held is what the keys of the last round came to, where that is known. It is nil
	// if every key comes once.
	held map[semel.Digest]semel.Reading
}

// SwapMany sends the first swap of every key in one commit, judges by the
// outcome those of the same keys that come after it, and sends again what is
// left.
func (e *engine) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	m := &many{engine: e, swaps: swaps, out: make([]semel.Swapped, len(swaps)), left: make([]int, 0, len(swaps))}
	for i := range swaps {
		if err := e.refuse(ctx, &swaps[i].Next); err != nil {
			m.out[i].Err = err
			continue
		}
		m.left = append(m.left, i)
	}
	if m.repeats() {
		m.held = map[semel.Digest]semel.Reading{}
	}
	for len(m.left) > 0 {
		if err := m.send(ctx, m.round()); err != nil {
			for _, i := range m.left {
				m.out[i].Err = err
			}
			break
		}
	}
	return m.out
}

// byDigest puts swaps into the one order that everybody's batches have, so that
// no two wait for each other.
func (m *many) byDigest(list []int) {
	slices.SortStableFunc(list, func(a, b int) int {
		return bytes.Compare(m.swaps[a].Next.Digest[:], m.swaps[b].Next.Digest[:])
	})
}

// repeats tells whether a key comes more than once.
func (m *many) repeats() bool {
	list := slices.Clone(m.left)
	m.byDigest(list)
	for n := 1; n < len(list); n++ {
		if m.swaps[list[n]].Next.Digest == m.swaps[list[n-1]].Next.Digest {
			return true
		}
	}
	return false
}

// round takes from left the swaps that can go together, and answers those that
// lost to what the last round has written. A conflict is as true at the time of
// that round as it would be now: both lie within the call.
func (m *many) round() []int {
	var later []int
	together := make([]int, 0, len(m.left))
	size := 0
	var taken map[semel.Digest]bool
	if m.held != nil {
		taken = map[semel.Digest]bool{}
	}
	for _, i := range m.left {
		swap := &m.swaps[i]
		digest := swap.Next.Digest
		held, known := m.held[digest]
		switch {
		case known && !taken[digest] && swap.Old != held.Record.Version:
			m.out[i] = semel.Swapped{Reading: held, Err: semel.ErrConflict}
		case taken[digest] || len(together) == maxSwaps || len(together) > 0 && size > maxSwapsBytes:
			later = append(later, i)
		default:
			if taken != nil {
				taken[digest] = true
			}
			size += len(swap.Next.Result)
			together = append(together, i)
		}
	}
	m.left = later
	clear(m.held)
	return together
}

// answered notes what a swap came to.
func (m *many) answered(i int, r semel.Reading, err error) {
	m.out[i] = semel.Swapped{Reading: r, Err: err}
	if m.held != nil && (err == nil || errors.Is(err, semel.ErrConflict)) {
		m.held[m.swaps[i].Next.Digest] = r
	}
}

// alone sends one swap as a statement of its own.
func (m *many) alone(ctx context.Context, i int) {
	r, err := m.engine.CompareAndSwap(ctx, m.swaps[i].Old, m.swaps[i].Next)
	m.answered(i, r, err)
}

// send has swaps of different keys written in one commit. Its error is that of
// everything that is not sent yet.
func (m *many) send(ctx context.Context, together []int) error {
	if err := ended(ctx); err != nil {
		for _, i := range together {
			m.out[i].Err = err
		}
		return err
	}
	var inserts, updates []int
	for _, i := range together {
		switch {
		case len(together) == 1:
			m.alone(ctx, i)
		case m.swaps[i].Old.IsZero():
			inserts = append(inserts, i)
		default:
			updates = append(updates, i)
		}
	}
	m.byDigest(inserts)
	m.byDigest(updates)
	if len(inserts)+len(updates) == 0 {
		return nil
	}
	answers, err := m.commit(ctx, inserts, updates)
	if errors.Is(err, errOneByOne) {
		for _, i := range together {
			m.alone(ctx, i)
		}
		return nil
	}
	if err != nil {
		for _, i := range append(inserts, updates...) {
			m.out[i].Err = err
		}
		return err
	}
	if len(inserts) > 0 {
		m.take(ctx, &answers[0], inserts)
		answers = answers[1:]
	}
	if len(updates) > 0 {
		m.take(ctx, &answers[0], updates)
	}
	return nil
}

// errOneByOne: each insert has to be admitted by itself.
var errOneByOne = errors.New("postgres: unknown keys are in quarantine")

// commit sends the two statements, together, until the server has taken them.
func (m *many) commit(ctx context.Context, inserts, updates []int) ([]answer, error) {
	metas := make([][]byte, len(m.swaps))
	for _, list := range [...][]int{inserts, updates} {
		for _, i := range list {
			metas[i] = encode(&m.swaps[i].Next)
		}
	}
	e := m.engine
	for range tries {
		p := e.epoch.current.Load() // which may be another than a moment ago
		if len(inserts) > 0 && !p.quarantined.IsZero() {
			return nil, errOneByOne
		}
		var calls []call
		if len(inserts) > 0 {
			calls = append(calls, call{stmtInsertMany, m.params(p, inserts, metas)})
		}
		if len(updates) > 0 {
			epochs, counters := array(oidInt8, len(updates), 8*len(updates)), array(oidInt8, len(updates), 8*len(updates))
			for _, i := range updates {
				epochs, counters = appendInt8(epochs, m.swaps[i].Old.Epoch), appendInt8(counters, m.swaps[i].Old.Counter)
			}
			calls = append(calls, call{stmtUpdateMany, append(m.params(p, updates, metas), epochs, counters)})
		}
		answers, err := e.exec(ctx, calls...)
		again, err := e.again(ctx, p, answers, err)
		if err != nil {
			return nil, e.explain("write", err)
		}
		if !again {
			return answers, nil
		}
	}
	return nil, errBusy
}

// params are those that inserts and updates have in common.
func (m *many) params(p *epoch, list []int, metas [][]byte) [][]byte {
	n, sizeMeta, sizeResult := len(list), 0, 0
	for _, i := range list {
		sizeMeta += len(metas[i])
		sizeResult += len(m.swaps[i].Next.Result)
	}
	digests, states := array(oidBytea, n, n*len(semel.Digest{})), array(oidInt2, n, 2*n)
	ttls, dues := array(oidInterval, n, 16*n), array(oidInterval, n, 16*n)
	all, results := array(oidBytea, n, sizeMeta), array(oidBytea, n, sizeResult)
	for _, i := range list {
		next := &m.swaps[i].Next
		digests = appendBytes(digests, next.Digest[:])
		states = appendInt2(states, uint8(next.State))
		ttls = appendInterval(ttls, next.TTL)
		dues = appendInterval(dues, m.engine.lease.due(m.swaps[i].Old, next))
		all = appendBytes(all, metas[i])
		results = appendBytes(results, next.Result)
	}
	return append(slices.Clip(p.params), digests, states, ttls, dues, all, results)
}

// take reads the answer to the swaps of list, which have different keys.
func (m *many) take(ctx context.Context, a *answer, list []int) {
	rows := make([]*row, len(list))
	next := 0
	for i := range a.rows {
		r := &a.rows[i]
		if r.n > 0 && int(r.n) <= len(rows) {
			rows[r.n-1] = r
			continue
		}
		// An insert tells its digest in place of meta, and comes in the order of list,
		// less those that met another.
		for n := range len(list) {
			at := (next + n) % len(list)
			if bytes.Equal(m.swaps[list[at]].Next.Digest[:], r.meta) {
				rows[at], next = r, at+1
				break
			}
		}
	}
	var marks map[int]mark
	for n, i := range list {
		r, k, sure, err := a.outcome(rows[n], m.swaps[i].Old, &m.swaps[i].Next)
		switch {
		case !sure:
			m.alone(ctx, i)
			continue
		case err == nil:
			m.engine.wrote(&r.Record)
		case errors.Is(err, semel.ErrConflict):
			if marks == nil {
				marks = map[int]mark{}
			}
			marks[i] = k
		}
		m.answered(i, r, err)
	}
	for i, k := range marks { // the first that asks the standby asks for all
		if _, err := m.engine.settle(ctx, m.out[i].Reading, k, &m.swaps[i].Next.Nonce); err != nil {
			m.answered(i, semel.Reading{}, err)
			delete(m.held, m.swaps[i].Next.Digest)
		}
	}
}
