package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// dialect is what a scope does in the words of MySQL. A transaction is begun in
// the packet that takes its key, and committed in the packet that writes its
// answer:
//
//	SELECT whether the key is there, committed or not      another transaction's is seen, and not waited for
//	SELECT what is committed under the key                 a duplicate's answer
//	overflow if anything was found                         before a lock is taken
//	SET autocommit=0; START TRANSACTION; SAVEPOINT         so that what follows a deadlock does not commit by itself
//	INSERT the record; SELECT epoch and floor; INSERT the line of the journal
//	…                                                      the operation's own
//	UPDATE the record; INSERT the line; RELEASE SAVEPOINT  fails if the transaction is another than it was
//	COMMIT; SET autocommit=1
//
// What fails before the operation runs is rolled back, and what is held is read
// afterwards, outside, whatever the isolation.
type dialect struct {
	engine *engine
	level  string // of isolation; "" for the connection's own
	wait   uint64 // for another's lock, in seconds
	idle   uint64 // how long a transaction may be left alone, in seconds
}

var _ sqltx.Dialect = (*dialect)(nil)

// How an insert asks for epoch and floor. A plain SELECT sees the newest where it
// is the transaction's first; one that locks does anywhere, and has others wait.
const (
	plainRead = " "
	lockRead  = " LOCK IN SHARE MODE"
)

// Parts of packets.
const (
	savepoint = "semel_scope"
	lastPoint = "semel_last"
	// takeWait has locks waited for as long as the number behind it says.
	takeWait = "@semel_wait=@@SESSION.innodb_lock_wait_timeout,SESSION innodb_lock_wait_timeout="
	giveWait = "SESSION innodb_lock_wait_timeout=IF(@semel_wait IS NULL,@@SESSION.innodb_lock_wait_timeout,@semel_wait),@semel_wait=NULL"
	// takeIdle bounds how long MariaDB waits for the next statement of a transaction,
	// so that a machine that is cut off does not hold its keys for hours.
	takeIdle = ",@semel_idle=@@SESSION.idle_transaction_timeout,SESSION idle_transaction_timeout="
	giveIdle = ",SESSION idle_transaction_timeout=IF(@semel_idle IS NULL,@@SESSION.idle_transaction_timeout,@semel_idle),@semel_idle=NULL"
	// dirty and committed are for the one statement behind them.
	dirty     = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED;"
	committed = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
)

// Undone is part of sqltx.Dialect.
func (d *dialect) Undone(err error) bool {
	n := code(err)
	return n == codeDeadlock || n == codeChanged
}

// script begins a packet for the application's connection, whose own database
// may have become another.
func (d *dialect) script() *script {
	return &script{in: "`" + strings.ReplaceAll(d.engine.address.config.DBName, "`", "``") + "`."}
}

// job prepares a swap.
func (d *dialect) job(ctx context.Context, c *appConn, s *semel.Swap, seen *epoch) (*job, *epoch, error) {
	if size := weigh(&s.Next); size > d.engine.packet-packetSlack {
		return nil, nil, fmt.Errorf("%w: the statements for it have up to %d bytes, and the server's max_allowed_packet leaves room for %d",
			semel.ErrRejected, size, d.engine.packet-packetSlack)
	}
	ep, err := d.versions(ctx, c, seen, s.Old.Epoch)
	if err != nil {
		return nil, nil, err
	}
	j := &job{old: s.Old, next: s.Next}
	j.prepare(ep)
	return j, ep, nil
}

// write adds the statements that write a job: an insert that asks for epoch and
// floor in this manner, if in any, or an update. They give the time and a number.
func (t *script) write(j *job, ep *epoch, ask string) *script {
	switch {
	case !j.old.IsZero():
		t.updates([]*job{j})
		t.add("SELECT @semel_at,EXP(IF(ROW_COUNT()=1,0,999));")
	case ask == "":
		t.inserts([]*job{j})
		t.add("SELECT @semel_at,0;")
	default:
		t.inserts([]*job{j})
		t.add("SELECT @semel_at,EXP(IF(SUM(epoch=").number(ep.number).add(" AND floor<=").number(ep.floor).
			add(")=1,0,999)) FROM ").add(t.in).add("semel_store WHERE id=1").add(ask).add(";")
	}
	return t.add("INSERT INTO ").add(t.in).add("semel_journal (written,digest,meta) VALUES (@semel_at,").
		bytes(j.next.Digest[:]).add(",").bytes(j.meta).add(");")
}

