package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/semelhq/semel"
)

// Dialect is what a scope does in a database's own words. Its methods work on
// conn.Unwrap(), the driver's connection, which nobody else uses meanwhile, and
// are called for many connections at once. They keep no context.
type Dialect interface {
	// Check is asked once for a connection and a store: an error refuses it, as one to
	// another database for example.
	Check(ctx context.Context, conn *Conn) error
	// Begin is that of semel.Transactor; after any error but semel.ErrConflict the
	// scope rolls back, or gives the connection up if that fails.
	Begin(ctx context.Context, conn *Conn, digest semel.Digest, first *semel.Swap) (semel.Reading, error)
	// Get reads in the open transaction what is held.
	Get(ctx context.Context, conn *Conn, digest semel.Digest) (semel.Reading, error)
	// CompareAndSwap is that of semel.Store, in the open transaction. In transactions
	// that a caller began, semel.ErrInProgress says that another holds the key.
	CompareAndSwap(ctx context.Context, conn *Conn, old semel.Version, next semel.Record) (semel.Reading, error)
	// Commit does the last swap and commits. ctx does not end. What did not get as far
	// as the COMMIT is certain: semel.ErrConflict, semel.ErrUndone where the database
	// undid it for another's sake, else semel.ErrNotDone. So is a COMMIT that the
	// server refused. The scope rolls back after these errors, and gives the
	// connection up after any other.
	Commit(ctx context.Context, conn *Conn, last semel.Swap) (semel.Reading, error)
	// Rollback undoes the open transaction. It may say that there is none.
	Rollback(ctx context.Context, conn *Conn) error
	// Undone is that of semel.Transaction.
	Undone(err error) bool
}

// Options are a scope's settings.
type Options struct {
	// Policy is that of Do. Its class is set to Transactional.
	Policy semel.Policy
	// Guard is for the guard that the scope makes.
	Guard semel.Options
	// OneWriter says that the database lets one transaction write at a time: the
	// store's own writes wait for an operation's end.
	OneWriter bool
}

// Scope runs operations in transactions of a database. It is safe for
// concurrent use.
type Scope struct {
	guard      *semel.Guard
	policy     semel.Policy
	transactor *transactor
}

// New gives a scope over db, whose connections have to be wrapped, and a guard
// for it. store lives in the same database. Errors do not name the package.
func New(db *sql.DB, store semel.Store, d Dialect, o Options) (*Scope, error) {
	if db == nil || store == nil {
		return nil, errors.New("a scope needs a store and a *sql.DB")
	}
	o.Policy.Class = semel.Transactional
	policy, err := o.Policy.Filled()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkWithin)
	defer cancel()
	t := &transactor{Store: store, db: db, dialect: d, oneWriter: o.OneWriter}
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := conn.Close(); err != nil {
		return nil, err
	}
	guard, err := semel.NewGuard(t, o.Guard)
	if err != nil {
		return nil, err
	}
	return &Scope{guard, policy, t}, nil
}

// Guard gives the scope's guard.
func (s *Scope) Guard() *semel.Guard { return s.guard }

// Policy gives the scope's policy, filled in.
func (s *Scope) Policy() semel.Policy { return s.policy }

// Do runs fn once for the key.
func (s *Scope) Do(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn func(ctx context.Context, tx *sql.Tx) (semel.Result, error)) (semel.Answer, error) {
	if err := s.transactor.nested(ctx); err != nil {
		return semel.Answer{}, err
	}
	ask := semel.Ask{Key: key, Fingerprint: fp, Policy: &s.policy}
	return s.guard.Do(ctx, ask, func(ctx context.Context) (semel.Result, error) {
		tx, ok := TxFrom(ctx)
		if !ok {
			return semel.Result{}, errors.New("sqltx: the claim came without its transaction")
		}
		return fn(ctx, tx)
	})
}

// txKey is the context key of an operation's transaction.
type txKey struct{}

// TxFrom gives the transaction of the operation whose context ctx is.
func TxFrom(ctx context.Context) (*sql.Tx, bool) {
	x, ok := ctx.Value(txKey{}).(*transaction)
	if !ok {
		return nil, false
	}
	return x.tx, true
}

// transactor is a store that begins transactions in db.
type transactor struct {
	semel.Store
	db        *sql.DB
	dialect   Dialect
	oneWriter bool
}

var (
	_ semel.Transactor = (*transactor)(nil)
	_ semel.Unwrapper  = (*transactor)(nil)
)

// Unwrap is part of semel.Unwrapper.
func (t *transactor) Unwrap() semel.Store { return t.Store }

// OneWriter tells the guard that no step's record can be written while an operation
// runs.
func (t *transactor) OneWriter() bool { return t.oneWriter }

// nested refuses a scope inside of another's operation in the same database. Under
// the same key it would wait for itself.
func (t *transactor) nested(ctx context.Context) error {
	if outer, _ := ctx.Value(txKey{}).(*transaction); outer == nil || outer.of.db != t.db {
		return nil
	}
	return fmt.Errorf("%w: a scope inside of another's operation would need a second connection and commit on its own: "+
		"take Guard.Within with the transaction that there is, or a step", semel.ErrRejected)
}

// connect takes a connection out of the pool.
func (t *transactor) connect(ctx context.Context) (*sql.Conn, error) {
	conn, err := t.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("no connection could be had from the pool, and nothing was done: %w", err)
	}
	err = conn.Raw(func(raw any) error {
		c, ok := raw.(*Conn)
		if !ok {
			return errPlain
		}
		return c.check(ctx, t.Store, t.dialect)
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// check asks the dialect about the connection, unless it has done so.
func (c *Conn) check(ctx context.Context, store semel.Store, d Dialect) error {
	if c.checked == store {
		return nil
	}
	err := d.Check(ctx, c)
	if err == nil {
		c.checked = store
	}
	return err
}

// Begin is part of semel.Transactor.
func (t *transactor) Begin(ctx context.Context, digest semel.Digest, first *semel.Swap) (semel.Transaction, semel.Reading, error) {
	if err := t.nested(ctx); err != nil {
		return nil, semel.Reading{}, err
	}
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, semel.Reading{}, err
	}
	x := &transaction{of: t, conn: conn, state: &state{scoped: true, keyed: true}}
	// The transaction outlives ctx, whose room is used again.
	x.tx, err = conn.BeginTx(context.WithValue(context.Background(), scopedKey{}, x.state), nil)
	if err != nil {
		return nil, semel.Reading{}, errors.Join(err, conn.Close())
	}
	var r semel.Reading
	err = on(ctx, x.tx, func(ctx context.Context, c *Conn) error {
		var err error
		r, err = t.dialect.Begin(ctx, c, digest, first)
		return err
	})
	if err != nil && !errors.Is(err, semel.ErrConflict) {
		x.Rollback()
		return nil, semel.Reading{}, err
	}
	return x, r, err
}
