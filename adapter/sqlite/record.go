package sqlite

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/semelhq/semel"
)

// The meta column is the record less its result, in this order; integers are
// big-endian.
//
//	1   format, 1
//	4   CRC-32C of the digest and of everything after these four bytes
//	8 8 version: epoch, counter
//	1 1 state, class
//	32  fingerprint
//	16  nonce
//	8 8 attempt, code
//	8   written at, Unix nanoseconds
//	8 8 TTL and replay, nanoseconds
//	1   1 if a result is kept, else 0
//	32  SHA-256 of the result, if one is kept
//	…   scope, id, owner: each a uvarint of its length, then its bytes
const (
	metaFormat = 1
	metaFixed  = 1 + 4 + 16 + 2 + 32 + 16 + 16 + 8 + 16 + 1
	sumAt      = 1
	bodyAt     = sumAt + 4
)

// errDecode is why a row is damaged; which row is added by who reads it.
var errDecode = errors.New("sqlite: the row does not decode")

// entry is a decoded row: the record less its result, and the result's sum.
type entry struct {
	record semel.Record
	kept   bool // a result
	sum    [sha256.Size]byte
}

func checksum(digest *semel.Digest, body []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(digest[:], table), table, body)
}

// appendMeta appends r as the meta column holds it.
func appendMeta(b []byte, r *semel.Record) []byte {
	start := len(b)
	b = append(b, metaFormat, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, r.Version.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.Version.Counter)
	b = append(b, byte(r.State), byte(r.Class))
	b = append(b, r.Fingerprint[:]...)
	b = append(b, r.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Attempt))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Code))
	b = binary.BigEndian.AppendUint64(b, uint64(r.WrittenAt.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(r.TTL))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Replay))
	if r.Result == nil {
		b = append(b, 0)
	} else {
		sum := sha256.Sum256(r.Result)
		b = append(append(b, 1), sum[:]...)
	}
	for _, text := range [...]string{r.Key.Scope, r.Key.ID, r.Owner} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	binary.BigEndian.PutUint32(b[start+sumAt:], checksum(&r.Digest, b[start+bodyAt:]))
	return b
}

// decodeMeta reads what appendMeta wrote for digest. It accepts nothing else.
func decodeMeta(digest semel.Digest, b []byte) (e entry, err error) {
	if len(b) < metaFixed {
		return e, fmt.Errorf("%w: %d bytes, at least %d", errDecode, len(b), metaFixed)
	}
	if b[0] != metaFormat {
		return e, fmt.Errorf("%w: format %d", errDecode, b[0])
	}
	if binary.BigEndian.Uint32(b[sumAt:]) != checksum(&digest, b[bodyAt:]) {
		return e, fmt.Errorf("%w: its checksum differs", errDecode)
	}
	b = b[bodyAt:]
	number := func() uint64 {
		n := binary.BigEndian.Uint64(b)
		b = b[8:]
		return n
	}
	r := &e.record
	r.Digest = digest
	r.Version.Epoch = number()
	r.Version.Counter = number()
	r.State, r.Class = semel.State(b[0]), semel.Class(b[1])
	b = b[2:]
	b = b[copy(r.Fingerprint[:], b):]
	b = b[copy(r.Nonce[:], b):]
	r.Attempt, r.Code = int(number()), int(number())
	r.WrittenAt = time.Unix(0, int64(number()))
	r.TTL, r.Replay = time.Duration(number()), time.Duration(number())
	e.kept, b = b[0] == 1, b[1:]
	if e.kept && len(b) < len(e.sum) {
		return e, errDecode
	}
	if e.kept {
		b = b[copy(e.sum[:], b):]
	}
	for _, text := range [...]*string{&r.Key.Scope, &r.Key.ID, &r.Owner} {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > uint64(len(b)-width) {
			return e, errDecode
		}
		*text, b = string(b[width:width+int(n)]), b[width+int(n):]
	}
	if len(b) > 0 || r.State < semel.Pending || r.State > semel.Released || r.Class > semel.Transactional || r.Version.IsZero() {
		return e, errDecode
	}
	return e, nil
}

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
	r := e.record
	want := [...]int64{int64(r.Version.Epoch), int64(r.Version.Counter), int64(r.State), expires(&r)}
	for i, n := range want {
		if got, ok := row[1+i].(int64); !ok || got != n {
			return semel.Record{}, fmt.Errorf("%w: a column says %v and the record %d", errDecode, row[1+i], n)
		}
	}
	result, kept := row[6].([]byte)
	if kept != e.kept {
		return semel.Record{}, fmt.Errorf("%w: its result is missing, or should not be there", errDecode)
	}
	if kept {
		if result == nil {
			result = []byte{}
		}
		if sha256.Sum256(result) != e.sum {
			return semel.Record{}, fmt.Errorf("%w: its result has another SHA-256", errDecode)
		}
		r.Result = result
	}
	return r, nil
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
