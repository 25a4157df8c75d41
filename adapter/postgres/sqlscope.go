package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// OpenDB opens the application's database with database/sql and pgx, with
// connections that a [SQLScope] can use. url is what [pgx.ParseConfig] takes. It
// connects to nothing yet. Who has no need of database/sql takes a pgxpool.Pool
// and [NewScope].
//
// What sql.Conn.Raw hands out has a method Unwrap that gives the driver's
// connection.
func OpenDB(url string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: cannot open the application's database: %w", err)
	}
	return sqltx.OpenDB(stdlib.GetConnector(*config), sqltx.Rules{Syntax: sqltx.PostgreSQL, Fatal: endsAll}), nil
}

// endsAll tells whether err may have ended the connection. After any other the
// server itself sees to it that only a savepoint goes on.
func endsAll(err error) bool {
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		return !pgconn.SafeToRetry(err)
	}
	return !saidNo(err)
}

// SQLScopeOptions are a scope's settings. The zero value is usable.
type SQLScopeOptions struct {
	// Policy is that of Do, and of handlers that take it from SQLScope.Policy. Its
	// class is set to [semel.Transactional]. A transaction that is idle for longer
	// than its Lease is ended by the server.
	Policy semel.Policy
	// Guard is for the guard that the scope makes.
	Guard semel.Options
	// Tx may ask for an isolation level: read committed, repeatable read or
	// serializable. Those which pgx takes for another one, and ReadOnly, are refused.
	// Default: as the database has it.
	Tx sql.TxOptions
	// LockWait is that of [ScopeOptions]. Default 500 ms.
	LockWait time.Duration
}

// SQLScope is a [Scope] over database/sql: key, answer and what the operation
// writes are committed together, or not at all. It is safe for concurrent use.
type SQLScope struct{ scope *sqltx.Scope }

// NewSQLScope gives a scope over db, which has to be made by [OpenDB] for the
// database that store is in, and tries it.
func NewSQLScope(store *Store, db *sql.DB, o SQLScopeOptions) (*SQLScope, error) {
	if store == nil {
		return nil, errors.New("postgres: a scope needs a store and a *sql.DB")
	}
	begin, err := beginSQLLevel(o.Tx)
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
	d := &dialect{engine: store.engine, begin: begin, wait: o.LockWait, idle: policy.Lease}
	scope, err := sqltx.New(db, store, d, sqltx.Options{Policy: policy, Guard: o.Guard})
	if err != nil {
		return nil, fmt.Errorf("postgres: no scope: %w", err)
	}
	return &SQLScope{scope}, nil
}

