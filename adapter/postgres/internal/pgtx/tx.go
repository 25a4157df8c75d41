// Package pgtx is a transaction of pgx that somebody else began and will end: the
// scope of package postgres. An operation gets it as its pgx.Tx. It notes what
// failed in it, so that the scope can tell why there is nothing to commit, and it
// refuses to be ended from inside: by Commit and Rollback, and by SQL that says so.
// Transactions within it are savepoints, as in pgx, and what fails in one that is
// rolled back counts for nothing, since PostgreSQL has undone it.
//
// What is done to the connection behind Conn is not seen here. Package postgres
// alone imports it.
package pgtx

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// ErrOwnEnd says that the operation tried to end its scope's transaction.
var ErrOwnEnd = errors.New("postgres: the operation may not end its transaction: the scope commits when the operation returns, and rolls back when it returns an error")

// Tx is the transaction. It is used by one goroutine at a time.
type Tx struct {
	conn       *pgx.Conn
	savepoints int

	mu       sync.Mutex
	closed   bool
	failure  error // the last that is not a consequence of another
	endTried error
}

var _ pgx.Tx = (*Tx)(nil)

// New gives a transaction that is open on conn.
func New(conn *pgx.Conn) *Tx { return &Tx{conn: conn} }

// Close makes every later use an error. It does not end the transaction.
func (t *Tx) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// Closed tells whether Close was called.
func (t *Tx) Closed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Failure is the last error of a statement, nil if none failed.
func (t *Tx) Failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failure
}

// EndTried is an [ErrOwnEnd] if the operation tried to end the transaction.
func (t *Tx) EndTried() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endTried
}

// note keeps err for Failure, and gives it back.
func (t *Tx) note(err error) error {
	var said *pgconn.PgError
	if err == nil || errors.As(err, &said) && said.Code == "25P02" { // a statement after the one that failed
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failure = err
	return err
}

func (t *Tx) refuse(what string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endTried = fmt.Errorf("%w (%s)", ErrOwnEnd, what)
	return t.endTried
}

// usable gives an error if the statement may not be sent.
func (t *Tx) usable(sql string) error {
	t.mu.Lock()
	closed, tried := t.closed, t.endTried
	t.mu.Unlock()
	switch {
	case closed:
		return pgx.ErrTxClosed
	case tried != nil: // as if it had ended
		return tried
	}
	if words, is := sqltx.EndsTransaction(sql, sqltx.PostgreSQL); is {
		return t.refuse(words)
	}
	return nil
}

// Commit is part of pgx.Tx, and refused.
func (t *Tx) Commit(context.Context) error { return t.refuse("Commit") }

// Rollback is part of pgx.Tx, and refused. After the scope's end it is
// pgx.ErrTxClosed, as after any other.
func (t *Tx) Rollback(context.Context) error {
	if t.Closed() {
		return pgx.ErrTxClosed
	}
	return t.refuse("Rollback")
}

// Begin is part of pgx.Tx: a savepoint.
func (t *Tx) Begin(ctx context.Context) (pgx.Tx, error) {
	t.savepoints++
	n := &nested{Tx: t, name: "sp_" + strconv.Itoa(t.savepoints)}
	_, err := t.Exec(ctx, "savepoint "+n.name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Exec is part of pgx.Tx.
func (t *Tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := t.usable(sql); err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := t.conn.Exec(ctx, sql, args...)
	return tag, t.note(err)
}

// Query is part of pgx.Tx.
func (t *Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.usable(sql); err != nil {
		return refusedRows{err}, err
	}
	inner, err := t.conn.Query(ctx, sql, args...)
	return &rows{inner, t}, t.note(err)
}

// QueryRow is part of pgx.Tx.
func (t *Tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := t.usable(sql); err != nil {
		return refusedRows{err}
	}
	return row{t.conn.QueryRow(ctx, sql, args...), t}
}

// Prepare is part of pgx.Tx.
func (t *Tx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.usable(sql); err != nil {
		return nil, err
	}
	description, err := t.conn.Prepare(ctx, name, sql)
	return description, t.note(err)
}

// CopyFrom is part of pgx.Tx.
func (t *Tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if err := t.usable(""); err != nil {
		return 0, err
	}
	n, err := t.conn.CopyFrom(ctx, table, columns, source)
	return n, t.note(err)
}

// SendBatch is part of pgx.Tx.
func (t *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := t.usable(""); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	for _, q := range b.QueuedQueries {
		if err := t.usable(q.SQL); err != nil {
			return pgx.FailedBatchResults(b, err)
		}
	}
	return &batch{t.conn.SendBatch(ctx, b), t}
}

// LargeObjects is part of pgx.Tx. It takes a savepoint to get at them.
func (t *Tx) LargeObjects() pgx.LargeObjects {
	if t.usable("") != nil {
		return pgx.LargeObjects{}
	}
	inner, err := t.conn.BeginTx(context.Background(), pgx.TxOptions{BeginQuery: "savepoint large_objects"})
	if t.note(err) != nil {
		return pgx.LargeObjects{}
	}
	return inner.LargeObjects()
}

// Conn is part of pgx.Tx. What is done to the connection itself goes past the
// scope.
func (t *Tx) Conn() *pgx.Conn { return t.conn }

// nested is a savepoint as a transaction.
type nested struct {
	*Tx
	name string
	done bool
}

// Commit is part of pgx.Tx.
func (n *nested) Commit(ctx context.Context) error { return n.end(ctx, "release savepoint ") }

// Rollback is part of pgx.Tx.
func (n *nested) Rollback(ctx context.Context) error { return n.end(ctx, "rollback to savepoint ") }

func (n *nested) end(ctx context.Context, how string) error {
	if n.done {
		return pgx.ErrTxClosed
	}
	_, err := n.Exec(ctx, how+n.name)
	n.done = true
	return err
}

// Begin is part of pgx.Tx.
func (n *nested) Begin(ctx context.Context) (pgx.Tx, error) {
	if n.done {
		return nil, pgx.ErrTxClosed
	}
	return n.Tx.Begin(ctx)
}

// Exec is part of pgx.Tx.
func (n *nested) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if n.done {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	return n.Tx.Exec(ctx, sql, args...)
}

// Query is part of pgx.Tx.
func (n *nested) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if n.done {
		return refusedRows{pgx.ErrTxClosed}, pgx.ErrTxClosed
	}
	return n.Tx.Query(ctx, sql, args...)
}

// QueryRow is part of pgx.Tx.
func (n *nested) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if n.done {
		return refusedRows{pgx.ErrTxClosed}
	}
	return n.Tx.QueryRow(ctx, sql, args...)
}
