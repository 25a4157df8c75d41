package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
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
	// Tx may ask for an isolation level: read committed, repeatable read or
	// serializable. The others, and ReadOnly, are refused. Default: the connection's
	// own, which is the server's unless the application has set another.
	Tx sql.TxOptions
	// LockWait is how long a claim waits for another's that comes at the same moment,
	// in whole seconds, rounded up. One that comes later does not wait: it is told
	// that the key is taken, polls up to the policy's Wait, and is told at last that
	// the operation is in progress. The operation's own statements wait as long as the
	// session's innodb_lock_wait_timeout says. Default 1 s, which is the server's least.
	LockWait time.Duration
}

// Scope runs operations in transactions of the application's: key, answer and
// what the operation writes are committed together, or not at all. It is safe for
// concurrent use.
type Scope struct{ scope *sqltx.Scope }

// NewScope gives a scope over db, which has to be made by [OpenDB] or
// [OpenConfig] for the database that store is in, and tries it. A node of a
// Galera cluster is refused unless the store was opened with Options.AllowGalera.
func NewScope(store *Store, db *sql.DB, o ScopeOptions) (*Scope, error) {
	if store == nil {
		return nil, refused("a scope needs a store and a *sql.DB")
	}
	o.Policy.Class = semel.Transactional
	d, err := newDialect(store, &o)
	switch {
	case err != nil:
		return nil, err
	case o.Tx.ReadOnly:
		return nil, refused("a scope writes its key, so its transactions cannot be read only")
	case store.engine.options.ReadOnly:
		return nil, errors.Join(errReadOnly, errors.New("a scope writes its keys: open the store without ReadOnly"))
	}
	scope, err := sqltx.New(db, store, d, sqltx.Options{Policy: o.Policy, Guard: o.Guard})
	if err != nil {
		return nil, fmt.Errorf("mysql: no scope: %w", err)
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
// it, unless fn went back to a savepoint from before. fn runs again after a
// deadlock (1213), and after MariaDB's 1020.
//
// Statements that commit by themselves, such as CREATE TABLE, are refused. If a
// stored procedure executes one, what came before it is committed: then the rest
// is undone, and the key is in doubt, for a person to settle.
func (s *Scope) Do(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn func(ctx context.Context, tx *sql.Tx) (semel.Result, error)) (semel.Answer, error) {
	return s.scope.Do(ctx, key, fp, fn)
}

// TxFrom gives the transaction of the operation that runs with ctx in a scope.
func TxFrom(ctx context.Context) (*sql.Tx, bool) { return sqltx.TxFrom(ctx) }

// In gives the store bound to a transaction of the caller's own, for
// [semel.Guard.Within]: the guard is any that has store inside. The transaction is of
// a database from [OpenDB]. Once a key was written in it, its Commit is refused
// after a statement that failed, and after an operation that did not end well. A key
// that another transaction holds is waited for, one second.
func In(store *Store, tx *sql.Tx) semel.Store {
	return sqltx.In(store, &dialect{engine: store.engine, wait: 1}, tx)
}

// newDialect reads the options that concern statements.
func newDialect(store *Store, o *ScopeOptions) (*dialect, error) {
	policy, err := o.Policy.Filled()
	if err != nil {
		return nil, err
	}
	seconds := func(d time.Duration) uint64 { return max(1, uint64((d+time.Second-1)/time.Second)) }
	d := &dialect{engine: store.engine, wait: seconds(o.LockWait), idle: 1 + seconds(policy.Lease)}
	switch o.Tx.Isolation {
	case sql.LevelDefault:
	case sql.LevelReadCommitted:
		d.level = "READ COMMITTED"
	case sql.LevelRepeatableRead:
		d.level = "REPEATABLE READ"
	case sql.LevelSerializable:
		d.level = "SERIALIZABLE"
	default:
		return nil, refusedf("the isolation level %v is none that a scope takes; there are read committed, repeatable read and serializable", o.Tx.Isolation)
	}
	return d, nil
}

var errReplaced = errors.New("mysql: a statement of the operation, in a stored procedure perhaps, has ended the transaction, so what came before it may be committed; roll back, and look at the key and its effect")

// within is a swap in a transaction that the caller has begun and ends. Every
// level of isolation is met there, and it may have read long ago: epoch and floor
// are asked for on a connection of the store's.
func (d *dialect) within(ctx context.Context, c *appConn, s *semel.Swap) (semel.Reading, error) {
	point := "semel_" + hex.EncodeToString(s.Next.Digest[:8])
	var seen *epoch
	for range attempts {
		j, ep, err := d.job(ctx, c, s, seen)
		if err != nil {
			return semel.Reading{}, err
		}
		t := d.script().add("SET @semel_at=").add(d.engine.now()).add("," + takeWait).number(d.wait).add(";")
		if s.Next.State == semel.Pending {
			t.add("SAVEPOINT " + point + ";")
		}
		if !s.Old.IsZero() {
			t.lock(&s.Next.Digest)
		}
		t.write(j, ep, "")
		if s.Next.State != semel.Pending {
			t.add("RELEASE SAVEPOINT " + point + ";")
		}
		var a answer
		err = c.session.each(ctx, string(t.add("SET "+giveWait).b), func(_ int, values []driver.Value) { a.note(values) })
		good := err == nil
		if good && s.Old.IsZero() {
			good, err = d.current(ctx, ep)
		}
		if good {
			j.next.WrittenAt = a.now
			return semel.Reading{Record: j.next, Now: a.now}, nil
		}
		if err != nil {
			if r, err := d.notWithin(ctx, c, s, err); err != nil {
				return r, err
			}
			continue
		}
		if err := c.session.do(ctx, "ROLLBACK TO SAVEPOINT "+point); err != nil {
			return semel.Reading{}, d.failed(err)
		}
		seen = ep
	}
	return semel.Reading{}, fmt.Errorf("mysql: others were faster %d times; nothing was written", attempts)
}

// notWithin tells what err, which stopped a swap in a caller's transaction,
// means. No error means that the swap is to be tried again.
func (d *dialect) notWithin(ctx context.Context, c *appConn, s *semel.Swap, err error) (semel.Reading, error) {
	switch n := code(err); n {
	case codeDuplicate, codeOverflow:
		// At REPEATABLE READ a plain SELECT may not see what was just met.
		t := d.script()
		t.add("SELECT ").add(d.engine.now()).add("," + columns + " FROM ").add(t.in).add("semel_record WHERE digest=").
			bytes(s.Next.Digest[:]).add(" LOCK IN SHARE MODE;SET " + giveWait)
		var a answer
		if err = c.session.each(ctx, string(t.b), func(_ int, values []driver.Value) { a.note(values) }); err != nil {
			return semel.Reading{}, d.failed(err)
		}
		if held := a.conflict(d.engine, s.Next.Digest, s.Old); held != nil {
			if errors.Is(held.Err, semel.ErrConflict) {
				err = d.engine.visible(ctx, &held.Reading.Record, c.session.run, &s.Next.Nonce)
			}
			if err != nil {
				return semel.Reading{}, err
			}
			return held.Reading, held.Err
		}
		return semel.Reading{}, nil
	case 0:
		return semel.Reading{}, d.engine.address.explain("swap", err)
	case codeLockWait, codeNoWait:
		err = semel.ErrInProgress
	case codeNoSavepoint:
		err = errReplaced
	default:
		err = d.failed(err)
	}
	return semel.Reading{}, errors.Join(err, c.session.do(ctx, "SET "+giveWait))
}

// held gives a conflict on, once what it says may be relied on. No transaction is
// open. mine is the nonce of the caller's write.
func (d *dialect) held(ctx context.Context, c *appConn, held *semel.Swapped, mine *semel.Nonce) (semel.Reading, error) {
	if errors.Is(held.Err, semel.ErrConflict) {
		if err := d.engine.settle(ctx, &held.Reading.Record, c.session.run, mine); err != nil {
			return semel.Reading{}, err
		}
	}
	return held.Reading, held.Err
}

// torn is for a transaction that is not the one that was begun: a procedure has
// ended that, and nobody knows what of the operation it has committed. The rest is
// undone, and the key put in doubt, lest the operation runs again.
func (d *dialect) torn(ctx context.Context, c *appConn, last semel.Swap) error {
	next := last.Next
	next.State, next.Class, next.TTL = semel.Pending, semel.AtMostOnce, time.Microsecond
	next.Result, next.Replay, next.Code = nil, 0, 0
	next.Nonce[0] ^= 0xff // another write than the one that did not happen
	err := d.undo(ctx, c)
	if err == nil {
		_, err = d.engine.CompareAndSwap(ctx, last.Old, next)
	}
	return errors.Join(errTorn, err)
}

var errTorn = errors.New("mysql: a statement of the operation, in a stored procedure perhaps, has ended its transaction: what came before it may be committed, and the key is in doubt; take that statement out of the operation")
