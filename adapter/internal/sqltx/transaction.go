package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

const (
	// checkWithin bounds the check of a database at the start.
	checkWithin = 10 * time.Second
	// rollbackWithin bounds a rollback; a connection that takes longer is closed.
	rollbackWithin = 5 * time.Second
)

// transaction is one of a scope's. It has a connection of the pool until it
// ends.
type transaction struct {
	of    *transactor
	conn  *sql.Conn
	tx    *sql.Tx
	state *state
}

var _ semel.Transaction = (*transaction)(nil)

// Context is part of semel.Transaction.
func (x *transaction) Context(parent context.Context) context.Context {
	return context.WithValue(parent, txKey{}, x)
}

// CompareAndSwap is part of semel.Transaction.
func (x *transaction) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (r semel.Reading, err error) {
	err = on(ctx, x.tx, func(ctx context.Context, c *Conn) error {
		var err error
		r, err = x.of.dialect.CompareAndSwap(ctx, c, old, next)
		return err
	})
	return r, err
}

// Commit is part of semel.Transaction. What it waits for goes on after ctx.
func (x *transaction) Commit(ctx context.Context, last semel.Swap) (semel.Reading, error) {
	type outcome struct {
		reading semel.Reading
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		x.end(func(ctx context.Context, c *Conn) (keep bool) {
			o.reading, o.err = x.commit(ctx, c, last)
			return o.err == nil || certain(o.err) && x.undo(c)
		}, &o.err)
		done <- o
	}()
	select {
	case o := <-done:
		return o.reading, o.err
	case <-ctx.Done():
		return semel.Reading{}, fmt.Errorf("the commit was not answered yet, and nobody knows its outcome: %w", context.Cause(ctx))
	}
}

// commit is the last that is done on the connection.
func (x *transaction) commit(ctx context.Context, c *Conn, last semel.Swap) (semel.Reading, error) {
	if err := x.state.broken(); err != nil {
		if x.of.dialect.Undone(err) {
			return semel.Reading{}, errors.Join(semel.ErrUndone, err)
		}
		return semel.Reading{}, errors.Join(semel.ErrNotDone, err)
	}
	return x.of.dialect.Commit(ctx, c, last)
}

// certain tells whether err says that nothing was committed.
func certain(err error) bool {
	return errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrUndone) || errors.Is(err, semel.ErrNotDone)
}

// undo rolls back, and tells whether the connection can be used again.
func (x *transaction) undo(c *Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackWithin)
	defer cancel()
	return x.of.dialect.Rollback(ctx, c) == nil
}

// end takes the transaction from the operation, waits until no statement of it is
// under way, has last run on the connection, and gives that back to the pool, or
// closes it if last says that it is not to be kept. err is set if last could not run.
func (x *transaction) end(last func(ctx context.Context, c *Conn) (keep bool), err *error) {
	x.state.end()
	// This releases rows and statements that the operation left open. It sends
	// nothing. The error says that the operation ended it: that is noted.
	_ = x.tx.Rollback()
	failed := x.conn.Raw(func(raw any) error {
		c, ok := raw.(*Conn)
		if !ok {
			return errPlain
		}
		c.tx = nil
		c.bad = !last(context.Background(), c)
		return nil
	})
	if failed != nil { // its connection is closed, and with it the transaction has ended
		*err = errors.Join(semel.ErrNotDone, failed)
	}
	_ = x.conn.Close() // back to the pool; if that fails, the pool has closed it
}

// Rollback is part of semel.Transaction.
func (x *transaction) Rollback() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		x.end(func(_ context.Context, c *Conn) bool { return x.undo(c) }, &err)
	}()
	// A statement that the operation has left running must not hold up its answer.
	timer := time.NewTimer(rollbackWithin)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// Undone is part of semel.Transaction. An operation may give back an error of its
// own after one that the database gave.
func (x *transaction) Undone(err error) bool {
	if x.of.dialect.Undone(err) {
		return true
	}
	first := x.state.first()
	return first != nil && x.of.dialect.Undone(first)
}
