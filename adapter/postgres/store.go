package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// Get is part of semel.Store. It asks the primary and waits for no writer.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	return s.engine.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store. What it answers without an error is on
// the server's disk, and on a standby's if commits wait for one.
//
// It is one round trip. A duplicate writes nothing and locks nothing. If ctx ends
// before a connection is free, nothing is written; if it ends later, the commit
// goes on and nobody knows its outcome.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.batch == nil {
		return s.engine.CompareAndSwap(ctx, old, next)
	}
	return s.batch.CompareAndSwap(ctx, old, next)
}

// SwapMany is part of semel.Batcher: one transaction, past the batch that
// collects single swaps.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	return s.engine.SwapMany(ctx, swaps)
}

// tries bounds what is repeated because it is known that nothing was written:
// a row that was met and is gone again, a server that turned out to be another,
// a deadlock.
const tries = 5

// Get reads what is held. A record that is done is on the standby when it is
// handed out.
func (e *engine) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	r, mark, err := e.read(ctx, digest)
	if err != nil {
		return r, err
	}
	return e.settle(ctx, r, mark, nil)
}

func (e *engine) read(ctx context.Context, digest semel.Digest) (semel.Reading, mark, error) {
	if err := ended(ctx); err != nil {
		return semel.Reading{}, mark{}, err
	}
	answers, err := e.exec(ctx, call{stmtGet, [][]byte{digest[:]}})
	if err != nil {
		return semel.Reading{}, mark{}, e.explain("read", err)
	}
	a := &answers[0]
	if a.has(flagStandby) {
		return semel.Reading{}, mark{}, e.explain("read", errStandby)
	}
	if len(a.rows) == 0 {
		return semel.Reading{Now: a.header.at}, mark{}, nil
	}
	return a.reading(&a.rows[0], digest)
}

// mark is what the barrier has to know of a record that was read.
type mark struct {
	xmin        uint32
	synchronous bool
}

// reading decodes what is held.
func (a *answer) reading(r *row, digest semel.Digest) (semel.Reading, mark, error) {
	record, err := r.record(digest)
	if err != nil {
		return semel.Reading{}, mark{}, damaged(digest, err)
	}
	return semel.Reading{Record: record, Now: a.header.at}, mark{r.xmin, a.has(flagSynchronous)}, nil
}

// settle makes sure that what is handed out is durable: an answer, or a write of
// the caller's own that it is about to rely on. mine is the nonce of the
// caller's write, nil for a reader.
func (e *engine) settle(ctx context.Context, r semel.Reading, m mark, mine *semel.Nonce) (semel.Reading, error) {
	final := r.Record.State == semel.Done || mine != nil && r.Record.Nonce == *mine
	if !final || !m.synchronous || e.barrier.known(m.xmin) {
		return r, nil
	}
	if err := e.confirm(ctx); err != nil {
		return semel.Reading{}, e.explain("confirm", err)
	}
	e.barrier.confirmed(m.xmin)
	return r, nil
}

// CompareAndSwap is the swap as a statement of its own.
func (e *engine) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if err := e.refuse(ctx, &next); err != nil {
		return semel.Reading{}, err
	}
	meta := encode(&next)
	for range tries {
		p := e.epoch.current.Load()
		if old.IsZero() { // each time: that the epoch moved may have begun a quarantine
			if r, err := e.admit(ctx, p, &next); err != nil {
				return r, err
			}
		}
		answers, err := e.exec(ctx, e.single(p, old, &next, meta))
		again, err := e.again(ctx, p, answers, err)
		if err != nil {
			return semel.Reading{}, e.explain("write", err)
		}
		if again {
			continue
		}
		r, m, sure, err := answers[0].outcome(answers[0].first(), old, &next)
		if sure && err == nil {
			e.wrote(&r.Record)
			return r, nil
		}
		if !sure { // what was met is newer than the snapshot: a read after it proves the row (INVARIANTS T4)
			if r, m, err = e.read(ctx, next.Digest); err != nil {
				return semel.Reading{}, err
			}
			if r.Record.Version == old {
				continue // and gone again, or back
			}
			err = semel.ErrConflict
		}
		if !errors.Is(err, semel.ErrConflict) {
			return semel.Reading{}, err
		}
		if r, failed := e.settle(ctx, r, m, &next.Nonce); failed != nil {
			return r, failed
		}
		return r, err
	}
	return semel.Reading{}, errBusy
}

