package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// file is the database itself: a semel.Store that takes many swaps in one
// commit, for the batch in front of it.
type file struct {
	path    string
	now     func() time.Time
	options Options
	readers chan *reader // those that nobody uses
	reading int          // how many readers there are; fixed once open
	maxRow  int          // bytes; SQLite's own limit

	known, learning atomic.Pointer[known]

	mu     sync.Mutex // held by whoever writes
	closed bool
	lax    bool // a commit may not wait for the disk
	sweeps portion
	drops  portion
	writer
	checkpointer
}

// reader is a connection that reads one snapshot after the other. It has none
// until it is first used.
type reader struct {
	*conn
	get *stmt
}

// writer is the connection that writes, guarded by file.mu.
type writer struct {
	conn             *conn
	begin            *stmt
	commit, rollback *stmt
	last, get        *stmt
	insert, update   *stmt
	log, day         *stmt
	expired          *stmt
	sweep, bury      *stmt
	rest             *stmt  // of a checkpoint
	meta             []byte // used again
	// The last version that was given out and the day of the newest line of the journal,
	// which are read anew in each transaction, since other processes write, too.
	version semel.Version
	today   int64
}

const (
	sqlGet    = "SELECT " + columns + " FROM record WHERE digest = ?"
	sqlLast   = "SELECT epoch, (SELECT max(n) FROM journal), (SELECT day FROM journal_day ORDER BY n DESC LIMIT 1) FROM store"
	sqlInsert = "INSERT INTO record (epoch, counter, state, due, meta, result, digest) VALUES (?, ?, ?, ?, ?, ?, ?)" +
		" ON CONFLICT (digest) DO NOTHING"
	sqlUpdate = "UPDATE record SET epoch = ?, counter = ?, state = ?, due = ?, meta = ?, result = ?" +
		" WHERE digest = ? AND epoch = ? AND counter = ?"
	sqlLog = "INSERT INTO journal (n, digest, meta) VALUES (?, ?, ?)"
	sqlDay = "INSERT INTO journal_day (n, day) VALUES (?, ?)"
)

func newWriter(c *conn) (writer, error) {
	w := writer{conn: c}
	for sql, s := range map[string]**stmt{
		"BEGIN IMMEDIATE": &w.begin, "COMMIT": &w.commit, "ROLLBACK": &w.rollback,
		sqlLast: &w.last, sqlGet: &w.get, sqlInsert: &w.insert, sqlUpdate: &w.update, sqlLog: &w.log, sqlDay: &w.day,
		sqlCheckpoint: &w.rest, sqlExpired: &w.expired, sqlSweep: &w.sweep, sqlBury: &w.bury,
	} {
		var err error
		if *s, err = c.prepare(sql); err != nil {
			return w, err
		}
	}
	return w, nil
}

// Get reads the committed state. It waits for no writer.
func (f *file) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	r, err := f.borrow(ctx)
	if err != nil {
		return semel.Reading{}, err
	}
	defer f.giveBack(r)
	return f.read(r.get, digest)
}

func (f *file) read(get *stmt, digest semel.Digest) (semel.Reading, error) {
	var record semel.Record
	var damage error
	err := get.query(context.Background(), func(row []driver.Value) bool {
		record, damage = decodeRow(row)
		return false
	}, digest[:])
	switch {
	case err != nil:
		return semel.Reading{}, f.explain("read", err)
	case damage != nil:
		return semel.Reading{}, damaged(f.path, digest, damage)
	case record.Held() && record.Digest != digest:
		return semel.Reading{}, damaged(f.path, digest, errors.New("the index leads to another key's row"))
	}
	return semel.Reading{Record: record, Now: f.now()}, nil
}

// borrow gives a reader of one's own, to be given back. It waits until one is
// free.
func (f *file) borrow(ctx context.Context) (*reader, error) {
	var r *reader
	select {
	case r = <-f.readers:
	default: // only now, since many contexts cost something once they are waited for
		select {
		case r = <-f.readers:
		case <-ctx.Done():
			return nil, fmt.Errorf("sqlite: no connection was free to read with: %w", context.Cause(ctx))
		}
	}
	if r == nil {
		return nil, errClosed
	}
	if r.conn != nil {
		return r, nil
	}
	c, err := f.connect(f.options.CacheBytes / 8)
	if err == nil {
		if r.get, err = c.prepare(sqlGet); err == nil {
			r.conn = c
			return r, nil
		}
		err = errors.Join(f.explain("prepare", err), c.close())
	}
	f.giveBack(r)
	return nil, err
}

func (f *file) giveBack(r *reader) { f.readers <- r }

// CompareAndSwap is SwapMany of one.
func (f *file) CompareAndSwap(_ context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	swaps, out := [1]semel.Swap{{Old: old, Next: next}}, [1]semel.Swapped{}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.swapMany(swaps[:], out[:])
	return out[0].Reading, out[0].Err
}

// SwapMany does all swaps in one transaction. It does not follow a context:
// once begun, a transaction is brought to its end (INVARIANTS T6). How long it
// waits for another process is bounded by the busy timeout.
func (f *file) SwapMany(_ context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.swapMany(swaps, out)
	return out
}

