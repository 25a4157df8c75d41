package mysql

import (
	"database/sql/driver"
	"fmt"
	"math"
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

// keep is the TTL in microseconds, rounded up so that nothing ends early.
func keep(ttl time.Duration) int64 {
	if ttl > math.MaxInt64-time.Microsecond {
		return int64(ttl / time.Microsecond)
	}
	return int64((ttl + time.Microsecond - 1) / time.Microsecond)
}