// errBusy: nothing was written, several times over.
var errBusy = errors.New("postgres: the key changed hands at each of 5 attempts; nothing was written")

// refuse gives the error of a write that is not tried at all.
func (e *engine) refuse(ctx context.Context, next *semel.Record) error {
	if len(next.Result) > maxResult || len(next.Key.ID)+len(next.Key.Scope)+len(next.Owner) > maxResult {
		return fmt.Errorf("%w: PostgreSQL holds %d bytes at most in a value, and the result has %d", semel.ErrRejected, maxResult, len(next.Result))
	}
	return ended(ctx)
}

// single is the statement of one swap.
func (e *engine) single(p *epoch, old semel.Version, next *semel.Record, meta []byte) call {
	params := append(slices.Clip(p.params), next.Digest[:], int2Bytes(uint8(next.State)),
		intervalBytes(next.TTL), intervalBytes(e.lease.due(old, next)), meta, next.Result)
	if old.IsZero() {
		return call{stmtInsert, params}
	}
	return call{stmtUpdate, append(params, int8Bytes(int64(old.Epoch)), int8Bytes(int64(old.Counter)))}
}

// again tells whether nothing was written and the same should be sent once
// more: the server was another, or it picked the statement as a deadlock's victim.
func (e *engine) again(ctx context.Context, p *epoch, answers []answer, err error) (bool, error) {
	if err != nil {
		return isRetriable(err), onlyIf(!isRetriable(err), err)
	}
	wrote := false
	for i := range answers {
		if !answers[i].has(flagHere) {
			return true, e.renewEpoch(ctx, p)
		}
		for r := range answers[i].rows {
			wrote = wrote || answers[i].rows[r].kind == 1
		}
	}
	if wrote { // only then the commit has waited
		waited := answers[0].has(flagSynchronous)
		if waited {
			e.barrier.passed(uint64(answers[0].header.epoch))
		}
		e.barrier.acknowledged(answers[0].alone, waited)
		if waited != e.epoch.synchronous.Load() {
			select {
			case e.untidy <- struct{}{}:
			default:
			}
		}
	}
	return false, nil
}

func onlyIf(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

// outcome reads what one swap came to; got is nil if the answer has no row for
// it. It is not sure if the statement met a row that its snapshot does not show.
func (a *answer) outcome(got *row, old semel.Version, next *semel.Record) (r semel.Reading, m mark, sure bool, err error) {
	r.Now = a.header.at
	if got == nil {
		return r, m, !old.IsZero(), semel.ErrConflict
	}
	if got.kind == 1 {
		r.Record = written(next, got)
		return r, m, true, nil
	}
	if got.version() == old {
		return r, m, false, nil
	}
	r, m, err = a.reading(got, next.Digest)
	if err == nil {
		err = semel.ErrConflict
	}
	return r, m, true, err
}

// written is next as the server has stored it.
func written(next *semel.Record, r *row) semel.Record {
	record := *next
	record.Version, record.WrittenAt = r.version(), r.at
	return record
}

// wrote is told every record that was written.
func (e *engine) wrote(r *semel.Record) {
	e.lease.note(r)
	if e.changed != nil {
		e.changed(r.Digest, r.State)
	}
}

// typical is how long it takes until finished records are due here, as last seen.
// A claim is given that as the time when the sweeper shall look at it, so that its
// completion need not move it in the sweeper's index.
type typical struct {
	ttl atomic.Int64
	// swept: nothing is due before this, in Unix microseconds, but what came late. The
	// index has dead entries there until the next vacuum.
	swept atomic.Int64
}

func (t *typical) note(r *semel.Record) {
	if due := untilDue(r); r.State == semel.Done && due < 10*365*24*time.Hour {
		t.ttl.Store(int64(due))
	}
}

// due is when, from the write on, the sweeper shall look at next.
func (t *typical) due(old semel.Version, next *semel.Record) time.Duration {
	switch {
	case next.State != semel.Pending:
		return untilDue(next)
	case old.IsZero():
		return time.Duration(t.ttl.Load())
	}
	return math.MaxInt64 // as it was
}

// untilDue is how long after its write the sweeper has something to do with r,
// which is finished: to make a tombstone of it, or to forget it.
func untilDue(r *semel.Record) time.Duration {
	if r.State == semel.Done && r.Replay > 0 {
		return min(r.Replay, r.TTL)
	}
	return r.TTL
}
