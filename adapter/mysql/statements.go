package mysql

import (
	"encoding/hex"
	"strconv"

	"github.com/semelhq/semel"
)

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

// due is when the sweeper may take a record that is finished.
func (t *script) due(r *semel.Record) *script {
	if r.State == semel.Pending {
		return t.add("NULL")
	}
	return t.add("@semel_at+").integer(keep(r.TTL))
}
