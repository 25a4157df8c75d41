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
	// held is what the keys of the last round came to, where that is known.
	held map[semel.Digest]semel.Reading
}

// SwapMany sends the first swap of every key in one commit, judges by the
// outcome those of the same keys that come after it, and sends again what is
// left.
func (e *engine) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	m := &many{engine: e, swaps: swaps, out: make([]semel.Swapped, len(swaps)), held: map[semel.Digest]semel.Reading{}}
	for i := range swaps {
		if err := e.refuse(ctx, &swaps[i].Next); err != nil {
			m.out[i].Err = err
			continue
		}
		m.left = append(m.left, i)
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

// round takes from left the swaps that can go together, and answers those that
// lost to what the last round has written. A conflict is as true at the time of
// that round as it would be now: both lie within the call.
func (m *many) round() []int {
	var together, later []int
	size := 0
	taken := map[semel.Digest]bool{}
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
			taken[digest] = true
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
	if err == nil || errors.Is(err, semel.ErrConflict) {
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
	quarantined := !m.engine.epoch.current.Load().quarantined.IsZero()
	var inserts, updates []int
	for _, i := range together {
		switch {
		case len(together) == 1, quarantined && m.swaps[i].Old.IsZero():
			m.alone(ctx, i)
		case m.swaps[i].Old.IsZero():
			inserts = append(inserts, i)
		default:
			updates = append(updates, i)
		}
	}
	// One order for everybody, so that two batches cannot wait for each other.
	for _, list := range [...][]int{inserts, updates} {
		slices.SortFunc(list, func(a, b int) int {
			return bytes.Compare(m.swaps[a].Next.Digest[:], m.swaps[b].Next.Digest[:])
		})
	}
	if len(inserts)+len(updates) == 0 {
		return nil
	}
	answers, err := m.commit(ctx, inserts, updates)
	if errors.Is(err, errQuarantine) {
		return m.send(ctx, together)
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

// errQuarantine: a quarantine has begun since the swaps were put together, and
// each insert has to be looked at. Nothing was written.
var errQuarantine = errors.New("postgres: a quarantine has begun")

// commit sends the two statements, together, until the server has taken them.
func (m *many) commit(ctx context.Context, inserts, updates []int) ([]answer, error) {
	metas := make([][]byte, len(m.swaps))
	for _, i := range inserts {
		metas[i] = encode(&m.swaps[i].Next)
	}
	for _, i := range updates {
		metas[i] = encode(&m.swaps[i].Next)
	}
	e := m.engine
	for range tries {
		p := e.epoch.current.Load()
		var calls []call
		if len(inserts) > 0 && !p.quarantined.IsZero() {
			return nil, errQuarantine
		}
		if len(inserts) > 0 {
			calls = append(calls, call{stmtInsertMany, m.params(p, inserts, metas)})
		}
		if len(updates) > 0 {
			params := append(m.params(p, updates, metas),
				arrayBytes(oidInt8, len(updates), func(n int) []byte { return int8Bytes(int64(m.swaps[updates[n]].Old.Epoch)) }),
				arrayBytes(oidInt8, len(updates), func(n int) []byte { return int8Bytes(int64(m.swaps[updates[n]].Old.Counter)) }))
			calls = append(calls, call{stmtUpdateMany, params})
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
	next := func(n int) *semel.Record { return &m.swaps[list[n]].Next }
	array := func(oid uint32, element func(n int) []byte) []byte { return arrayBytes(oid, len(list), element) }
	return append(slices.Clip(p.params),
		array(oidBytea, func(n int) []byte { return next(n).Digest[:] }),
		array(oidInt2, func(n int) []byte { return int2Bytes(uint8(next(n).State)) }),
		array(oidInterval, func(n int) []byte { return intervalBytes(next(n).TTL) }),
		array(oidInterval, func(n int) []byte { return intervalBytes(m.engine.lease.due(m.swaps[list[n]].Old, next(n))) }),
		array(oidBytea, func(n int) []byte { return metas[list[n]] }),
		array(oidBytea, func(n int) []byte { return next(n).Result }),
	)
}

// take reads the answer to the swaps of list, which have different keys.
func (m *many) take(ctx context.Context, a *answer, list []int) {
	rows := make([]*row, len(list))
	var byDigest map[semel.Digest]int
	for i := range a.rows {
		r := &a.rows[i]
		if r.n == 0 { // an insert tells its digest in place of meta
			if byDigest == nil {
				byDigest = make(map[semel.Digest]int, len(list))
				for n, i := range list {
					byDigest[m.swaps[i].Next.Digest] = n
				}
			}
			if len(r.meta) == len(semel.Digest{}) {
				rows[byDigest[semel.Digest(r.meta)]] = r
			}
		} else if int(r.n) <= len(rows) {
			rows[r.n-1] = r
		}
	}
	marks := make(map[int]mark)
	for n, i := range list {
		one := answer{header: a.header}
		if rows[n] != nil {
			one.rows = []row{*rows[n]}
		}
		r, k, sure, err := one.outcome(m.swaps[i].Old, &m.swaps[i].Next)
		switch {
		case !sure:
			m.alone(ctx, i)
			continue
		case err == nil:
			m.engine.wrote(&r.Record)
		case errors.Is(err, semel.ErrConflict):
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
