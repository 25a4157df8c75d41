package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	modernc "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// dialect is SQLite's share of a scope. It writes by the store's own statements,
// on the application's connection.
type dialect struct {
	store    *Store
	lockWait time.Duration
	// turn has the transactions of this process queue for the write lock; SQLite's
	// own wait is a sleep, and fair to nobody. nil where the caller begins them.
	turn chan struct{}
}

var _ sqltx.Dialect = (*dialect)(nil)

// local is what one connection has: the file as seen through it. Its version is
// read anew in each transaction.
type local struct {
	*file
	patience int64         // the connection's own busy timeout, in milliseconds
	turn     chan struct{} // not nil while it is this connection's turn
}

// Close ends the statements. The connection is its pool's.
func (l *local) Close() error {
	l.pass()
	var errs []error
	for _, s := range l.file.writer.conn.stmts {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(errs...)
}

// pass ends the turn.
func (l *local) pass() {
	if l.turn != nil {
		<-l.turn
		l.turn = nil
	}
}

// Check is part of sqltx.Dialect: the connection has to be to the store's file.
func (d *dialect) Check(_ context.Context, c *sqltx.Conn) error {
	main := d.store.file
	if main.options.ReadOnly {
		return errors.Join(semel.ErrRejected, errReadOnly)
	}
	one := &conn{raw: c.Unwrap()}
	row, err := one.row("SELECT file FROM pragma_database_list WHERE name = 'main'")
	if err != nil {
		return main.explain("look at the application's connection", err)
	}
	path, _ := append(row, "")[0].(string)
	theirs, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("sqlite: the application's database, %q, is no file: %w", path, err)
	}
	ours, err := os.Stat(main.path)
	if err != nil {
		return fmt.Errorf("sqlite: the store's file is gone: %w", err)
	}
	if !os.SameFile(theirs, ours) {
		return fmt.Errorf("sqlite: the application's database is %s and the store is in %s: one transaction cannot be in both; open the store in the application's file", path, main.path)
	}
	if c.Local != nil { // another store of the same file has been here
		return nil
	}
	w, err := newWriter(one)
	l := &local{file: &file{path: main.path, now: main.now, options: main.options, maxRow: main.maxRow, writer: w}}
	if err == nil {
		l.patience, err = one.number("PRAGMA busy_timeout")
	}
	if err != nil {
		return errors.Join(main.explain("prepare", err), l.Close())
	}
	c.Local = l
	return nil
}

func of(c *sqltx.Conn) *local { return c.Local.(*local) }

// Begin is part of sqltx.Dialect.
func (d *dialect) Begin(ctx context.Context, c *sqltx.Conn, digest semel.Digest, first *semel.Swap) (semel.Reading, error) {
	l := of(c)
	if r, ok := d.finished(ctx, digest); ok && first == nil {
		return r, nil
	} else if ok {
		return r, semel.ErrConflict
	}
	if err := d.lock(ctx, l); err != nil {
		return semel.Reading{}, err
	}
	if first == nil {
		return l.read(l.get, digest)
	}
	return l.one(first.Old, first.Next)
}

// finished reads a record that is done and stays so: who asks for it is told, and
// nothing is begun, so that a duplicate waits for no writer.
func (d *dialect) finished(ctx context.Context, digest semel.Digest) (semel.Reading, bool) {
	main := d.store.file
	if !main.mayHold(&digest) {
		return semel.Reading{}, false
	}
	r, err := main.Get(ctx, digest)
	held := &r.Record
	return r, err == nil && held.State == semel.Done && r.Now.Before(held.WrittenAt.Add(held.TTL))
}

// lock begins with the write lock, or gives up after lockWait.
func (d *dialect) lock(ctx context.Context, l *local) error {
	end := time.Now().Add(d.lockWait)
	busy := fmt.Errorf("%w, or another one: a transaction has been writing to %s for longer than %v", semel.ErrInProgress, l.path, d.lockWait)
	select {
	case d.turn <- struct{}{}:
	default:
		timer := time.NewTimer(d.lockWait)
		defer timer.Stop()
		select {
		case d.turn <- struct{}{}:
		case <-timer.C:
			return busy
		case <-ctx.Done():
			return fmt.Errorf("sqlite: nothing was done: %w", context.Cause(ctx))
		}
	}
	l.turn = d.turn
	err := l.within(max(time.Until(end), time.Millisecond), func() error {
		_, err := l.begin.exec()
		return err
	})
	if err == nil {
		return nil
	}
	l.pass()
	if isBusy(err) {
		return busy
	}
	return l.explain("begin to write", err)
}

