package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres/internal/pgtx"
)

// ScopeOptions are a scope's settings. The zero value is usable.
type ScopeOptions struct {
	// Policy is that of Do, and of handlers that take it from Scope.Policy. Its class
	// is set to [semel.Transactional]. A transaction that is idle for longer than its
	// Lease is ended by the server.
	Policy semel.Policy
	// Guard is for the guard that the scope makes.
	Guard semel.Options
	// Tx says how transactions begin. Default: as the database has it, which is READ
	// COMMITTED unless somebody changed that. A scope is right at every level; above
	// READ COMMITTED more transactions are undone and run again. Read only ones,
	// BeginQuery and CommitQuery are refused.
	Tx pgx.TxOptions
	// LockWait is how long a request holds a connection while another transaction has
	// its key. Then it polls without one, up to the policy's Wait, and is told at last
	// that the operation is in progress. Default 500 ms.
	LockWait time.Duration
}

// Scope runs operations in transactions of the application's own database, in
// which the store is, too: key, answer and what the operation writes are committed
// together, or not at all. It is safe for concurrent use.
type Scope struct {
	guard      *semel.Guard
	policy     semel.Policy
	transactor *transactor
}

// scopeWithin bounds NewScope.
const scopeWithin = 10 * time.Second

// NewScope gives a scope over the application's pool, after it has tried it: the
// pool's user needs the rights on the store's tables that Open asks for. It
// does not close the pool, nor the store.
func NewScope(store *Store, pool *pgxpool.Pool, o ScopeOptions) (*Scope, error) {
	switch {
	case store == nil || pool == nil:
		return nil, errors.New("postgres: a scope needs a store and a pool")
	case o.Tx.AccessMode == pgx.ReadOnly:
		return nil, errors.New("postgres: a scope writes its key, so its transactions cannot be read only")
	case o.Tx.BeginQuery != "" || o.Tx.CommitQuery != "":
		return nil, errors.New("postgres: a scope begins and commits by itself: leave BeginQuery and CommitQuery out")
	}
	begin, err := beginSQL(o.Tx)
	if err != nil {
		return nil, err
	}
	o.Policy.Class = semel.Transactional
	policy, err := o.Policy.Filled()
	if err != nil {
		return nil, err
	}
	if o.LockWait <= 0 {
		o.LockWait = defaultLockWait
	}
	t := &transactor{Store: store, pool: pool, begin: begin, wait: o.LockWait, idle: policy.Lease}
	switch pool.Config().ConnConfig.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe:
		t.named = true
	}
	if err := t.try(); err != nil {
		return nil, err
	}
	guard, err := semel.NewGuard(t, o.Guard)
	if err != nil {
		return nil, err
	}
	return &Scope{guard, policy, t}, nil
}

// defaultLockWait is that of ScopeOptions, and of In.
const defaultLockWait = 500 * time.Millisecond

// beginSQL is BEGIN with what o says.
func beginSQL(o pgx.TxOptions) (string, error) {
	sql := "BEGIN"
	switch o.IsoLevel {
	case "":
	case pgx.ReadUncommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable:
		sql += " ISOLATION LEVEL " + string(o.IsoLevel)
	default:
		return "", fmt.Errorf("postgres: %q is no isolation level; want one of pgx's constants, such as pgx.Serializable", o.IsoLevel)
	}
	switch o.DeferrableMode {
	case "", pgx.NotDeferrable:
	default:
		return "", errors.New("postgres: deferrable is for transactions that only read: leave it out")
	}
	return sql + " READ WRITE", nil
}

// Guard is the scope's guard, for semelhttp and its like: routes of the class
// Transactional ask it.
func (s *Scope) Guard() *semel.Guard { return s.guard }

// Policy is the scope's policy, filled in.
func (s *Scope) Policy() semel.Policy { return s.policy }

// errNested: a scope was asked for in a scope.
var errNested = fmt.Errorf("%w: postgres: this is in a scope's transaction already: a second one would need a second connection, and commit for itself; "+
	"use the transaction that is there, or Guard.Within with In for a second key in it", semel.ErrRejected)

// Do runs fn once for the key, in a transaction that is committed together with
// its result, or gives back the result of before. Any error of fn, and a panic,
// undo it all, and the key stays unused. fn runs again, 5 times at most, where
// the database undid the transaction for another's sake: what it does outside of tx
// has to bear that. fn must not end tx, and keeps nothing of it. For the errors
// see [semel.Guard.Do].
func (s *Scope) Do(ctx context.Context, key semel.Key, fingerprint semel.Fingerprint, fn func(ctx context.Context, tx pgx.Tx) (semel.Result, error)) (semel.Answer, error) {
	if _, in := TxFrom(ctx); in {
		return semel.Answer{}, errNested
	}
	return s.guard.Do(ctx, semel.Ask{Key: key, Fingerprint: fingerprint, Policy: &s.policy}, func(ctx context.Context) (semel.Result, error) {
		tx, ok := TxFrom(ctx)
		if !ok {
			return semel.Result{}, errors.New("postgres: the operation's context has no transaction")
		}
		return fn(ctx, tx)
	})
}