// lock adds a SELECT that locks a row and waits for nobody.
func (t *script) lock(digest *semel.Digest) *script {
	return t.add("SELECT 1 FROM ").add(t.in).add("semel_record WHERE digest=").bytes(digest[:]).add(" FOR UPDATE NOWAIT;")
}

// begin adds what begins a scope's transaction, which waits this long for locks,
// unless one of the assignments in front fails: then none of them is made.
func (d *dialect) begin(t *script, c *appConn, front string) *script {
	t.add("SET " + front + "@semel_at=").add(d.engine.now()).add("," + takeWait).number(d.wait)
	if c.session.facts.mariadb() {
		t.add(takeIdle).number(d.idle)
	}
	return t.add(",SESSION autocommit=0;SET TRANSACTION ISOLATION LEVEL ").add(d.levelOf(c)).
		add(";START TRANSACTION;SAVEPOINT " + savepoint + ";")
}

// answer is a row that begins with the time, or the time alone.
type answer struct {
	now  time.Time
	row  row
	held bool
}

func (a *answer) note(values []driver.Value) {
	a.now = instant(values[0])
	if len(values) > 2 && values[1] != nil {
		a.row, a.held = readRow(values[1:]), true
	}
}

// conflict is the answer to a swap over old: nil, if that is held.
func (a *answer) conflict(e *engine, digest semel.Digest, old semel.Version) *semel.Swapped {
	switch {
	case a.row.version == old && a.held == !old.IsZero():
		return nil
	case a.held && a.row.damage != nil:
		return &semel.Swapped{Err: e.damaged(digest, a.row.damage)}
	}
	return &semel.Swapped{Reading: semel.Reading{Record: a.row.record, Now: a.now}, Err: semel.ErrConflict}
}

// lookUp rolls back, and reads what is committed under a key.
func (d *dialect) lookUp(ctx context.Context, c *appConn, digest *semel.Digest) (a answer, err error) {
	t := d.script().add("ROLLBACK;").over(c).add(";"+committed).get(d.engine, digest)
	err = c.session.each(ctx, string(t.b), func(_ int, values []driver.Value) { a.note(values) })
	c.open = c.open && err != nil
	return a, d.engine.address.explain("look", err)
}

// Rollback is part of sqltx.Dialect.
func (d *dialect) Rollback(ctx context.Context, conn *sqltx.Conn) error {
	c, err := connOf(conn)
	if err != nil {
		return err
	}
	c.scoped = false
	return d.undo(ctx, c)
}

func (d *dialect) undo(ctx context.Context, c *appConn) error {
	if !c.open {
		return nil
	}
	err := c.session.do(ctx, string(new(script).add("ROLLBACK;").over(c).b))
	c.open = err != nil
	return err
}

// Get is part of sqltx.Dialect.
func (d *dialect) Get(ctx context.Context, conn *sqltx.Conn, digest semel.Digest) (semel.Reading, error) {
	c, err := connOf(conn)
	if err != nil {
		return semel.Reading{}, err
	}
	r, err := d.read(ctx, c, &digest, d.script().get(d.engine, &digest))
	if err == nil {
		err = d.engine.visible(ctx, &r.Record, c.session.run, nil)
	}
	return r, err
}

// read sends a packet whose one result is what get asks for.
func (d *dialect) read(ctx context.Context, c *appConn, digest *semel.Digest, t *script) (semel.Reading, error) {
	var a answer
	err := c.session.each(ctx, string(t.b), func(_ int, values []driver.Value) { a.note(values) })
	switch {
	case err != nil:
		return semel.Reading{}, d.engine.address.explain("read", err)
	case a.held && a.row.damage != nil:
		return semel.Reading{}, d.engine.damaged(*digest, a.row.damage)
	}
	return semel.Reading{Record: a.row.record, Now: a.now}, nil
}

