package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres/internal/pgtx"
)

// bound is a transaction of the application's on a connection of the application's.
type bound struct {
	engine *engine
	conn   *pgx.Conn
	epoch  *epoch
	wait   time.Duration // for another's transaction
	idle   time.Duration // of the transaction; 0 leaves it as it is
	named  bool          // the connection keeps prepared statements
}

// params are the parameters of a swap; claims have one more than last swaps.
func (b *bound) params(old semel.Version, next *semel.Record) [][]byte {
	e := b.engine
	params := make([][]byte, 0, boundParams)
	params = append(params, b.epoch.params...)
	params = append(params, next.Digest[:], int2Bytes(uint8(next.State)), intervalBytes(next.TTL), intervalBytes(e.lease.due(old, next)),
		encode(next), next.Result, millis(b.wait), []byte(e.database))
	if !old.IsZero() {
		params = append(params, int8Bytes(int64(old.Epoch)), int8Bytes(int64(old.Counter)))
	}
	return params
}

// boundParams is how many parameters a swap has at most.
const boundParams = 14

func (b *bound) idling(set bool) []byte {
	if !set || b.idle <= 0 {
		return []byte{}
	}
	return millis(b.idle)
}

func millis(d time.Duration) []byte {
	return strconv.AppendInt(nil, max(1, d.Milliseconds()), 10)
}

// sent is what a round trip came to.
type sent struct {
	answer    answer
	failed    error // of the statement
	committed error // of the COMMIT, if the statement did not fail
	lost      bool  // failed or committed is not the server's word
}

// send sends a statement, and what stands before and after it, in one round trip.
// It keeps nothing of ctx, which bounds it.
func (b *bound) send(ctx context.Context, before string, s boundStatement, params [][]byte, after string) (out sent) {
	c := b.conn.PgConn()
	out.answer.alone = b.engine.barrier.alone.Load()
	p := c.StartPipeline(ctx)
	binary := []int16{binaryFormat}
	known := pgtx.PreparedOf(c)
	replies := 1
	if before != "" {
		p.SendQueryParams(before, nil, nil, nil, nil)
		replies++
	}
	if b.named {
		replies += known.Send(p, b.engine.bound[s], params, binary) - 1
	} else {
		b.engine.bound[s].SendUnnamed(p, params, binary)
	}
	if after != "" {
		p.SendQueryParams(after, nil, nil, nil, nil)
	}
	err := p.Sync()
	for range replies {
		if err != nil {
			break
		}
		var got any
		got, err = p.GetResults()
		switch got := got.(type) {
		case *pgconn.ResultReader:
			err = out.answer.readBound(got, b.epoch.number)
		case *pgconn.StatementDescription:
			known.Note(b.engine.bound[s], got)
		}
	}
	out.failed = err
	if err == nil && after != "" {
		out.committed = b.finish(p)
	}
	if closing := p.Close(); closing != nil && out.failed == nil && out.committed == nil {
		out.committed = closing
	}
	out.lost = !saidNo(errors.Join(out.failed, out.committed))
	switch {
	case isCode(out.failed, "26000"): // somebody has deallocated it
		clear(known)
	case isCode(out.failed, "42P05"): // somebody has put another connection under this one
		known.Met(b.engine.bound[s])
	}
	return out
}

// finish reads the answer to COMMIT.
func (b *bound) finish(p *pgconn.Pipeline) error {
	got, err := p.GetResults()
	if r, ok := got.(*pgconn.ResultReader); ok && err == nil {
		var tag pgconn.CommandTag
		if tag, err = r.Close(); err == nil && tag.String() != "COMMIT" {
			err = &pgconn.PgError{Severity: "ERROR", Code: "25P02", Message: "the server answered COMMIT with " + tag.String()}
		}
	}
	return err
}

// saidNo tells whether err is the server's own word that it has refused: what
// ends a connection may come after the commit.
func saidNo(err error) bool {
	var said *pgconn.PgError
	return err == nil || errors.As(err, &said) && said.SeverityUnlocalized != "FATAL" && said.SeverityUnlocalized != "PANIC" &&
		said.Severity != "FATAL" && said.Severity != "PANIC"
}

func isCode(err error, code string) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && said.Code == code
}

// errOther: the transaction is not where the store is.
var errOther = errors.New("postgres: the transaction is in another database or at another server than the store: a key and its effect have to be in the same one")

// errUndoneHere: nothing was written, and the same may succeed in another transaction.
func errUndoneHere(err error) error { return errors.Join(semel.ErrUndone, err) }