// txOf is the context key of a scope's transaction.
type txOf struct{}

// TxFrom gives the transaction of the scope that ctx is in, if it is in one that
// has not ended: what handlers and operations write through it is committed with
// their answer.
func TxFrom(ctx context.Context) (pgx.Tx, bool) {
	tx, ok := ctx.Value(txOf{}).(*pgtx.Tx)
	if !ok || tx.Closed() {
		return nil, false
	}
	return tx, true
}

// transactor is the store that a scope's guard has: the store itself, with
// transactions on the application's pool.
type transactor struct {
	*Store
	pool  *pgxpool.Pool
	begin string
	wait  time.Duration
	idle  time.Duration
	named bool // the pool's connections keep prepared statements
}

var _ semel.Transactor = (*transactor)(nil)

// Unwrap is part of semel.Unwrapper.
func (t *transactor) Unwrap() semel.Store { return t.Store }

// Begin is part of semel.Transactor: BEGIN and the first swap, or read, in one
// round trip.
func (t *transactor) Begin(ctx context.Context, digest semel.Digest, first *semel.Swap) (semel.Transaction, semel.Reading, error) {
	e := t.engine
	if _, in := TxFrom(ctx); in {
		return nil, semel.Reading{}, errNested
	}
	if first != nil {
		if err := e.refuse(ctx, &first.Next); err != nil {
			return nil, semel.Reading{}, err
		}
	}
	var err error
	for range tries {
		p := e.epoch.current.Load()
		if first != nil && first.Old.IsZero() {
			// A conflict is found again in the transaction.
			if _, err := e.admit(ctx, p, &first.Next); err != nil && !errors.Is(err, semel.ErrConflict) {
				return nil, semel.Reading{}, err
			}
		}
		var conn *pgxpool.Conn
		if conn, err = t.pool.Acquire(ctx); err != nil {
			return nil, semel.Reading{}, fmt.Errorf("postgres: nothing was done: no connection of the pool: %w", err)
		}
		tx := &transaction{conn: conn, tx: pgtx.New(conn.Conn())}
		tx.bound = bound{engine: e, conn: conn.Conn(), epoch: p, wait: t.wait, idle: t.idle, named: t.named}
		var r semel.Reading
		r, err = tx.first(ctx, t.begin, digest, first)
		if err == nil || errors.Is(err, semel.ErrConflict) {
			return tx, r, err
		}
		tx.Rollback()
		switch {
		case errors.Is(err, errOther): // after a restart, or a promotion
			if failed := e.renewEpoch(ctx, p); failed != nil {
				return nil, semel.Reading{}, failed
			}
			err = errors.Join(semel.ErrUnavailable, err)
		case !errors.Is(err, semel.ErrUndone):
			return nil, semel.Reading{}, err
		}
	}
	return nil, semel.Reading{}, err
}

// try does what every operation does, and undoes it.
func (t *transactor) try() error {
	ctx, cancel := context.WithTimeout(context.Background(), scopeWithin)
	defer cancel()
	key := semel.Key{Scope: semel.JoinScope("semel", "self-test"), ID: fmt.Sprint(time.Now().UnixNano())}
	next := semel.Record{Digest: key.Digest(nil), State: semel.Pending, Class: semel.Transactional, Attempt: 1, TTL: time.Minute, Key: key, Owner: "self-test"}
	tx, r, err := t.Begin(ctx, next.Digest, &semel.Swap{Next: next})
	if err != nil {
		return fmt.Errorf("postgres: the scope failed its test on the application's pool: %w", err)
	}
	defer tx.Rollback()
	if held, _, err := tx.(*transaction).get(ctx, "", next.Digest); err != nil || held.Record.Version != r.Record.Version {
		return fmt.Errorf("postgres: the scope failed its test on the application's pool: the key was not found again: %w", errors.Join(semel.ErrUnavailable, err))
	}
	return nil
}

// transaction is one that a scope began.
type transaction struct {
	bound
	conn *pgxpool.Conn
	tx   *pgtx.Tx
}

var _ semel.Transaction = (*transaction)(nil)