// Begin is part of sqltx.Dialect.
func (d *dialect) Begin(ctx context.Context, conn *sqltx.Conn, digest semel.Digest, first *semel.Swap) (semel.Reading, error) {
	c, err := connOf(conn)
	if err != nil {
		return semel.Reading{}, err
	}
	c.scoped, c.claimed = true, first != nil
	if first != nil {
		return d.take(ctx, c, first)
	}
	c.open = true
	t := d.script().add(committed).get(d.engine, &digest).add(";")
	r, err := d.read(ctx, c, &digest, d.begin(t, c, "").add("SET "+giveWait))
	if err == nil {
		err = d.engine.settle(ctx, &r.Record, c.session.run, nil)
	}
	return r, err
}

// CompareAndSwap is part of sqltx.Dialect. A scope calls it before the operation
// runs, so its transaction may be begun anew; a caller's own may not.
func (d *dialect) CompareAndSwap(ctx context.Context, conn *sqltx.Conn, old semel.Version, next semel.Record) (semel.Reading, error) {
	c, err := connOf(conn)
	if err != nil {
		return semel.Reading{}, err
	}
	s := &semel.Swap{Old: old, Next: next}
	if !c.scoped {
		return d.within(ctx, c, s)
	}
	if err := d.undo(ctx, c); err != nil {
		return semel.Reading{}, err
	}
	return d.take(ctx, c, s)
}

// take begins a transaction with a swap, in one packet.
func (d *dialect) take(ctx context.Context, c *appConn, s *semel.Swap) (semel.Reading, error) {
	var seen *epoch
	var why error
	for range attempts {
		j, ep, err := d.job(ctx, c, s, seen)
		if err != nil {
			return semel.Reading{}, err
		}
		c.open = true
		there, a, err := d.send(ctx, c, j, ep)
		good := err == nil
		if good && s.Old.IsZero() && d.levelOf(c) == serializable {
			good, err = d.current(ctx, ep)
		}
		n := code(err)
		if why = err; why == nil {
			why = errOldEpoch
		}
		switch {
		case good:
			j.next.WrittenAt = a.now
			return semel.Reading{Record: j.next, Now: a.now}, nil
		case err != nil && !stops(n):
			return semel.Reading{}, d.failed(err)
		case there: // nothing was begun
			c.open = false
		default:
			if a, err = d.lookUp(ctx, c, &s.Next.Digest); err != nil {
				return semel.Reading{}, err
			}
		}
		if held := a.conflict(d.engine, s.Next.Digest, s.Old); held != nil {
			return d.held(ctx, c, held, &s.Next.Nonce)
		}
		if there || n == codeLockWait || n == codeNoWait {
			return semel.Reading{}, semel.ErrInProgress
		}
		if n == 0 || n == codeOverflow {
			seen = ep
		}
	}
	return semel.Reading{}, fmt.Errorf("mysql: others were faster %d times; nothing was done: %w", attempts, why)
}

// stops tells whether an error is one that swaps of others explain.
func stops(n uint16) bool {
	switch n {
	case codeDuplicate, codeOverflow, codeDeadlock, codeChanged, codeLockWait, codeNoWait:
		return true
	}
	return false
}

func (d *dialect) failed(err error) error {
	if rejected(err) {
		return fmt.Errorf("%w: %w", semel.ErrRejected, err)
	}
	return d.engine.address.explain("swap", err)
}

// send sends the packet that begins a transaction. there tells that it stopped
// before that, since the key to insert is there, committed or not: then the answer
// is what is committed. Else the answer has the time of the write.
func (d *dialect) send(ctx context.Context, c *appConn, j *job, ep *epoch) (there bool, a answer, err error) {
	t := d.script()
	if j.old.IsZero() {
		t.add(dirty+"SELECT 1 FROM ").add(t.in).add("semel_record WHERE digest=").bytes(j.next.Digest[:]).add(";SET @semel_found=FOUND_ROWS();"+committed).
			get(d.engine, &j.next.Digest).add(" AND r.digest IS NOT NULL;")
		ask := ""
		if d.levelOf(c) != serializable {
			ask = plainRead
		}
		d.begin(t, c, "@semel_none=EXP(999*(FOUND_ROWS()+@semel_found)),").write(j, ep, ask)
	} else {
		d.begin(t, c, "").lock(&j.next.Digest).write(j, ep, "")
	}
	err = c.session.each(ctx, string(t.add("SET "+giveWait).b), func(_ int, values []driver.Value) {
		if len(values) == 1 {
			there = j.old.IsZero()
			return
		}
		there = there || len(values) > 2
		a.note(values)
	})
	return there && code(err) == codeOverflow, a, err
}