func (f *file) swapMany(swaps []semel.Swap, out []semel.Swapped) {
	err := f.transact(func() (bool, error) { return f.swapAll(swaps, out) })
	if err != nil {
		for i := range out {
			out[i] = semel.Swapped{Err: err}
		}
	}
}

// transact runs fn in a transaction that has the write lock from its start. It
// commits if fn says that there is something to commit. It is called with f.mu
// held.
func (f *file) transact(fn func() (bool, error)) error {
	if f.closed {
		return errClosed
	}
	if err := f.strict(); err != nil {
		return err
	}
	return f.transacted(fn)
}

func (f *file) transacted(fn func() (bool, error)) error {
	if _, err := f.begin.exec(); err != nil {
		return f.explain("begin to write", err)
	}
	wrote, err := fn()
	if err == nil && wrote {
		if _, err = f.commit.exec(); err == nil {
			return nil
		}
		err = fmt.Errorf("sqlite: it is not known what was committed: %w", f.explain("commit", err))
	}
	// After some errors SQLite has rolled back by itself, and this says so.
	if _, undo := f.rollback.exec(); err == nil {
		return undo
	}
	return err
}

// tidy is transact for what may be lost in a crash, since it is done again then:
// its commit does not wait for the disk, and a later one, which does, brings it
// along.
func (f *file) tidy(fn func() (bool, error)) error {
	if f.closed {
		return errClosed
	}
	f.lax = true
	if err := f.conn.run("PRAGMA synchronous = NORMAL"); err != nil {
		return f.explain("write", err)
	}
	return errors.Join(f.transacted(fn), f.strict())
}

// strict has commits wait for the disk again. Nothing is written until it succeeds.
func (f *file) strict() error {
	if !f.lax {
		return nil
	}
	if err := f.conn.run("PRAGMA synchronous = FULL"); err != nil {
		return f.explain("write", err)
	}
	f.lax = false
	return nil
}

// swapAll does the swaps one after the other. Its error undoes all of them.
func (f *file) swapAll(swaps []semel.Swap, out []semel.Swapped) (wrote bool, err error) {
	if err := f.readVersion(); err != nil {
		return false, err
	}
	now := time.Unix(0, f.now().UnixNano())
	for i := range swaps {
		next := &out[i].Reading.Record
		*next = swaps[i].Next
		out[i].Err = nil
		if size := len(next.Result) + len(next.Key.Scope) + len(next.Key.ID) + len(next.Owner) + 1024; size > f.maxRow {
			out[i] = semel.Swapped{Err: fmt.Errorf("%w: it has %d bytes, and SQLite takes %d", semel.ErrRejected, size, f.maxRow)}
			continue
		}
		next.Version, next.WrittenAt = semel.Version{Epoch: f.version.Epoch, Counter: f.version.Counter + 1}, now
		done, err := f.swap(swaps[i].Old, next)
		if err != nil {
			return false, err
		}
		if done {
			out[i].Reading.Now = now
			f.version, wrote = next.Version, true
			f.owe(1 + len(next.Result)/4096)
			continue
		}
		if out[i].Reading, out[i].Err = f.read(f.writer.get, next.Digest); out[i].Err == nil {
			out[i].Err = semel.ErrConflict
		}
	}
	return wrote, nil
}

// readVersion reads the current epoch and the newest counter.
func (f *file) readVersion() error {
	f.version = semel.Version{}
	err := f.last.query(context.Background(), func(row []driver.Value) bool {
		epoch, _ := row[0].(int64)
		counter, _ := row[1].(int64)
		f.version = semel.Version{Epoch: uint64(epoch), Counter: uint64(counter)}
		var ok bool
		if f.today, ok = row[2].(int64); !ok {
			f.today = math.MinInt64
		}
		return false
	})
	if err == nil && (f.version.Epoch == 0 || f.version.Counter == 0) {
		return fmt.Errorf("sqlite: %s: its tables store and journal do not tell the last version; somebody changed them; put a backup back", f.path)
	}
	return f.explain("read the last version", err)
}

// swap writes next over old, and its line in the journal. It tells whether old
// was held.
func (f *file) swap(old semel.Version, next *semel.Record) (bool, error) {
	e := next.Entry()
	f.meta = e.AppendTo(f.meta[:0])
	var result driver.Value
	if next.Result != nil {
		result = next.Result
	}
	epoch, counter := int64(next.Version.Epoch), int64(next.Version.Counter)
	var rows int64
	var err error
	if old.IsZero() {
		f.note(&next.Digest)
		rows, err = f.insert.exec(epoch, counter, int64(next.State), due(next), f.meta, result, next.Digest[:])
	} else {
		rows, err = f.update.exec(epoch, counter, int64(next.State), due(next), f.meta, result, next.Digest[:],
			int64(old.Epoch), int64(old.Counter))
	}
	if err == nil && rows > 0 {
		err = f.write(next)
	}
	return rows > 0, f.explain("write", err)
}

// write adds the line of next, whose bytes are in f.meta, to the journal.
func (f *file) write(next *semel.Record) error {
	line := int64(next.Version.Counter)
	if _, err := f.log.exec(line, next.Digest[:], f.meta); err != nil {
		return err
	}
	today := dayOf(next.WrittenAt)
	if today == f.today {
		return nil
	}
	f.today = today
	_, err := f.day.exec(line, today)
	return err
}
