package sqltx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// Rules are what one kind of database has of its own.
type Rules struct {
	Syntax Syntax
	// Ends tells whether a statement that begins with these words, at most six, ends
	// a transaction, besides those that do so everywhere (COMMIT, END, ROLLBACK,
	// ABORT, BEGIN, START, PREPARE TRANSACTION, XA). Keywords may be in any case.
	// Default: none does.
	Ends func(words []string) bool
	// Fatal tells whether after err a savepoint does not help: the transaction, or
	// the connection, may be gone. Default: always.
	Fatal func(err error) bool
}

// Wrap gives connections around those of inner.
func Wrap(inner driver.Connector, rules Rules) driver.Connector {
	if rules.Ends == nil {
		rules.Ends = func([]string) bool { return false }
	}
	if rules.Fatal == nil {
		rules.Fatal = func(error) bool { return true }
	}
	return &connector{inner, &rules}
}

// OpenDB gives a pool of wrapped connections. It connects to nothing yet.
func OpenDB(inner driver.Connector, rules Rules) *sql.DB { return sql.OpenDB(Wrap(inner, rules)) }

type connector struct {
	inner driver.Connector
	rules *Rules
}

// Driver is part of driver.Connector.
func (c *connector) Driver() driver.Driver { return c.inner.Driver() }

// Close closes the driver's connector, if it can be closed.
func (c *connector) Close() error {
	if closer, ok := c.inner.(interface{ Close() error }); ok {
		return closer.Close()
	}
	return nil
}

// Connect is part of driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.inner.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := inner.(fullConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sqltx: the driver's connection, a %T, takes no contexts", inner), inner.Close())
	}
	return &Conn{fullConn: full, rules: c.rules}, nil
}

// fullConn is what a driver of this century offers.
type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

// call is a piece of work for the connection under a *sql.Tx. It travels in the
// context of a statement that any driver takes and that does nothing.
type call struct {
	fn   func(ctx context.Context, conn *Conn) error
	seen bool
}

type callKey struct{}

// harmless is the statement; a wrapped connection does not send it.
const harmless = "SELECT 1"

// errPlain: the *sql.DB was opened otherwise.
var errPlain = errors.New("the database was opened with a driver of its own, whose connections notice neither failed statements nor a COMMIT: open it with this package's OpenDB")

// on runs fn on the connection under tx.
func on(ctx context.Context, tx *sql.Tx, fn func(ctx context.Context, conn *Conn) error) error {
	if tx == nil {
		return errors.New("there is no transaction: it is nil")
	}
	c := &call{fn: fn}
	_, err := tx.ExecContext(context.WithValue(ctx, callKey{}, c), harmless)
	switch {
	case errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("the transaction has ended already, by a commit, a rollback or its context: %w", err)
	case err == nil && !c.seen:
		return errPlain
	}
	return err
}