// Commit is part of sqltx.Dialect: one packet, unless the epoch has moved since
// the last write. What stopped before the COMMIT is certain.
func (d *dialect) Commit(ctx context.Context, conn *sqltx.Conn, last semel.Swap) (semel.Reading, error) {
	c, err := connOf(conn)
	if err != nil {
		return semel.Reading{}, errors.Join(semel.ErrNotDone, err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.engine.options.Timeout)
	defer cancel()
	var seen *epoch
	for range attempts {
		j, ep, err := d.job(ctx, c, &last, seen)
		if err != nil {
			return semel.Reading{}, errors.Join(semel.ErrNotDone, err)
		}
		t := d.script().add("SET @semel_at=").add(d.engine.now())
		if c.claimed {
			t.add(";") // the row is ours already
		} else {
			t.add("," + takeWait).number(d.wait).add(";SAVEPOINT " + lastPoint + ";")
		}
		t.write(j, ep, lockRead).add("RELEASE SAVEPOINT " + savepoint + ";COMMIT;").over(c)
		var a answer
		err = c.session.each(ctx, string(t.b), func(_ int, values []driver.Value) { a.note(values) })
		switch {
		case err == nil:
			c.open, c.scoped = false, false
			j.next.WrittenAt = a.now
			d.engine.wrote(ep, &j.next)
			return semel.Reading{Record: j.next, Now: a.now}, nil
		case code(err) != codeOverflow || !last.Old.IsZero():
			return d.uncommitted(ctx, c, last, err)
		}
		if err := c.session.do(ctx, "ROLLBACK TO SAVEPOINT "+lastPoint); err != nil {
			return semel.Reading{}, errors.Join(semel.ErrUndone, err)
		}
		seen = ep
	}
	return semel.Reading{}, fmt.Errorf("%w: mysql: the epoch has moved %d times", semel.ErrUndone, attempts)
}

// uncommitted tells what err, which stopped the last packet, means.
func (d *dialect) uncommitted(ctx context.Context, c *appConn, last semel.Swap, err error) (semel.Reading, error) {
	switch n := code(err); n {
	case 0:
		return semel.Reading{}, d.engine.address.explain("commit", err)
	case codeDuplicate, codeOverflow:
		a, looked := d.lookUp(ctx, c, &last.Next.Digest)
		if looked != nil {
			return semel.Reading{}, errors.Join(semel.ErrUndone, looked)
		}
		if held := a.conflict(d.engine, last.Next.Digest, last.Old); held != nil {
			r, err := d.held(ctx, c, held, &last.Next.Nonce)
			if err != nil && !errors.Is(err, semel.ErrConflict) && !errors.Is(err, semel.ErrDamaged) {
				err = errors.Join(semel.ErrUndone, err)
			}
			return r, err
		}
		return semel.Reading{}, errors.Join(semel.ErrUndone, err)
	case codeDeadlock, codeChanged, codeLockWait, codeNoWait:
		return semel.Reading{}, errors.Join(semel.ErrUndone, d.engine.address.explain("commit", err))
	case codeNoSavepoint:
		return semel.Reading{}, d.torn(ctx, c, last)
	}
	// If the savepoint is there yet, so is the transaction.
	if c.session.do(ctx, "ROLLBACK TO SAVEPOINT "+savepoint) == nil {
		return semel.Reading{}, errors.Join(semel.ErrNotDone, d.failed(err))
	}
	return semel.Reading{}, d.engine.address.explain("commit", err)
}
