package mysql

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/semelhq/semel"
)

// The meta column is the record less its result, as [semel.Entry] has it, but
// for the time, which the statement sets: it is zero there.

// columns are what readRow takes, in this order.
const columns = "digest, epoch, counter, written, state, meta, result"

// row is a row of semel_record. version is what its columns say, whether the
// rest decodes or not.
type row struct {
	digest  semel.Digest
	version semel.Version
	record  semel.Record
	damage  error // why the rest does not decode
}

// readRow decodes a row. The columns must say the same as meta: a flipped bit in
// any of them is damage, not another truth.
func readRow(values []driver.Value) row {
	r, e := readMeta(values)
	if r.damage == nil {
		result, kept := values[6].([]byte)
		if kept {
			result = append([]byte{}, result...) // the row's is the connection's buffer
		}
		r.record, r.damage = e.Restore(result)
	}
	return r
}

// readMeta is readRow without the result, and without a record.
func readMeta(values []driver.Value) (row, semel.Entry) {
	key, _ := values[0].([]byte)
	if len(key) != len(semel.Digest{}) {
		return row{damage: fmt.Errorf("a digest of %d bytes", len(key))}, semel.Entry{}
	}
	r := row{digest: semel.Digest(key), version: semel.Version{Epoch: unsigned(values[1]), Counter: unsigned(values[2])}}
	meta, _ := values[5].([]byte)
	e, err := semel.ParseEntry(r.digest, meta)
	switch {
	case err != nil:
		r.damage = err
	case e.Record.Version != r.version:
		r.damage = fmt.Errorf("%w: the columns say version %v and the record %v", semel.ErrDamaged, r.version, e.Record.Version)
	case uint64(e.Record.State) != unsigned(values[4]):
		r.damage = fmt.Errorf("%w: a column says state %v and the record %v", semel.ErrDamaged, values[4], e.Record.State)
	}
	e.Record.WrittenAt = instant(values[3])
	return r, e
}

// unsigned and signed read a column of whole numbers.
func unsigned(v driver.Value) uint64 {
	switch n := v.(type) {
	case uint64:
		return n
	case int64:
		return uint64(n)
	}
	return 0
}

func signed(v driver.Value) int64 { return int64(unsigned(v)) }

// instant reads a column of Unix microseconds.
func instant(v driver.Value) time.Time { return time.UnixMicro(signed(v)) }

// keep is a TTL or a replay in microseconds, rounded up so that nothing ends early.
func keep(ttl time.Duration) int64 {
	if ttl > math.MaxInt64-time.Microsecond {
		return int64(ttl / time.Microsecond)
	}
	return int64((ttl + time.Microsecond - 1) / time.Microsecond)
}

// script is the text of one packet of statements. Whatever comes from outside is
// written as a hexadecimal literal, or as a decimal number, and in no other way:
// there is nothing to escape, whatever the server's character set and mode.
type script struct {
	b []byte
	// in stands before the tables' names: nothing, or a database and a dot.
	in string
}

func (t *script) add(text string) *script {
	t.b = append(t.b, text...)
	return t
}

func (t *script) bytes(b []byte) *script {
	t.b = append(t.b, "x'"...)
	t.b = hex.AppendEncode(t.b, b)
	t.b = append(t.b, '\'')
	return t
}

// result is bytes, and NULL for nil: an empty result is kept, no result is not.
func (t *script) result(b []byte) *script {
	if b == nil {
		return t.add("NULL")
	}
	return t.bytes(b)
}

func (t *script) number(n uint64) *script {
	t.b = strconv.AppendUint(t.b, n, 10)
	return t
}

func (t *script) integer(n int64) *script {
	t.b = strconv.AppendInt(t.b, n, 10)
	return t
}

// digests is a list for IN.
func (t *script) digests(jobs []*job) *script {
	for i, j := range jobs {
		if i > 0 {
			t.add(",")
		}
		t.bytes(j.next.Digest[:])
	}
	return t
}