// within runs fn with another busy timeout than the connection's own.
func (l *local) within(d time.Duration, fn func() error) error {
	c := l.file.writer.conn
	set := func(ms int64) error { return c.run(fmt.Sprintf("PRAGMA busy_timeout = %d", ms)) }
	if err := set(d.Milliseconds()); err != nil {
		return err
	}
	err := fn()
	return errors.Join(err, set(l.patience))
}

// one does one swap in the open transaction.
func (l *local) one(old semel.Version, next semel.Record) (semel.Reading, error) {
	swaps, out := [1]semel.Swap{{Old: old, Next: next}}, [1]semel.Swapped{}
	if _, err := l.swapAll(swaps[:], out[:]); err != nil {
		return semel.Reading{}, err
	}
	return out[0].Reading, out[0].Err
}

// errNotBegun: a record was finished, and is written over all the same.
var errNotBegun = errors.New("sqlite: the scope has begun no transaction, since the key was finished")

// Get is part of sqltx.Dialect.
func (d *dialect) Get(_ context.Context, c *sqltx.Conn, digest semel.Digest) (semel.Reading, error) {
	l := of(c)
	return l.read(l.get, digest)
}

// CompareAndSwap is part of sqltx.Dialect.
func (d *dialect) CompareAndSwap(_ context.Context, c *sqltx.Conn, old semel.Version, next semel.Record) (semel.Reading, error) {
	l := of(c)
	switch {
	case l.turn != nil:
		return l.one(old, next)
	case d.turn != nil:
		return semel.Reading{}, errNotBegun
	}
	if err := l.mustBeOpen(); err != nil {
		return semel.Reading{}, err
	}
	r, err := l.one(old, next)
	switch {
	case isSnapshot(err):
		err = errors.Join(semel.ErrUndone, errors.New("sqlite: another has written since this transaction first read; begin it as IMMEDIATE, which OpenDB does by default"), err)
	case isBusy(err):
		err = errors.Join(semel.ErrInProgress, err)
	}
	return r, err
}

// mustBeOpen gives an error if no transaction is open: SQLite ends one by itself after
// some errors, and what follows would be a commit of its own.
func (l *local) mustBeOpen() error {
	if _, err := l.begin.exec(); err != nil {
		return nil //nolint:nilerr // one cannot begin in another
	}
	_, err := l.rollback.exec()
	return errors.Join(semel.ErrRejected, errors.New("sqlite: the transaction is not open any more: SQLite has undone it after an error"), err)
}

// Commit is part of sqltx.Dialect.
func (d *dialect) Commit(_ context.Context, c *sqltx.Conn, last semel.Swap) (semel.Reading, error) {
	l := of(c)
	if l.turn == nil {
		return semel.Reading{}, errors.Join(semel.ErrNotDone, errNotBegun)
	}
	r, err := l.one(last.Old, last.Next)
	if errors.Is(err, semel.ErrConflict) {
		return r, err
	}
	if err != nil {
		return semel.Reading{}, errors.Join(semel.ErrNotDone, err)
	}
	_, err = l.commit.exec()
	switch {
	case err == nil:
		l.pass()
		d.store.file.committed(&r.Record)
		return r, nil
	case isConstraint(err): // a foreign key that is checked at the end
		return semel.Reading{}, errors.Join(semel.ErrNotDone, err)
	case isBusy(err):
		return semel.Reading{}, errors.Join(semel.ErrUndone, l.explain("commit", err))
	}
	return semel.Reading{}, fmt.Errorf("sqlite: it is not known what was committed: %w", l.explain("commit", err))
}

// committed takes notice of a record that a scope has written.
func (f *file) committed(r *semel.Record) {
	f.note(&r.Digest)
	if f.mu.TryLock() { // else it is noticed another time
		f.owe(1 + len(r.Result)/4096)
		f.mu.Unlock()
	}
}

// Rollback is part of sqltx.Dialect.
func (d *dialect) Rollback(_ context.Context, c *sqltx.Conn) error {
	l := of(c)
	defer l.pass()
	if l.turn == nil {
		return nil // it did not get as far as to begin
	}
	_, err := l.rollback.exec()
	return err
}

// Undone is part of sqltx.Dialect.
func (d *dialect) Undone(err error) bool { return isSnapshot(err) }

// isSnapshot tells whether a transaction that has read cannot write any more,
// since another has written.
func isSnapshot(err error) bool {
	var coded *modernc.Error
	return errors.As(err, &coded) && coded.Code() == codes.SQLITE_BUSY_SNAPSHOT
}
