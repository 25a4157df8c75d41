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
const columns = "digest, epoch, counter, state, expires, meta, result"

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
	want := [...]int64{int64(r.Version.Epoch), int64(r.Version.Counter), int64(r.State), expires(r)}
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

// expires is when r expires, in Unix nanoseconds; what lies beyond the last
// that fits is the last.
func expires(r *semel.Record) int64 {
	at := r.WrittenAt.UnixNano()
	if r.TTL > 0 && at > math.MaxInt64-int64(r.TTL) {
		return math.MaxInt64
	}
	return at + int64(r.TTL)
}