// take gives the error of a statement that is not the last: of ErrConflict and
// nil, the transaction goes on.
func (b *bound) take(err error) error {
	switch {
	case err == nil:
		return nil
	case isCode(err, "55P03"):
		return fmt.Errorf("%w: another transaction holds the key: %w", semel.ErrInProgress, err)
	case isRetriable(err), isCode(err, "26000"), isCode(err, "42P05"):
		return errUndoneHere(err)
	case isCode(err, "25006"):
		return fmt.Errorf("%w: the transaction is read only: %w", semel.ErrRejected, err)
	}
	return b.engine.explain("write in the transaction", err)
}

// get reads in the transaction what is held, after before.
func (b *bound) get(ctx context.Context, before string, digest semel.Digest) (semel.Reading, mark, error) {
	out := b.send(ctx, before, boundGet, [][]byte{digest[:], b.idling(before != "")}, "")
	if err := b.take(out.failed); err != nil {
		return semel.Reading{}, mark{}, err
	}
	a := &out.answer
	if a.first() == nil {
		return semel.Reading{Now: a.header.at}, mark{}, nil
	}
	return a.reading(a.first(), digest)
}

// readBound reads a bound statement's row.
func (a *answer) readBound(r *pgconn.ResultReader, epoch int64) error {
	var failed error
	for r.NextRow() {
		failed = a.parseBound(r.Values(), epoch)
	}
	_, err := r.Close()
	return errors.Join(err, failed)
}

// swap is CompareAndSwap in the transaction, after before. What is held is not
// yet known to be durable.
func (b *bound) swap(ctx context.Context, before string, old semel.Version, next *semel.Record) (semel.Reading, mark, error) {
	s := boundInsert
	if !old.IsZero() {
		s = boundUpdate
	}
	out := b.send(ctx, before, s, append(b.params(old, next), b.idling(before != "")), "")
	if err := b.take(out.failed); err != nil {
		return semel.Reading{}, mark{}, err
	}
	a := &out.answer
	if !a.has(flagHere) {
		return semel.Reading{}, mark{}, errOther
	}
	r, m, sure, err := a.outcome(a.first(), old, next)
	if sure {
		return r, m, err
	}
	// What was met is newer than the statement's snapshot (INVARIANTS T4).
	if r, m, err = b.get(ctx, "", next.Digest); err != nil {
		return r, m, err
	}
	if r.Record.Version == old {
		return semel.Reading{}, mark{}, errUndoneHere(errors.New("postgres: the key was met, and is gone again"))
	}
	return r, m, semel.ErrConflict
}

// commit does the last swap and commits. It does not end before the server's
// answer, and the connection is not to be used meanwhile. The error is
// semel.ErrConflict, semel.ErrUndone or semel.ErrNotDone where it is known that
// nothing was committed; then the transaction may be open still.
func (b *bound) commit(old semel.Version, next *semel.Record) (semel.Reading, error) {
	e := b.engine
	s := lastInsert
	if !old.IsZero() {
		s = lastUpdate
	}
	var heard pgtx.Ear
	if e.epoch.synchronous.Load() {
		b.conn.PgConn().Frontend().Trace(&heard, pgproto3.TracerOptions{SuppressTimestamps: true})
		defer b.conn.PgConn().Frontend().Untrace()
	}
	out := b.send(context.Background(), "", s, b.params(old, next), "COMMIT")
	err := errors.Join(out.failed, out.committed)
	switch {
	case err == nil && heard.Notice() && out.answer.has(flagSynchronous):
		return semel.Reading{}, errNotReplicated
	case err == nil:
		r, _, _, err := out.answer.outcome(out.answer.first(), old, next)
		if err != nil {
			return semel.Reading{}, errors.Join(semel.ErrInDoubt, err)
		}
		waited := out.answer.has(flagSynchronous)
		if waited {
			e.barrier.passed(uint64(out.answer.header.epoch))
		}
		e.barrier.acknowledged(out.answer.alone, waited)
		e.wrote(&r.Record)
		return r, nil
	case out.lost:
		return semel.Reading{}, fmt.Errorf("postgres: no answer to COMMIT, and nobody knows its outcome: %w", err)
	case out.failed != nil && isCode(err, "22012"): // or the server is another than when the store last looked
		ctx, cancel := context.WithTimeout(context.Background(), scopeWithin)
		defer cancel()
		if failed := e.renewEpoch(ctx, b.epoch); failed != nil {
			return semel.Reading{}, errUndoneHere(failed)
		}
		return semel.Reading{}, semel.ErrConflict
	case out.failed != nil && isCode(err, "23505"):
		return semel.Reading{}, semel.ErrConflict
	case isRetriable(err), isCode(err, "55P03"), isCode(err, "26000"), isCode(err, "42P05"):
		return semel.Reading{}, errUndoneHere(err)
	}
	return semel.Reading{}, errors.Join(semel.ErrNotDone, e.explain("commit", err))
}