// first is the beginning of the transaction.
func (t *transaction) first(ctx context.Context, begin string, digest semel.Digest, first *semel.Swap) (r semel.Reading, err error) {
	var m mark
	var mine *semel.Nonce
	if first == nil {
		r, m, err = t.get(ctx, begin, digest)
	} else {
		mine = &first.Next.Nonce
		r, m, err = t.swap(ctx, begin, first.Old, &first.Next)
	}
	return t.durable(ctx, r, m, mine, err)
}

// Context is part of semel.Transaction.
func (t *transaction) Context(parent context.Context) context.Context {
	return context.WithValue(parent, txOf{}, t.tx)
}

// CompareAndSwap is part of semel.Transaction.
func (t *transaction) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, m, err := t.swap(ctx, "", old, &next)
	return t.durable(ctx, r, m, &next.Nonce, err)
}

// Undone is part of semel.Transaction. An error that says nothing may come from
// one that did.
func (t *transaction) Undone(err error) bool {
	return isRetriable(err) || t.bound.conn.PgConn().TxStatus() == 'E' && isRetriable(t.tx.Failure())
}

// Commit is part of semel.Transaction: the last swap and COMMIT in one round trip.
func (t *transaction) Commit(ctx context.Context, last semel.Swap) (semel.Reading, error) {
	t.tx.Close()
	e := t.engine
	err := t.whole()
	if err == nil {
		err = e.refuse(context.Background(), &last.Next)
	}
	if err == nil && last.Old.IsZero() {
		if r, refused := e.admit(ctx, t.epoch, &last.Next); errors.Is(refused, semel.ErrConflict) {
			t.Rollback()
			return r, refused
		} else if refused != nil {
			err = refused
		}
	}
	if err != nil {
		t.Rollback()
		if !errors.Is(err, semel.ErrUndone) {
			err = errors.Join(semel.ErrNotDone, err)
		}
		return semel.Reading{}, err
	}
	type outcome struct {
		reading semel.Reading
		err     error
	}
	done := make(chan outcome, 1)
	go func() { // a COMMIT is never cancelled (INVARIANTS T6)
		r, err := t.commit(last.Old, &last.Next)
		t.Rollback()
		done <- outcome{r, err}
	}()
	select {
	case o := <-done:
		if errors.Is(o.err, semel.ErrConflict) {
			return t.met(ctx, &last)
		}
		return o.reading, o.err
	case <-ctx.Done():
		return semel.Reading{}, fmt.Errorf("postgres: no answer to COMMIT yet, and nobody knows the outcome: %w", context.Cause(ctx))
	}
}

// met reads what the last swap met, once the transaction has been rolled back.
func (t *transaction) met(ctx context.Context, last *semel.Swap) (semel.Reading, error) {
	r, err := t.engine.Get(ctx, last.Next.Digest)
	if err != nil || r.Record.Version == last.Old {
		return semel.Reading{}, errUndoneHere(errors.Join(errors.New("postgres: the key was met, and is gone again"), err))
	}
	return r, semel.ErrConflict
}

// whole gives an error if the operation has left nothing to commit.
func (t *transaction) whole() error {
	c := t.bound.conn.PgConn()
	switch {
	case t.tx.EndTried() != nil:
		return t.tx.EndTried()
	case c.IsClosed():
		return errors.Join(errors.New("postgres: the connection broke before the commit"), t.tx.Failure())
	case c.IsBusy():
		return errors.New("postgres: the operation left rows of a query unread: close them before it returns")
	case c.TxStatus() == 'E' && isRetriable(t.tx.Failure()):
		return errUndoneHere(t.tx.Failure())
	case c.TxStatus() == 'E':
		return errors.Join(errors.New("postgres: a statement of the operation failed and the operation did not report it"), t.tx.Failure())
	case c.TxStatus() != 'T':
		return fmt.Errorf("%w (past the transaction, on its connection)", pgtx.ErrOwnEnd)
	}
	return nil
}

// rollbackWithin bounds a ROLLBACK; then the connection is closed, to the same end.
const rollbackWithin = 5 * time.Second

// Rollback is part of semel.Transaction. It gives the connection back.
func (t *transaction) Rollback() {
	t.tx.Close()
	rollback(t.bound.conn)
	t.conn.Release()
}

// rollback leaves conn without a transaction, or closed.
func rollback(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackWithin)
	defer cancel()
	c := conn.PgConn()
	if c.IsClosed() || !c.IsBusy() && c.TxStatus() == 'I' {
		return
	}
	if !c.IsBusy() {
		if _, err := c.Exec(ctx, "ROLLBACK").ReadAll(); err == nil {
			return
		}
	}
	_ = conn.Close(ctx) // whatever it says: the server rolls back
}
