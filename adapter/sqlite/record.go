package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"math"

	"github.com/semelhq/semel"
)

// The meta column is the record less its result, as [semel.Entry] has it.

// errDecode is why a row is damaged; which row is added by who reads it.
var errDecode = errors.New("sqlite: the row does not decode")

// columns are what decodeRow takes, in this order.
const columns = "digest, epoch, counter, state, due, meta, result"

// decodeRow reads a row of the table record. The columns must say the same as
// meta: a flipped bit in any of them is damage, not another truth.
func decodeRow(row []driver.Value) (semel.Record, error) {
	key, _ := row[0].([]byte)
	if len(key) != len(semel.Digest{}) {
		return semel.Record{}, fmt.Errorf("%w: a digest of %d bytes", errDecode, len(key))
	}
	meta, _ := row[5].([]byte)
	e, err := decodeMeta(semel.Digest(key), meta)
	if err != nil {
		return semel.Record{}, err
	}
	r := &e.Record
	want := [...]int64{int64(r.Version.Epoch), int64(r.Version.Counter), int64(r.State), due(r)}
	for i, n := range want {
		if got, ok := row[1+i].(int64); !ok || got != n {
			return semel.Record{}, fmt.Errorf("%w: a column says %v and the record %d", errDecode, row[1+i], n)
		}
	}
	result, kept := row[6].([]byte)
	if kept && result == nil {
		result = []byte{}
	}
	return e.Restore(result)
}

// decodeMeta reads a meta column.
func decodeMeta(digest semel.Digest, meta []byte) (semel.Entry, error) {
	e, err := semel.ParseEntry(digest, meta)
	if err == nil && e.Record.Version.IsZero() {
		err = fmt.Errorf("%w: it has no version", errDecode)
	}
	return e, err
}

// due is when r needs somebody, in Unix nanoseconds: at the end of its lease, or,
// once it is over, when the sweeper has to take its result, or all of it. What
// lies beyond the last that fits is the last.
func due(r *semel.Record) int64 {
	at, in := r.WrittenAt.UnixNano(), r.TTL
	if r.State == semel.Done && r.Replay > 0 {
		in = min(in, r.Replay)
	}
	if in > 0 && at > math.MaxInt64-int64(in) {
		return math.MaxInt64
	}
	return at + int64(in)
}
