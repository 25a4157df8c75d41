package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/semelhq/semel"
)

// The meta column is the record less its result, as [semel.Entry] has it, with
// no version and no time: those are the server's and stand in columns. On the
// wire everything is in PostgreSQL's binary form.

// errDecode is why a row is damaged; which row is added by who reads it.
var errDecode = errors.New("postgres: the row does not decode")

// century is when PostgreSQL's times begin: 2000-01-01, in Unix microseconds.
const century = 946_684_800_000_000

// maxResult is the longest result, in bytes. A row's value, and a message of
// the protocol, end at 1 GiB; the entry and the other parameters need room, too.
const maxResult = 1<<30 - 1<<20

func int8Bytes(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
func int2Bytes(n uint8) []byte { return []byte{0, n} }

func timeBytes(t time.Time) []byte { return int8Bytes(t.UnixMicro() - century) }

// micros is d in microseconds, never shorter than d.
func micros(d time.Duration) int64 {
	n := int64(d / time.Microsecond)
	if d%time.Microsecond > 0 {
		n++
	}
	return n
}

func intervalBytes(d time.Duration) []byte {
	return append(int8Bytes(micros(d)), 0, 0, 0, 0, 0, 0, 0, 0) // no days, no months
}

// Types of array elements, from PostgreSQL's catalogue.
const (
	oidBytea    = 17
	oidInt8     = 20
	oidInt2     = 21
	oidInterval = 1186
)

// array is the head of an array of n elements, with room for size bytes of them.
func array(oid uint32, n, size int) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 20+4*n+size), 1)
	b = binary.BigEndian.AppendUint32(b, 1) // may have NULLs
	b = binary.BigEndian.AppendUint32(b, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return binary.BigEndian.AppendUint32(b, 1) // the first index
}

// appendBytes appends an element; nil is NULL.
func appendBytes(b, element []byte) []byte {
	if element == nil {
		return binary.BigEndian.AppendUint32(b, math.MaxUint32)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(element))), element...)
}

func appendInt8(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, 8), n)
}

func appendInt2(b []byte, n uint8) []byte { return append(b, 0, 0, 0, 2, 0, n) }

func appendInterval(b []byte, d time.Duration) []byte {
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, 16), uint64(micros(d)))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// encode gives the meta column of next.
func encode(next *semel.Record) []byte {
	e := next.Entry()
	e.Record.Version, e.Record.WrittenAt = semel.Version{}, time.Time{}
	return e.AppendTo(make([]byte, 0, 192+len(next.Key.Scope)+len(next.Key.ID)+len(next.Owner)))
}

// row is one row of a statement's answer.
type row struct {
	kind           int16
	n              int64
	epoch, counter int64
	at             time.Time // written, or the header's clock
	expires        time.Time
	state          int16
	xmin           uint32
	meta, result   []byte
}

// The places of a row's columns.
const (
	colKind = iota
	colN
	colEpoch
	colCounter
	colWritten
	colExpires
	colState
	colXmin
	colMeta
	colResult
	columns
)

// fields takes columns apart.
type fields struct {
	values [][]byte
	err    error
}

func (f *fields) number(col, width int) (n uint64) {
	v := f.values[col]
	if v == nil {
		return 0
	}
	if len(v) != width {
		f.err = fmt.Errorf("postgres: column %d has %d bytes, want %d", col, len(v), width)
		return 0
	}
	for _, b := range v {
		n = n<<8 | uint64(b)
	}
	return n
}

func (f *fields) instant(col int) time.Time { return time.UnixMicro(int64(f.number(col, 8)) + century) }

// parseRow takes the columns apart. It keeps nothing of them.
func parseRow(v [][]byte) (r row, err error) {
	if len(v) != columns {
		return r, fmt.Errorf("postgres: an answer of %d columns, want %d", len(v), columns)
	}
	f := fields{values: v}
	r.kind, r.n = int16(f.number(colKind, 2)), int64(f.number(colN, 8))
	r.epoch, r.counter = int64(f.number(colEpoch, 8)), int64(f.number(colCounter, 8))
	r.at, r.expires = f.instant(colWritten), f.instant(colExpires)
	r.state, r.xmin = int16(f.number(colState, 2)), uint32(f.number(colXmin, 4))
	r.meta = clone(v[colMeta])
	r.result = clone(v[colResult])
	return r, f.err
}

// The numbers of columns of bound statements: of a last swap, and of one that
// tells what is held.
const (
	boundShort = 5
	boundLong  = boundShort + 8
)

// parseBound takes a bound statement's one row apart into the rows that the
// store's own statements have. epoch is that of what was written.
func (a *answer) parseBound(v [][]byte, epoch int64) error {
	if len(v) != boundShort && len(v) != boundLong {
		return fmt.Errorf("postgres: an answer of %d columns, want %d or %d", len(v), boundShort, boundLong)
	}
	f := fields{values: v}
	a.header = row{at: f.instant(2), state: int16(f.number(3, 2))}
	if len(v) == boundShort {
		a.header.epoch = int64(f.number(4, 8))
	}
	switch {
	case v[0] != nil:
		a.rows = []row{{kind: 1, n: 1, epoch: epoch, counter: int64(f.number(0, 8)), at: f.instant(1)}}
	case len(v) == boundLong && v[boundShort] != nil:
		const h = boundShort
		a.rows = []row{{
			kind: 2, n: 1, epoch: int64(f.number(h, 8)), counter: int64(f.number(h+1, 8)), at: f.instant(h + 2), expires: f.instant(h + 3),
			state: int16(f.number(h+4, 2)), xmin: uint32(f.number(h+5, 4)), meta: clone(v[h+6]), result: clone(v[h+7]),
		}}
	}
	return f.err
}

// clone keeps the difference between nothing and an empty value.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// record decodes what is held.
func (r *row) record(digest semel.Digest) (semel.Record, error) {
	e, err := r.whole(digest[:])
	if err != nil {
		return semel.Record{}, err
	}
	return e.Restore(r.result)
}

// whole decodes what is held less its result. The columns must say the same as
// meta.
func (r *row) whole(digest []byte) (semel.Entry, error) {
	if len(digest) != len(semel.Digest{}) {
		return semel.Entry{}, fmt.Errorf("%w: a digest of %d bytes", errDecode, len(digest))
	}
	e, err := r.entry(semel.Digest(digest))
	if err != nil {
		return e, err
	}
	if int16(e.Record.State) != r.state {
		return e, fmt.Errorf("%w: a column says state %d and the record %v", errDecode, r.state, e.Record.State)
	}
	ends := e.Record.WrittenAt.UnixMicro() + micros(e.Record.TTL)
	if ends != r.expires.UnixMicro() {
		return e, fmt.Errorf("%w: a column says that it ends at %v, and the record %v after %v", errDecode, r.expires, e.Record.TTL, r.at)
	}
	return e, nil
}

// entry decodes a row of the journal, or what is held less its result.
func (r *row) entry(digest semel.Digest) (semel.Entry, error) {
	e, err := semel.ParseEntry(digest, r.meta)
	if err == nil && (!e.Record.Version.IsZero() || !e.Record.WrittenAt.IsZero() || r.epoch == 0 || r.counter == 0) {
		err = errDecode
	}
	e.Record.Version, e.Record.WrittenAt = r.version(), r.at
	return e, err
}

func (r *row) version() semel.Version {
	return semel.Version{Epoch: uint64(r.epoch), Counter: uint64(r.counter)}
}
