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
)

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
}

// epoch is what the versions of new writes begin with. Each packet that writes
// names the epoch that it means, and the server that it is meant for: a counter
// can go back when another server takes over, or this one comes back with older
// data (INVARIANTS S2).
type epoch struct {
	number, floor uint64
	run           [16]byte // the server's identity while it runs
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

// Get reads the committed state, and locks nothing.
func (e *engine) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	var t script
	t.get(e, &digest)
	var reading semel.Reading
	var damage error
	err := e.with(ctx, func(s *session) error {
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
		return semel.Reading{}, e.address.explain("read", err)
	case reading.Now.IsZero():
		return semel.Reading{}, refused("the table semel_store has lost its row: somebody changed it; put a backup back")
	case damage != nil:
		return semel.Reading{}, e.damaged(digest, damage)
	}
	return reading, nil
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
