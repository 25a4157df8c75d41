package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/internal/barrier"
	"github.com/semelhq/semel/store/batch"
)

// Store is a semel.Store in a MySQL or MariaDB database. It is safe for
// concurrent use.
type Store struct {
	engine *engine
	batch  *batch.Store // nil if each swap goes alone, or none goes
	about  semel.Description
	days   days
	swept  atomic.Int64 // up to when the sweeper has dealt with what was due, Unix microseconds; 0 if it begins anew
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Sweeper   = (*Store)(nil)
	_ semel.Lister    = (*Store)(nil)
	_ semel.Journal   = (*Store)(nil)
	_ semel.Days      = (*Store)(nil)
	_ semel.Measurer  = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
)

var errReadOnly = errors.New("mysql: the store was opened for reading only")

// Get is part of semel.Store: one round trip, what is committed, no lock. A
// record that is done is on the server's disk when it is handed out; where that is
// not known, a commit of the store's own finds out, which callers share.
func (s *Store) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	if err := ended(ctx); err != nil {
		return semel.Reading{}, err
	}
	return s.engine.Get(ctx, digest)
}

// CompareAndSwap is part of semel.Store: one round trip, shared with the swaps
// that come while others are under way. A duplicate writes and locks nothing, and
// what it is answered is on the server's disk, as with Get. A swap that is under way is not cut off when ctx is cancelled, only at its deadline
// or after Options.Timeout; then nobody knows what became of it.
func (s *Store) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.engine.options.ReadOnly {
		return semel.Reading{}, errors.Join(semel.ErrRejected, errReadOnly)
	}
	if err := ended(ctx); err != nil {
		return semel.Reading{}, err
	}
	var to semel.Store = s.engine
	if s.batch != nil {
		to = s.batch
	}
	out := [1]semel.Swapped{}
	out[0].Reading, out[0].Err = to.CompareAndSwap(ctx, old, next)
	s.engine.settleAll(ctx, []semel.Swap{{Next: next}}, out[:])
	return out[0].Reading, out[0].Err
}

// SwapMany is part of semel.Batcher: one transaction, past the batch that
// collects single swaps.
func (s *Store) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	err := ended(ctx)
	if s.engine.options.ReadOnly {
		err = errors.Join(semel.ErrRejected, errReadOnly)
	}
	if err == nil {
		out := s.engine.SwapMany(ctx, swaps)
		s.engine.settleAll(ctx, swaps, out)
		return out
	}
	out := make([]semel.Swapped, len(swaps))
	for i := range out {
		out[i].Err = err
	}
	return out
}

// Describe is part of semel.Describer. It tells the server's settings as they
// were when the store was opened.
func (s *Store) Describe() semel.Description { return s.about }

// closeWithin bounds Close.
const closeWithin = 10 * time.Second

// Close waits for the swaps under way, for 10 s at most, and closes the
// connections. Do not call the store afterwards: that gives errors.
func (s *Store) Close() error {
	closed := make(chan error, 1)
	go func() {
		var err error
		if s.batch != nil {
			err = s.batch.Close()
		}
		closed <- errors.Join(err, s.engine.pool.Close())
	}()
	timeout := time.NewTimer(closeWithin)
	defer timeout.Stop()
	select {
	case err := <-closed:
		return err
	case <-timeout.C:
		return fmt.Errorf("mysql: swaps were still under way after %v; nobody knows what became of them", closeWithin)
	}
}

// engine is the database itself: a semel.Store that takes many swaps in one
// commit, for the batch in front of it.
type engine struct {
	address address
	options Options
	pool    *sql.DB
	now     func() string // the store's clock, as SQL
	packet  int           // the longest packet of statements, in bytes

	epoch atomic.Pointer[epoch]
	mu    sync.Mutex // held while the epoch is renewed

	flushes barrier.Barrier[[16]byte] // each tells the server that it was on
	known   known
}

// epoch is what the versions of new writes begin with. Each packet that writes
// names the epoch that it means, and the server that it is meant for: a counter
// can go back when another server takes over, or this one comes back with older
// data (INVARIANTS S2).
type epoch struct {
	number, floor uint64
	run           [16]byte // the server's identity while it runs
	logged        bool     // whether what is committed there is on disk before others see it
}

