package mysql

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/semelhq/semel"
)

// InnoDB shows a transaction to others before it flushes the redo log for it. A
// server that is killed in between takes back what others have read already. So
// what a caller relies on is handed out only once it is known to be on disk
// (INVARIANTS S14): because its COMMIT was answered here, or because a commit of
// our own, which began after the reading, was. There is one redo log, and a flush
// of it takes along all that was written before.
//
// Where the server has a binary log, a commit is in that, flushed as it is set to
// be, before others see it: then there is nothing to make sure of.

// sqlFlush is that commit. One that changed nothing would flush nothing.
const sqlFlush = "UPDATE semel_flush SET n=n+1 WHERE id=1;SELECT ROW_COUNT()"

const errNoFlush = refused("the table semel_flush has lost its row, with which the store makes sure that what it reads is on the disk;" +
	" INSERT INTO semel_flush (id, n) VALUES (1, 0), and try again")

// met is semel.ErrConflict with the server that the reading beside it is from.
type met struct{ run [16]byte }

func (m met) Error() string { return semel.ErrConflict.Error() }

// Unwrap has errors.Is find semel.ErrConflict.
func (m met) Unwrap() error { return semel.ErrConflict }

// settle returns once a record that was read, and is committed, may be relied on:
// an answer, or a write of the caller's own that it met. run is the server that the
// record is from, mine the nonce of the caller's write, nil for a reader. The caller
// has no connection of the pool.
func (e *engine) settle(ctx context.Context, r *semel.Record, run [16]byte, mine *semel.Nonce) error {
	if !e.doubtful(r, run, mine) {
		return nil
	}
	on, err := e.flushed(ctx)
	if err = e.covers(on, run, err); err == nil {
		e.known.note(run, r)
	}
	return err
}

// visible is settle for a record that the transaction may have written itself
// that it was read in: that is not noted as if it were committed.
func (e *engine) visible(ctx context.Context, r *semel.Record, run [16]byte, mine *semel.Nonce) error {
	if !e.doubtful(r, run, mine) {
		return nil
	}
	on, err := e.flushed(ctx)
	return e.covers(on, run, err)
}

// settleAll settles the conflicts among the answers to swaps, with one commit.
func (e *engine) settleAll(ctx context.Context, swaps []semel.Swap, out []semel.Swapped) {
	var on [16]byte
	var failed error
	asked := false
	for i := range out {
		var from met
		if !errors.As(out[i].Err, &from) {
			continue
		}
		out[i].Err = semel.ErrConflict
		r := &out[i].Reading.Record
		if !e.doubtful(r, from.run, &swaps[i].Next.Nonce) {
			continue
		}
		if !asked {
			on, failed = e.flushed(ctx)
			asked = true
		}
		if err := e.covers(on, from.run, failed); err != nil {
			out[i] = semel.Swapped{Err: err}
			continue
		}
		e.known.note(from.run, r)
	}
}

// doubtful tells whether a caller will rely on a record, and it takes a commit to
// know that it may. A store for reading only cannot make one.
func (e *engine) doubtful(r *semel.Record, run [16]byte, mine *semel.Nonce) bool {
	relied := r.State == semel.Done || mine != nil && !r.Version.IsZero() && r.Nonce == *mine
	if e.options.ReadOnly || !relied {
		return false
	}
	if ep := e.epoch.Load(); ep != nil && ep.logged && ep.run == run {
		return false
	}
	return !e.known.has(run, r)
}

// wrote notes a record whose COMMIT was answered.
func (e *engine) wrote(ep *epoch, r *semel.Record) {
	if r.State == semel.Done && !ep.logged {
		e.known.note(ep.run, r)
	}
}

// flushed returns once all that was visible when it was called is on the disk of
// the server that it tells.
func (e *engine) flushed(ctx context.Context) (on [16]byte, err error) {
	return e.flushes.Wait(ctx, e.flush)
}

func (e *engine) flush() (on [16]byte, err error) {
	ctx, cancel := e.apart(context.Background())
	defer cancel()
	err = e.with(ctx, func(s *session) error {
		on = s.run
		changed := false
		err := s.each(ctx, sqlFlush, func(_ int, row []driver.Value) { changed = unsigned(row[0]) == 1 })
		if err == nil && !changed {
			err = errNoFlush
		}
		return err
	})
	return on, err
}

// covers tells whether a flush, with its error, is one for what was read from the
// server run: another has its own log, and so has the same one after a restart.
func (e *engine) covers(on, run [16]byte, err error) error {
	switch {
	case err == nil && on == run:
		return nil
	case err == nil:
		err = errors.New("the server was restarted or replaced after the reading")
	case errors.Is(err, errNoFlush):
		return err
	default:
		err = e.address.explain("flush the log", err)
	}
	return fmt.Errorf("mysql: the record was read, but is not known to be on the server's disk, and may be gone after a crash; it is not handed out; try again: %w", err)
}

// logged tells whether what is committed on the server is in its binary log
// before others see it. A filter may keep the database out of that: MariaDB tells
// whether it has logged a commit, of MySQL it is taken for granted.
func (s *session) logged(ctx context.Context) (bool, error) {
	if !s.facts.is("log_bin") || !s.facts.mariadb() {
		return s.facts.is("log_bin"), nil
	}
	logged := false
	err := s.each(ctx, sqlFlush+",@@last_gtid<>''", func(_ int, row []driver.Value) { logged = unsigned(row[1]) == 1 })
	return logged, err
}

// maxKnown is how many records are known to be on disk at most.
const maxKnown = 4096

// known are records of one server that are known to be on its disk: those that
// came last, one for each place that a digest may have. It is safe for concurrent use.
type known struct {
	mu  sync.Mutex
	run [16]byte
	at  []mark // made at the first note
}

// mark is a record as it was written once.
type mark struct {
	digest  semel.Digest
	version semel.Version
}

func markOf(r *semel.Record) mark { return mark{r.Digest, r.Version} }

// place is where a mark may be. Digests are hashes: any part of them will do.
func (m *mark) place() int { return int(binary.BigEndian.Uint32(m.digest[:])) % maxKnown }

// note notes that a record is on the disk of a server. What was noted for another
// server is forgotten.
func (k *known) note(run [16]byte, r *semel.Record) {
	m := markOf(r)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at == nil || k.run != run {
		k.run, k.at = run, make([]mark, maxKnown)
	}
	k.at[m.place()] = m
}

// has tells whether that was noted.
func (k *known) has(run [16]byte, r *semel.Record) bool {
	m := markOf(r)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.run == run && k.at != nil && k.at[m.place()] == m
}