// get adds a SELECT of the time and of what is held under a key, NULL for nothing.
func (t *script) get(e *engine, digest *semel.Digest) *script {
	return t.add("SELECT ").add(e.now()).add(",r.digest,r.epoch,r.counter,r.written,r.state,r.meta,r.result FROM ").add(t.in).
		add("semel_store s LEFT JOIN ").add(t.in).add("semel_record r ON r.digest=").bytes(digest[:]).add(" WHERE s.id=1")
}

// statements is the packet for jobs that are prepared, of which some insert.
func (e *engine) statements(jobs []*job, inserts int, ep *epoch) *script {
	size := packetSlack / 2
	for _, j := range jobs {
		size += weigh(&j.next)
	}
	t := &script{b: make([]byte, 0, size)}
	if inserts > 0 {
		t.add("SELECT ").add(e.now()).add("," + columns + " FROM semel_record WHERE digest IN (").digests(insertsOf(jobs)).add(");" +
			"SET @semel_none=EXP(999*FOUND_ROWS()),@semel_at=").add(e.now()).add(";")
	} else {
		t.add("SET @semel_at=").add(e.now()).add(";")
	}
	t.add("START TRANSACTION;")
	if inserts < len(jobs) {
		t.updates(jobs)
		t.add("SELECT @semel_at,EXP(IF(ROW_COUNT()=1,0,999));")
	}
	if inserts > 0 {
		t.inserts(insertsOf(jobs))
		t.add("SELECT @semel_at,EXP(IF(SUM(epoch=").number(ep.number).add(" AND floor<=").number(ep.floor).
			add(")=1,0,999)) FROM semel_store WHERE id=1;")
	}
	t.add("INSERT INTO semel_journal (written,digest,meta) VALUES ")
	for i, j := range jobs {
		if i > 0 {
			t.add(",")
		}
		t.add("(@semel_at,").bytes(j.next.Digest[:]).add(",").bytes(j.meta).add(")")
	}
	return t.add(";COMMIT")
}

func (t *script) inserts(jobs []*job) {
	t.add("INSERT INTO ").add(t.in).add("semel_record (digest,epoch,counter,written,due,state,meta,result) VALUES ")
	for i, j := range jobs {
		if i > 0 {
			t.add(",")
		}
		r := &j.next
		t.add("(").bytes(r.Digest[:]).add(",").number(r.Version.Epoch).add(",").number(r.Version.Counter).add(",@semel_at,").due(r).
			add(",").number(uint64(r.State)).add(",").bytes(j.meta).add(",").result(r.Result).add(")")
	}
	t.add(";")
}

func (t *script) updates(jobs []*job) {
	first := true
	for _, j := range jobs {
		if j.old.IsZero() {
			continue
		}
		r := &j.next
		t.add("UPDATE ").add(t.in).add("semel_record SET epoch=").number(r.Version.Epoch).add(",counter=").number(r.Version.Counter).
			add(",written=@semel_at,due=").due(r).add(",state=").number(uint64(r.State)).add(",meta=").bytes(j.meta).
			add(",result=").result(r.Result).add(" WHERE digest=").bytes(r.Digest[:]).
			add(" AND epoch=").number(j.old.Epoch).add(" AND counter=").number(j.old.Counter)
		if !first {
			t.add(" AND ROW_COUNT()=1")
		}
		first = false
		t.add(";")
	}
}

// due is when the sweeper is to look at a record that is finished.
func (t *script) due(r *semel.Record) *script {
	if r.State == semel.Pending {
		return t.add("NULL")
	}
	return t.add("@semel_at+").integer(untilDue(r))
}

// untilDue is how long after its write a finished record is due, in microseconds:
// at the end of its replay, if it keeps a result, then at that of its retention.
func untilDue(r *semel.Record) int64 {
	if r.State == semel.Done && r.Replay > 0 {
		return keep(min(r.Replay, r.TTL))
	}
	return keep(r.TTL)
}