// connect prepares the pool. It connects to nothing yet.
func connect(a address, o Options) (*engine, error) {
	c, err := client.NewConnector(a.config)
	if err != nil {
		return nil, refusedf("%s: %v; write %s", a.shown, err, urlForm)
	}
	pool := sql.OpenDB(&connector{Connector: c, lockWait: o.LockWait, readOnly: o.ReadOnly})
	pool.SetMaxOpenConns(o.Connections)
	pool.SetMaxIdleConns(o.Connections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	return &engine{address: a, options: o, pool: pool, now: func() string { return sqlNow }}, nil
}

const sqlEpoch = "SELECT epoch, floor, run FROM semel_store WHERE id=1"

// renew gives the epoch to write under, after seen has turned out not to be it;
// nil means that none was used yet. If another caller was quicker there is
// nothing to do. A new number is made for a store that was just opened, for a
// server that is another than the one before, and if the database has gone back:
// greater than all before, and not less than the clock's milliseconds, so that a
// database that is put back from a backup gives no version out twice.
func (e *engine) renew(ctx context.Context, s *session, seen *epoch, least uint64) (*epoch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.epoch.Load(); now != seen && now.number >= least && now.run == s.run {
		return now, nil
	}
	made := seen != nil
	if seen != nil {
		least = max(least, seen.number)
	}
	for range 5 {
		now, err := readEpoch(ctx, s)
		if err != nil {
			return nil, err
		}
		if made && now.run == s.run && now.number >= max(least, 1) {
			if last := e.epoch.Load(); last != nil && last.run == now.run {
				now.logged = last.logged
			} else if now.logged, err = s.logged(ctx); err != nil {
				return nil, err
			}
			e.epoch.Store(now)
			return now, nil
		}
		var t script
		t.add("UPDATE semel_store SET epoch=GREATEST(epoch+1,").number(least).add(",").add(e.now()).add(" DIV 1000),run=").
			bytes(s.run[:]).add(" WHERE id=1 AND epoch=").number(now.number)
		if err := s.do(ctx, string(t.b)); err != nil {
			return nil, err
		}
		made = true
	}
	return nil, errors.New("mysql: other servers or processes change the epoch all the time; are several servers behind this address?")
}

func readEpoch(ctx context.Context, s *session) (*epoch, error) {
	var now *epoch
	err := s.each(ctx, sqlEpoch, func(_ int, row []driver.Value) {
		run, _ := row[2].([]byte)
		now = &epoch{number: unsigned(row[0]), floor: unsigned(row[1])}
		copy(now.run[:], run)
	})
	if err == nil && now == nil {
		err = refused("the table semel_store has lost its row: somebody changed it; put a backup back")
	}
	return now, err
}

// Get reads the committed state, and locks nothing. A record that is done is on
// disk when it is handed out.
func (e *engine) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	r, run, err := e.read(ctx, digest)
	if err == nil {
		err = e.settle(ctx, &r.Record, run, nil)
	}
	if err != nil {
		return semel.Reading{}, err
	}
	return r, nil
}

// read is Get without that. It tells the server that it has read from.
func (e *engine) read(ctx context.Context, digest semel.Digest) (reading semel.Reading, run [16]byte, err error) {
	var t script
	t.get(e, &digest)
	var damage error
	err = e.with(ctx, func(s *session) error {
		run = s.run
		return s.each(ctx, string(t.b), func(_ int, values []driver.Value) {
			reading.Now = instant(values[0])
			if values[1] != nil {
				r := readRow(values[1:])
				reading.Record, damage = r.record, r.damage
			}
		})
	})
	switch {
	case err != nil:
		return semel.Reading{}, run, e.address.explain("read", err)
	case reading.Now.IsZero():
		return semel.Reading{}, run, refused("the table semel_store has lost its row: somebody changed it; put a backup back")
	case damage != nil:
		return semel.Reading{}, run, e.damaged(digest, damage)
	}
	return reading, run, nil
}

// damaged is the error for one key whose row does not decode.
func (e *engine) damaged(digest semel.Digest, why error) error {
	return fmt.Errorf("%w: %s, digest %v: %w", semel.ErrDamaged, e.address.shown, digest, why)
}

// apart gives a context for what must not be cut off half way, a COMMIT least of
// all: it does not end when ctx is cancelled. It has the deadline of ctx, or
// Options.Timeout from now if that is sooner.
func (e *engine) apart(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(e.options.Timeout)
	if by, ok := ctx.Deadline(); ok && by.Before(end) {
		end = by
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}

// ended gives an error if ctx has ended before anything was done.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("mysql: nothing was done: %w", context.Cause(ctx))
}
