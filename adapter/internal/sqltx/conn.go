package sqltx

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/semelhq/semel"
)

// Conn is a connection around the driver's. Like the driver's, it is used by one
// goroutine at a time.
type Conn struct {
	fullConn
	// Local is the dialect's own, for as long as the connection lives, such as
	// statements that it has prepared. It is closed before the connection.
	Local io.Closer

	rules *Rules
	tx    *state // nil outside of transactions
	bad   bool   // not to be used again
	// checked is the store whose database the dialect found it to be of.
	checked semel.Store
}

var (
	_ fullConn                 = (*Conn)(nil)
	_ driver.Pinger            = (*Conn)(nil)
	_ driver.SessionResetter   = (*Conn)(nil)
	_ driver.Validator         = (*Conn)(nil)
	_ driver.NamedValueChecker = (*Conn)(nil)
)

// Unwrap gives the driver's connection. What is done there goes unnoticed here.
func (c *Conn) Unwrap() driver.Conn { return c.fullConn }

// Close is part of driver.Conn.
func (c *Conn) Close() error {
	var err error
	if c.Local != nil {
		err = c.Local.Close()
	}
	return errors.Join(err, c.fullConn.Close())
}

// Ping is part of driver.Pinger.
func (c *Conn) Ping(ctx context.Context) error {
	if p, ok := c.fullConn.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// ResetSession is part of driver.SessionResetter.
func (c *Conn) ResetSession(ctx context.Context) error {
	if c.bad {
		return driver.ErrBadConn
	}
	c.tx = nil
	if r, ok := c.fullConn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid is part of driver.Validator.
func (c *Conn) IsValid() bool {
	if c.bad {
		return false
	}
	v, ok := c.fullConn.(driver.Validator)
	return !ok || v.IsValid()
}

// CheckNamedValue is part of driver.NamedValueChecker. It does what database/sql
// does for drivers that have none, so that a parameter which is refused counts as
// a statement that failed.
func (c *Conn) CheckNamedValue(v *driver.NamedValue) error {
	checker, _ := c.fullConn.(driver.NamedValueChecker)
	return c.checkValue(checker, v)
}

// checkValue asks a checker about a parameter; nil is one that knows nothing.
func (c *Conn) checkValue(checker driver.NamedValueChecker, v *driver.NamedValue) error {
	err := driver.ErrSkip
	if checker != nil {
		err = checker.CheckNamedValue(v)
	}
	if err == driver.ErrSkip { //nolint:errorlint // a signal of the driver, which is never wrapped
		v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
	}
	if err == nil || err == driver.ErrRemoveArgument || c.tx == nil { //nolint:errorlint // as above
		return err
	}
	return c.tx.note(&controlled{}, err)
}

// scoped is the context key that says that a scope begins the transaction by
// itself: BeginTx then sends nothing.
type scopedKey struct{}

// Begin is part of driver.Conn.
func (c *Conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx is part of driver.ConnBeginTx.
func (c *Conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	s, _ := ctx.Value(scopedKey{}).(*state)
	if s != nil {
		s.rules, c.tx = c.rules, s
		return &tx{conn: c, state: s}, nil
	}
	inner, err := c.fullConn.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	c.tx = &state{rules: c.rules}
	return &tx{conn: c, state: c.tx, inner: inner}, nil
}

// ExecContext is part of driver.ExecerContext.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.tx == nil {
		return c.fullConn.ExecContext(ctx, query, args)
	}
	if call, _ := ctx.Value(callKey{}).(*call); call != nil && !call.seen {
		call.seen = true
		return driver.ResultNoRows, call.fn(ctx, c)
	}
	t := c.tx
	control := c.rules.control(query)
	if err := t.admit(&control); err != nil {
		return nil, err
	}
	result, err := c.fullConn.ExecContext(ctx, query, args)
	return result, t.note(&control, err)
}

// QueryContext is part of driver.QueryerContext.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.tx == nil {
		return c.fullConn.QueryContext(ctx, query, args)
	}
	t := c.tx
	control := c.rules.control(query)
	if err := t.admit(&control); err != nil {
		return nil, err
	}
	r, err := c.fullConn.QueryContext(ctx, query, args)
	if err := t.note(&control, err); err != nil {
		return nil, err
	}
	return &rows{r, t}, nil
}

// Prepare is part of driver.Conn.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext is part of driver.ConnPrepareContext.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	t := c.tx
	control := c.rules.control(query)
	if t != nil {
		if err := t.admit(&control); err != nil {
			return nil, err
		}
	}
	inner, err := c.fullConn.PrepareContext(ctx, query)
	if t != nil {
		err = t.note(&controlled{}, err)
	}
	if err != nil {
		return nil, err
	}
	full, ok := inner.(fullStmt)
	if !ok {
		return nil, errors.Join(errors.New("sqltx: the driver's statements take no contexts"), inner.Close())
	}
	return &stmt{fullStmt: full, conn: c, control: control}, nil
}

// tx is a transaction of a connection.
type tx struct {
	conn  *Conn
	state *state
	inner driver.Tx // nil if it is a scope's, which ends it by itself
}

// Commit is part of driver.Tx.
func (t *tx) Commit() error {
	if t.inner == nil {
		return t.state.ended("commit")
	}
	t.conn.tx = nil
	if err := t.state.broken(); err != nil {
		return errors.Join(err, t.inner.Rollback())
	}
	return t.inner.Commit()
}

// Rollback is part of driver.Tx.
func (t *tx) Rollback() error {
	if t.inner == nil {
		return t.state.ended("roll back")
	}
	t.conn.tx = nil
	return t.inner.Rollback()
}