// durable gives a reading on, with its error, once what it says may be relied on.
// Nothing that the transaction itself wrote may be in it.
func (b *bound) durable(ctx context.Context, r semel.Reading, m mark, mine *semel.Nonce, err error) (semel.Reading, error) {
	if m == (mark{}) || err != nil && !errors.Is(err, semel.ErrConflict) {
		return r, err
	}
	if r, failed := b.engine.settle(ctx, r, m, mine); failed != nil {
		return r, failed
	}
	return r, err
}

// visible is durable for a transaction that may have written the record itself:
// that is on no standby, whatever was confirmed meanwhile, and is not noted as if
// it were.
func (b *bound) visible(ctx context.Context, r semel.Reading, m mark, err error) (semel.Reading, error) {
	if r.Record.State == semel.Done && m.synchronous && !b.engine.barrier.known(m.xmin) {
		if failed := b.engine.confirm(ctx); failed != nil {
			return semel.Reading{}, b.engine.explain("confirm", failed)
		}
	}
	return r, err
}

// In gives the store bound to a transaction that the caller began and will end,
// for [semel.Guard.Within] with a guard of this store. A claim waits 500 ms at
// most for another's transaction. After an error the caller rolls back.
//
// tx has to be in the store's own database: another is an error, and nothing is
// written.
func In(store *Store, tx pgx.Tx) semel.Store { return &inside{store, tx} }

// inside is what In gives.
type inside struct {
	store *Store
	tx    pgx.Tx
}

var (
	_ semel.Store     = (*inside)(nil)
	_ semel.Unwrapper = (*inside)(nil)
)

// Unwrap is part of semel.Unwrapper.
func (i *inside) Unwrap() semel.Store { return i.store }

// bind gives an error if the transaction is none any more.
func (i *inside) bind() (*bound, error) {
	switch {
	case i.store == nil || i.tx == nil:
		return nil, errors.New("postgres: In needs a store and a transaction")
	case i.tx.Conn() == nil:
		return nil, errors.New("postgres: In needs a transaction that has a connection, as pgx's have")
	}
	e := i.store.engine
	b := &bound{engine: e, conn: i.tx.Conn(), epoch: e.epoch.current.Load(), wait: defaultLockWait}
	c := b.conn.PgConn()
	switch {
	case c.IsClosed():
		return nil, fmt.Errorf("%w: postgres: the connection of the transaction is closed", semel.ErrRejected)
	case c.IsBusy():
		return nil, fmt.Errorf("%w: postgres: rows of a query are still unread in the transaction: close them first", semel.ErrRejected)
	case c.TxStatus() == 'E':
		return nil, fmt.Errorf("%w: postgres: the transaction has failed already: roll it back", semel.ErrRejected)
	case c.TxStatus() != 'T':
		return nil, fmt.Errorf("%w: postgres: the transaction has ended already", semel.ErrRejected)
	}
	return b, nil
}

// Get is part of semel.Store.
func (i *inside) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	b, err := i.bind()
	if err != nil {
		return semel.Reading{}, err
	}
	r, m, err := b.get(ctx, "", digest)
	return b.visible(ctx, r, m, err)
}

// CompareAndSwap is part of semel.Store.
func (i *inside) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	b, err := i.bind()
	if err != nil {
		return semel.Reading{}, err
	}
	if err := b.engine.refuse(ctx, &next); err != nil {
		return semel.Reading{}, err
	}
	for range 2 {
		if old.IsZero() {
			if _, err := b.engine.admit(ctx, b.epoch, &next); err != nil && !errors.Is(err, semel.ErrConflict) {
				return semel.Reading{}, err
			}
		}
		var r semel.Reading
		var m mark
		r, m, err = b.swap(ctx, "", old, &next)
		if !errors.Is(err, errOther) {
			return b.visible(ctx, r, m, err)
		}
		if err := b.engine.renewEpoch(ctx, b.epoch); err != nil { // the server may have been restarted
			return semel.Reading{}, err
		}
		b.epoch = b.engine.epoch.current.Load()
	}
	return semel.Reading{}, errors.Join(semel.ErrRejected, err)
}
