package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// call is one statement with its parameters, in binary form.
type call struct {
	statement statement
	params    [][]byte
}

// answer is what one statement came to.
type answer struct {
	rows   []row
	header row
}

func (a *answer) has(flag int16) bool { return a.header.state&flag != 0 }

// errNotReplicated: the commit's wait for a standby was cut off on the server.
var errNotReplicated = errors.New("postgres: the server gave up waiting for its standby: the write is visible there and may be lost with it")

// exec runs calls in one round trip and one transaction. If ctx ends before a
// connection is free, nothing was done. If it ends later, exec returns and the
// calls go on: a COMMIT is never cancelled (INVARIANTS T6).
func (e *engine) exec(ctx context.Context, calls ...call) ([]answer, error) {
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgres: nothing was done: %w", err)
	}
	type outcome struct {
		answers []answer
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		answers, err := e.execOn(conn, calls)
		conn.Release()
		done <- outcome{answers, err}
	}()
	select {
	case o := <-done:
		return o.answers, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("postgres: no answer yet, and nobody knows the outcome: %w", context.Cause(ctx))
	}
}

// execOn runs calls on a connection, under no context. A server that says
// nothing for too long is hung up on; nothing is cancelled by that.
func (e *engine) execOn(conn *pgxpool.Conn, calls []call) ([]answer, error) {
	c := conn.Conn().PgConn()
	before := warnings(c)
	hangUp := time.AfterFunc(e.patience, func() { _ = c.Conn().Close() }) // the reader tells
	defer hangUp.Stop()
	results := c.ExecBatch(context.Background(), e.packet(calls))
	answers := make([]answer, len(calls))
	var failed error
	n := 0
	for ; results.NextResult(); n++ {
		i := n - e.lead(calls)
		if i < 0 || i >= len(calls) {
			_, err := results.ResultReader().Close()
			failed = errors.Join(failed, err)
			continue
		}
		failed = errors.Join(failed, answers[i].read(results.ResultReader()))
	}
	err := results.Close()
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	case warnings(c) != before && (calls[0].statement == stmtBarrier || answers[0].has(flagSynchronous)):
		return nil, errNotReplicated
	}
	return answers, nil
}

// lead is how many statements go before the first call.
func (e *engine) lead(calls []call) int {
	if !e.pooled || calls[0].statement == stmtGet {
		return 0
	}
	return len(e.prelude)
}

// packet puts calls into the bytes of one round trip.
func (e *engine) packet(calls []call) *pgconn.Batch {
	b := &pgconn.Batch{}
	binary := []int16{binaryFormat}
	for _, sql := range e.prelude[:e.lead(calls)] {
		b.ExecParams(sql, nil, nil, nil, nil)
	}
	for _, c := range calls {
		if e.pooled {
			b.ExecParams(e.sql[c.statement], c.params, nil, binary, binary)
		} else {
			b.ExecPrepared(c.statement.name(), c.params, binary, binary)
		}
	}
	if e.lead(calls) > 0 {
		b.ExecParams("COMMIT", nil, nil, nil, nil)
	}
	return b
}

// binaryFormat is the protocol's number for binary parameters and columns.
const binaryFormat = 1

// read takes a statement's rows. A barrier's has none that matters.
func (a *answer) read(r *pgconn.ResultReader) error {
	var failed error
	for r.NextRow() {
		values := r.Values()
		if len(values) == 1 {
			continue
		}
		got, err := parseRow(values)
		if err != nil {
			failed = err
		}
		if got.kind == 0 {
			a.header = got
		} else {
			a.rows = append(a.rows, got)
		}
	}
	_, err := r.Close()
	return errors.Join(err, failed)
}
