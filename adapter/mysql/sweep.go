package mysql

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/semelhq/semel"
)

// sweepChunk is how many records one transaction of the sweeper looks at: few,
// so that the requests' commits wait little for it (INVARIANTS X7).
const sweepChunk = 256

// damagedLater is when the sweeper looks again at a record that does not decode.
const damagedLater = 10 * time.Minute

// Sweep is part of semel.Sweeper. It looks at what is due, deletes what has
// expired, makes tombstones of what is spent, and puts off the rest, in small
// transactions. Several may sweep at once: what another transaction holds is passed
// by, where the server can (MariaDB before 10.6 waits for Options.LockWait). A record
// that does not decode is left as it is. The journal keeps what it has.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	e := s.engine
	if e.options.ReadOnly {
		return 0, errReadOnly
	}
	s.days.look(ctx, e)
	swept := 0
	for stopped := 0; swept < limit; {
		if err := ended(ctx); err != nil {
			return swept, err
		}
		want := min(limit-swept, sweepChunk)
		c := chunk{from: s.swept.Load()}
		err := e.with(ctx, func(at *session) error {
			ctx, cancel := e.apart(ctx)
			defer cancel()
			return c.sweep(ctx, at, e, want)
		})
		if code(err) == codeDeadlock && stopped < attempts {
			stopped++
			continue
		}
		if err != nil {
			return swept, e.address.explain("sweep", err)
		}
		swept, stopped = swept+c.dealt, 0
		switch {
		case c.seen == want:
			s.swept.Store(c.last)
		case c.from != 0: // what was due earlier and is there only now, or was held
			s.swept.Store(0)
		default:
			return swept, nil
		}
	}
	return swept, nil
}

// chunk is one transaction of the sweeper. What was deleted leaves dead entries at
// the low end of the index, for as long as somebody may read them: it begins
// behind those.
type chunk struct {
	from int64 // due, in Unix microseconds; 0 for all
	last int64 // of those that it saw
	seen int   // how many
	// dealt is how many of them were deleted or made tombstones.
	dealt int

	jobs    []*job   // those to delete
	highest uint64   // counter among them
	at      int64    // by when they were due
	changes []script // what becomes of the others
	spent   int      // how many of those become tombstones
}

// sweep locks what is due, decides, and writes over what it has locked.
func (c *chunk) sweep(ctx context.Context, s *session, e *engine, limit int) error {
	*c = chunk{from: c.from} // it may be run again
	var t script
	if s.facts.mariadb() { // a machine that is cut off now does not hold the rows for hours
		t.add("SET SESSION idle_transaction_timeout=").number(uint64(max(time.Second, e.options.Timeout) / time.Second)).add(";")
	}
	t.add("START TRANSACTION;SELECT ").add(e.now()).add(",digest,epoch,counter,written,state,meta,due FROM semel_record FORCE INDEX (semel_record_due) WHERE due<=").
		add(e.now()).add(" AND due>=").integer(c.from).add(" ORDER BY due LIMIT ").number(uint64(limit)).add(" FOR UPDATE")
	if s.facts.skips() {
		t.add(" SKIP LOCKED")
	}
	s.dirty = true
	defer s.clean()
	err := s.each(ctx, string(t.b), func(_ int, values []driver.Value) {
		c.seen++
		c.at, c.last = signed(values[0]), signed(values[7])
		c.judge(values[1:], instant(values[0]))
	})
	if err != nil {
		return err
	}
	if err := c.write(ctx, s, e.packet/2); err != nil {
		return err
	}
	s.dirty = false
	return nil
}

// judge decides what becomes of a row that is due, by the record itself: a column
// alone has nothing deleted.
func (c *chunk) judge(values []driver.Value, now time.Time) {
	row, e := readMeta(values)
	r := &e.Record
	var t script
	update := func() *script { return t.add("UPDATE semel_record SET due=") }
	switch {
	case row.damage != nil:
		update().integer(now.Add(damagedLater).UnixMicro())
	case r.State == semel.Pending: // whoever finishes it says when it is due
		update().add("NULL")
	case !now.Before(r.Expires()):
		c.jobs = append(c.jobs, &job{next: semel.Record{Digest: row.digest}})
		c.highest = max(c.highest, row.version.Counter)
		return
	case r.Spent(now):
		tombstone := r.Tombstone()
		tombstone.WrittenAt = time.Time{}
		e := tombstone.Entry()
		update().integer(r.WrittenAt.UnixMicro() + keep(r.TTL)).add(",result=NULL,meta=").bytes(e.AppendTo(nil))
		c.spent++
	default:
		update().integer(r.WrittenAt.UnixMicro() + untilDue(r))
	}
	t.add(" WHERE digest=").bytes(row.digest[:]).add(" AND epoch=").number(row.version.Epoch).
		add(" AND counter=").number(row.version.Counter).add(";")
	c.changes = append(c.changes, t)
}

// write does what was decided, in packets of about this many bytes, and lifts the
// floor over the versions of what it deletes in the same transaction, as a claim
// expects.
func (c *chunk) write(ctx context.Context, s *session, packet int) error {
	var t script
	for _, change := range c.changes {
		if t.b = append(t.b, change.b...); len(t.b) >= packet {
			if err := s.do(ctx, string(t.b)); err != nil {
				return err
			}
			t.b = t.b[:0]
		}
	}
	if len(c.jobs) > 0 {
		t.add("DELETE FROM semel_record WHERE digest IN (").digests(c.jobs).add(") AND due<=").integer(c.at).
			add(" AND counter<=").number(c.highest).add(";SELECT ROW_COUNT();UPDATE semel_store SET floor=").number(c.highest).
			add(" WHERE id=1 AND floor<").number(c.highest).add(";")
	}
	deleted := 0
	err := s.each(ctx, string(t.add("COMMIT").b), func(_ int, values []driver.Value) { deleted = int(signed(values[0])) })
	if err == nil {
		c.dealt = c.spent + deleted
	}
	return err
}