// beginSQLLevel is BEGIN with a level of database/sql.
func beginSQLLevel(o sql.TxOptions) (string, error) {
	if o.ReadOnly {
		return "", errors.New("postgres: a scope writes its key, so its transactions cannot be read only")
	}
	switch o.Isolation {
	case sql.LevelDefault:
		return beginSQL(pgx.TxOptions{})
	case sql.LevelReadCommitted:
		return beginSQL(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	case sql.LevelRepeatableRead:
		return beginSQL(pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	case sql.LevelSerializable:
		return beginSQL(pgx.TxOptions{IsoLevel: pgx.Serializable})
	case sql.LevelReadUncommitted:
		return "", errors.New("postgres: the level Read Uncommitted is taken for Read Committed: ask for sql.LevelReadCommitted")
	case sql.LevelSnapshot:
		return "", errors.New("postgres: the level Snapshot is taken for Repeatable Read: ask for sql.LevelRepeatableRead")
	}
	return "", fmt.Errorf("postgres: there is no level %v: ask for sql.LevelReadCommitted, sql.LevelRepeatableRead or sql.LevelSerializable", o.Isolation)
}

// Guard gives the scope's guard, for handlers whose routes are transactional.
// Close it before the store.
func (s *SQLScope) Guard() *semel.Guard { return s.scope.Guard() }

// Policy gives the scope's policy, with its defaults filled in.
func (s *SQLScope) Policy() semel.Policy { return s.scope.Policy() }

// Do runs fn once for the key, as [Scope.Do] does. A statement that failed undoes
// everything even if fn does not report it, unless fn went back to a savepoint
// from before.
func (s *SQLScope) Do(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn func(ctx context.Context, tx *sql.Tx) (semel.Result, error)) (semel.Answer, error) {
	return s.scope.Do(ctx, key, fp, fn)
}

// SQLTxFrom gives the transaction of the operation that runs with ctx in a
// [SQLScope].
func SQLTxFrom(ctx context.Context) (*sql.Tx, bool) { return sqltx.TxFrom(ctx) }

// SQLIn is [In] for a transaction of a database from [OpenDB]. Once a key was
// written in it, its Commit is refused after a statement that failed, and after
// an operation that did not end well.
func SQLIn(store *Store, tx *sql.Tx) semel.Store {
	return sqltx.In(store, &dialect{engine: store.engine, wait: defaultLockWait}, tx)
}

// dialect is PostgreSQL's share of a scope over database/sql: what [bound] does,
// on the pgx.Conn that is under the driver's connection.
type dialect struct {
	engine *engine
	begin  string // empty where the caller begins
	wait   time.Duration
	idle   time.Duration
	tried  atomic.Bool
}

var _ sqltx.Dialect = (*dialect)(nil)

// local is what a connection keeps: the scope's transaction, while one is open.
type local struct{ open *bound }

// Close is part of io.Closer.
func (*local) Close() error { return nil }

// Check is part of sqltx.Dialect. That the database is the store's, each swap asks
// for itself; the first connection tries it.
func (d *dialect) Check(ctx context.Context, c *sqltx.Conn) error {
	if _, ok := c.Unwrap().(*stdlib.Conn); !ok {
		return fmt.Errorf("postgres: the connection is of another driver than pgx's: %T", c.Unwrap())
	}
	if c.Local == nil {
		c.Local = &local{}
	}
	if d.begin == "" || d.tried.Load() {
		return nil
	}
	key := semel.Key{Scope: semel.JoinScope("semel", "self-test"), ID: fmt.Sprint(time.Now().UnixNano())}
	next := semel.Record{Digest: key.Digest(nil), State: semel.Pending, Class: semel.Transactional, Attempt: 1, TTL: time.Minute, Key: key, Owner: "self-test"}
	r, err := d.Begin(ctx, c, next.Digest, &semel.Swap{Next: next})
	if err == nil {
		var held semel.Reading
		if held, err = d.Get(ctx, c, next.Digest); err == nil && held.Record.Version != r.Record.Version {
			err = errors.New("a key that was written was not found again")
		}
	}
	if err = errors.Join(err, d.Rollback(ctx, c)); err != nil {
		return fmt.Errorf("postgres: the scope failed its test on the application's database: %w", err)
	}
	d.tried.Store(true)
	return nil
}

// bind gives the transaction on a connection.
func (d *dialect) bind(c *sqltx.Conn) *bound {
	l := c.Local.(*local)
	if l.open != nil && d.begin != "" {
		return l.open
	}
	conn := c.Unwrap().(*stdlib.Conn).Conn()
	mode := conn.Config().DefaultQueryExecMode
	return &bound{
		engine: d.engine, conn: conn, epoch: d.engine.epoch.current.Load(), wait: d.wait, idle: d.idle,
		named: mode == pgx.QueryExecModeCacheStatement || mode == pgx.QueryExecModeCacheDescribe,
	}
}

// Begin is part of sqltx.Dialect: BEGIN and what is first, in one round trip.
func (d *dialect) Begin(ctx context.Context, c *sqltx.Conn, digest semel.Digest, first *semel.Swap) (semel.Reading, error) {
	b := d.bind(c)
	c.Local.(*local).open = b
	if first == nil {
		r, m, err := b.get(ctx, d.begin, digest)
		return d.given(ctx, b, r, m, nil, err)
	}
	return d.swap(ctx, b, d.begin, first.Old, &first.Next)
}

// swap is CompareAndSwap, after before.
func (d *dialect) swap(ctx context.Context, b *bound, before string, old semel.Version, next *semel.Record) (semel.Reading, error) {
	e := d.engine
	if err := e.refuse(ctx, next); err != nil {
		return semel.Reading{}, err
	}
	if old.IsZero() {
		// A conflict is found again in the transaction.
		if _, err := e.admit(ctx, b.epoch, next); err != nil && !errors.Is(err, semel.ErrConflict) {
			return semel.Reading{}, err
		}
	}
	r, m, err := b.swap(ctx, before, old, next)
	if errors.Is(err, errOther) {
		// After a restart, or a promotion, the next attempt is under the new epoch.
		return semel.Reading{}, errors.Join(err, e.renewEpoch(ctx, b.epoch))
	}
	return d.given(ctx, b, r, m, &next.Nonce, err)
}

// given gives a reading on once it may be relied on. In a caller's transaction
// it may be of what that has written itself.
func (d *dialect) given(ctx context.Context, b *bound, r semel.Reading, m mark, mine *semel.Nonce, err error) (semel.Reading, error) {
	if d.begin == "" {
		return b.visible(ctx, r, m, err)
	}
	return b.durable(ctx, r, m, mine, err)
}

// Get is part of sqltx.Dialect.
func (d *dialect) Get(ctx context.Context, c *sqltx.Conn, digest semel.Digest) (semel.Reading, error) {
	b := d.bind(c)
	r, m, err := b.get(ctx, "", digest)
	return d.given(ctx, b, r, m, nil, err)
}

// CompareAndSwap is part of sqltx.Dialect.
func (d *dialect) CompareAndSwap(ctx context.Context, c *sqltx.Conn, old semel.Version, next semel.Record) (semel.Reading, error) {
	if status := d.bind(c).conn.PgConn().TxStatus(); d.begin == "" && status != 'T' {
		return semel.Reading{}, fmt.Errorf("%w: postgres: the transaction has failed or ended already: the server says %q, want T", semel.ErrRejected, status)
	}
	r, err := d.swap(ctx, d.bind(c), "", old, &next)
	if d.begin != "" || !errors.Is(err, errOther) {
		return r, err
	}
	// The store may have slept through a restart of the server; now it knows.
	if r, err = d.swap(ctx, d.bind(c), "", old, &next); errors.Is(err, errOther) {
		err = errors.Join(semel.ErrRejected, err)
	}
	return r, err
}

// Commit is part of sqltx.Dialect: the last swap and COMMIT in one round trip.
func (d *dialect) Commit(ctx context.Context, c *sqltx.Conn, last semel.Swap) (semel.Reading, error) {
	b, e := d.bind(c), d.engine
	err := e.refuse(ctx, &last.Next)
	switch status := b.conn.PgConn().TxStatus(); {
	case b.conn.IsClosed():
		err = errors.New("postgres: the connection broke before the commit")
	case status == 'E':
		err = errors.New("postgres: a statement of the operation failed and the operation did not report it")
	case status != 'T':
		err = errors.New("postgres: the operation has ended the transaction, past it, on its connection")
	}
	if err == nil && last.Old.IsZero() {
		var r semel.Reading
		if r, err = e.admit(ctx, b.epoch, &last.Next); errors.Is(err, semel.ErrConflict) {
			return r, err
		}
	}
	if err != nil {
		return semel.Reading{}, errors.Join(semel.ErrNotDone, err)
	}
	r, err := b.commit(last.Old, &last.Next)
	if !errors.Is(err, semel.ErrConflict) {
		if err == nil {
			c.Local.(*local).open = nil
		}
		return r, err
	}
	// What was met is newer than the transaction's snapshot: a read after it proves
	// the row (INVARIANTS T4).
	rollback(b.conn)
	r, err = e.Get(ctx, last.Next.Digest)
	if err != nil || r.Record.Version == last.Old {
		return semel.Reading{}, errUndoneHere(errors.Join(errors.New("postgres: the key was met, and is gone again"), err))
	}
	return r, semel.ErrConflict
}

// Rollback is part of sqltx.Dialect.
func (d *dialect) Rollback(_ context.Context, c *sqltx.Conn) error {
	b := d.bind(c)
	c.Local.(*local).open = nil
	rollback(b.conn)
	if b.conn.IsClosed() {
		return errors.New("postgres: the connection is closed")
	}
	return nil
}

// Undone is part of sqltx.Dialect.
func (d *dialect) Undone(err error) bool { return isRetriable(err) }
