package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// ScopeOptions are a scope's settings. The zero value is usable.
type ScopeOptions struct {
	// Policy is that of Do, and of handlers that take it from Scope.Policy. Its class
	// is set to [semel.Transactional].
	Policy semel.Policy
	// Guard is for the guard that the scope makes.
	Guard semel.Options
	// Tx may ask for an isolation level. SQLite has one, serializable, which is what
	// the four levels of the SQL standard are given, too; other levels, and ReadOnly,
	// are refused.
	Tx sql.TxOptions
	// LockWait is how long a transaction waits to begin while another one writes,
	// whichever keys it is for: SQLite has one writer. Then who asks polls, up to the
	// policy's Wait, and is told at last that the operation is in progress. Default
	// 500 ms.
	LockWait time.Duration
}

// Scope runs operations in transactions of the store's own file: key, answer and
// what the operation writes there are committed together, or not at all. It is
// safe for concurrent use.
//
// The operations of a file come one after the other, since SQLite has one writer:
// keep them short, and call nobody over a network inside. Steps are refused.
type Scope struct{ scope *sqltx.Scope }

// NewScope gives a scope over db, which has to be made by [OpenDB] for the file
// that store has open, and tries it.
func NewScope(store *Store, db *sql.DB, o ScopeOptions) (*Scope, error) {
	if store == nil {
		return nil, errors.New("sqlite: a scope needs a store and a *sql.DB")
	}
	switch o.Tx.Isolation {
	case sql.LevelDefault, sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable:
	default:
		return nil, fmt.Errorf("sqlite: the level %v is none of SQLite's, and would be taken for another: leave it out, or take sql.LevelSerializable, which is what there is", o.Tx.Isolation)
	}
	if o.Tx.ReadOnly {
		return nil, errors.New("sqlite: a scope writes its key, so its transactions cannot be read only")
	}
	if o.LockWait <= 0 {
		o.LockWait = 500 * time.Millisecond
	}
	d := &dialect{store: store, lockWait: o.LockWait, turn: make(chan struct{}, 1)}
	scope, err := sqltx.New(db, store, d, sqltx.Options{Policy: o.Policy, Guard: o.Guard, OneWriter: true})
	if err != nil {
		return nil, fmt.Errorf("sqlite: no scope: %w", err)
	}
	return &Scope{scope}, nil
}

// Guard gives the scope's guard, for handlers whose routes are transactional.
// Close it before the store.
func (s *Scope) Guard() *semel.Guard { return s.scope.Guard() }

// Policy gives the scope's policy, with its defaults filled in.
func (s *Scope) Policy() semel.Policy { return s.scope.Policy() }

// Do runs fn once for the key, as [semel.Guard.Do] says for the class
// Transactional. fn works with tx and leaves its end to the scope. An error of fn
// undoes everything; so does a statement that failed, even if fn does not report
// it, unless fn went back to a savepoint from before. fn runs again after
// SQLITE_BUSY_SNAPSHOT, which transactions of scopes do not meet.
func (s *Scope) Do(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn func(ctx context.Context, tx *sql.Tx) (semel.Result, error)) (semel.Answer, error) {
	return s.scope.Do(ctx, key, fp, fn)
}

// TxFrom gives the transaction of the operation that runs with ctx in a scope.
func TxFrom(ctx context.Context) (*sql.Tx, bool) { return sqltx.TxFrom(ctx) }

// In gives the store bound to a transaction of the caller's own, for
// [semel.Guard.Within]: the guard is any that has store inside. The transaction is of
// a database from [OpenDB]. Once a key was written in it, its Commit is refused
// after a statement that failed, and after an operation that did not end well.
func In(store *Store, tx *sql.Tx) semel.Store {
	return sqltx.In(store, &dialect{store: store}, tx)
}
