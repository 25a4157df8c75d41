package etcd

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/semelhq/semel"
)

// The keys of a store. All begin with its prefix; integers are big-endian.
//
//	floor                        the version that every write must exceed, see floor.go
//	r/ digest                    a record
//	x/ due digest                what Sweep does with a record then: its version; if it is to
//	                             take the result, also the result's length and when the record
//	                             expires
//	j/ day digest version        a line of the journal: an entry
//
// due and expires are in Unix nanoseconds, lengths in bytes (8 bytes each), day the number of the UTC day since 1970 (4
// bytes).
const day = 24 * time.Hour

func (c *cluster) recordKey(d *semel.Digest) string { return c.prefix + "r/" + string(d[:]) }

func (c *cluster) dueKey(at int64, d *semel.Digest) string {
	b := append(make([]byte, 0, len(c.prefix)+2+8+len(d)), c.prefix...)
	b = binary.BigEndian.AppendUint64(append(b, "x/"...), uint64(max(at, 0)))
	return string(append(b, d[:]...))
}

// journalDay is where the journal of one day begins, or that of one key in it.
func (c *cluster) journalDay(day uint32, digest []byte) string {
	b := append(make([]byte, 0, len(c.prefix)+2+4+len(digest)), c.prefix...)
	b = binary.BigEndian.AppendUint32(append(b, "j/"...), day)
	return string(append(b, digest...))
}

func dayOf(t time.Time) uint32 { return uint32(t.Unix() / int64(day/time.Second)) }

// versionBytes are ordered as versions are.
func versionBytes(v semel.Version) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), v.Epoch)
	return string(binary.BigEndian.AppendUint64(b, v.Counter))
}

func parseVersion(b []byte) semel.Version {
	return semel.Version{Epoch: binary.BigEndian.Uint64(b), Counter: binary.BigEndian.Uint64(b[8:])}
}

// The value of a record:
//
//	16  version, by which transactions compare
//	8   which store wrote it, a random number
//	4   how far off its clock may have been, microseconds
//	4   CRC-32C of the digest and of all above
//	…   uvarint of the entry's length, the entry, the result
const (
	headVersion = 16
	headSum     = headVersion + 8 + 4
	headFixed   = headSum + 4
)

// stamp is what a store writes beside a record's WrittenAt.
type stamp struct {
	writer uint64
	err    time.Duration
}

func headChecksum(d *semel.Digest, head []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(d[:], table), table, head)
}

func encodeRecord(r *semel.Record, by stamp) (value, entry string) {
	e := r.Entry()
	line := e.AppendTo(nil)
	b := make([]byte, 0, headFixed+4+len(line)+len(r.Result))
	b = append(b, versionBytes(r.Version)...)
	b = binary.BigEndian.AppendUint64(b, by.writer)
	b = binary.BigEndian.AppendUint32(b, uint32(min(by.err.Microseconds()+1, math.MaxUint32)))
	b = binary.BigEndian.AppendUint32(b, headChecksum(&r.Digest, b))
	b = binary.AppendUvarint(b, uint64(len(line)))
	b = append(append(b, line...), r.Result...)
	return string(b), string(line)
}

// decodeRecord keeps the result's bytes within value, which must not change.
func decodeRecord(d semel.Digest, value []byte) (semel.Record, stamp, error) {
	fail := func(format string, args ...any) (semel.Record, stamp, error) {
		return semel.Record{}, stamp{}, fmt.Errorf("etcd: digest %v: %w: %s", d, semel.ErrDamaged, fmt.Sprintf(format, args...))
	}
	if len(value) < headFixed {
		return fail("its value has %d bytes, and at least %d are needed", len(value), headFixed)
	}
	if binary.BigEndian.Uint32(value[headSum:]) != headChecksum(&d, value[:headSum]) {
		return fail("the checksum of its head differs")
	}
	by := stamp{binary.BigEndian.Uint64(value[headVersion:]), time.Duration(binary.BigEndian.Uint32(value[headVersion+8:])) * time.Microsecond}
	n, width := binary.Uvarint(value[headFixed:])
	rest := value[headFixed+max(width, 0):]
	if width <= 0 || n > uint64(len(rest)) {
		return fail("its entry is cut off")
	}
	e, err := semel.ParseEntry(d, rest[:n])
	if err != nil {
		return fail("%v", err)
	}
	if e.Record.Version != parseVersion(value) || e.Record.Version.IsZero() {
		return fail("its head has the version %v and its entry %v", parseVersion(value), e.Record.Version)
	}
	result := rest[n:len(rest):len(rest)]
	if len(result) == 0 && e.ResultSum == [len(e.ResultSum)]byte{} {
		result = nil
	}
	r, err := e.Restore(result)
	if err != nil {
		return fail("%v", err)
	}
	return r, by, nil
}

// after is a time after r was written, in Unix nanoseconds; what lies beyond the
// last that fits is the last.
func after(r *semel.Record, d time.Duration) int64 {
	at := r.WrittenAt.UnixNano()
	if d > 0 && at > math.MaxInt64-int64(d) {
		return math.MaxInt64
	}
	return at + int64(d)
}

// due is an entry of the index.
type due struct {
	key     string
	digest  semel.Digest
	version semel.Version
	spent   bool // the result goes, and the record stays
	size    int  // of the result
	expires int64
}

// dueAt is when an entry of the index is due.
func (c *cluster) dueAt(d *due) time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64([]byte(d.key[len(c.prefix)+2:]))))
}

// due gives the index's entry for a record that is over.
func (c *cluster) due(r *semel.Record) (key, value string) {
	value = versionBytes(r.Version)
	expires := after(r, r.TTL)
	if r.State != semel.Done || r.Replay <= 0 || r.Replay >= r.TTL {
		return c.dueKey(expires, &r.Digest), value
	}
	b := binary.BigEndian.AppendUint64([]byte(value), uint64(len(r.Result)))
	return c.dueKey(after(r, r.Replay), &r.Digest), string(binary.BigEndian.AppendUint64(b, uint64(expires)))
}

func (c *cluster) parseDue(kv *mvccpb.KeyValue) (due, error) {
	d := due{key: string(kv.Key), spent: len(kv.Value) == 32}
	rest := kv.Key[len(c.prefix)+2:]
	if len(rest) != 8+len(d.digest) || len(kv.Value) != 16 && !d.spent {
		return d, fmt.Errorf("etcd: %w: the index has the entry %q, which is not of a store", semel.ErrDamaged, kv.Key)
	}
	copy(d.digest[:], rest[8:])
	d.version = parseVersion(kv.Value)
	if d.spent {
		d.size = int(min(binary.BigEndian.Uint64(kv.Value[16:]), math.MaxInt32))
		d.expires = int64(binary.BigEndian.Uint64(kv.Value[24:]))
	}
	return d, nil
}
