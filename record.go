package semel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"time"
)

// State is where an operation stands. In doubt is not a state: it is a pending
// record whose lease has ended, see [Record.InDoubt].
type State uint8

const (
	// Pending: somebody holds the key and may be executing.
	Pending State = iota + 1
	// Done: the operation ended, and this is what it answered.
	Done
	// Released: an attempt ended without any effect; the key is free to claim.
	Released
)

// String gives the state in lower case.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Done:
		return "done"
	case Released:
		return "released"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Class is the guarantee that a route gives. There is no class "exactly once":
// that is Transactional or Fenced, and each says what it needs.
type Class uint8

const (
	// AtMostOnce is for an opaque handler: a lost lease, an unknown commit or a
	// crash after the start leave the key in doubt, never a second run. It is the
	// zero value, so a forgotten class is the careful one.
	AtMostOnce Class = iota
	// AtLeastOnce is opt-in: when a lease is lost the handler runs again.
	AtLeastOnce
	// Fenced: the effect's target accepts our token or a key derived from ours, so
	// running again is safe.
	Fenced
	// Transactional: record and effect commit in one database transaction.
	Transactional
)

// String gives the name used in configuration and in the journal.
func (c Class) String() string {
	switch c {
	case AtMostOnce:
		return "at-most-once"
	case AtLeastOnce:
		return "at-least-once"
	case Fenced:
		return "fenced"
	case Transactional:
		return "transactional"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// ParseClass reads what [Class.String] wrote.
func ParseClass(s string) (Class, error) {
	for c := AtMostOnce; c <= Transactional; c++ {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("semel: %q is no guarantee class; there are at-most-once, at-least-once, fenced and transactional", s)
}

// takesOver tells whether a lease that ended may be taken over.
func (c Class) takesOver() bool { return c != AtMostOnce }

// Version is a record's fencing token. It grows with every write of a key and
// is never used twice for it, not even after the record was deleted
// (INVARIANTS S2). Epoch grows when a store's counter may have gone back, as
// after a restore or a promotion, and is never 0 in a record of an authoritative
// store. The zero Version means that nothing is held.
type Version struct {
	Epoch, Counter uint64
}

// IsZero tells whether v stands for "nothing is held".
func (v Version) IsZero() bool { return v == Version{} }

// Compare gives -1, 0 or +1 as v is older than, equal to or newer than w.
func (v Version) Compare(w Version) int {
	switch {
	case v.Epoch < w.Epoch, v.Epoch == w.Epoch && v.Counter < w.Counter:
		return -1
	case v == w:
		return 0
	}
	return 1
}

// String gives epoch and counter in decimal, joined by a dot.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Epoch, v.Counter) }

// Nonce names one write, so that its author recognises it after a lost answer.
type Nonce [16]byte

// String gives the nonce in hexadecimal.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// Record is all that is remembered of one operation. Stores keep every field
// as it is given, except Version and WrittenAt, which a store sets itself.
type Record struct {
	Digest      Digest
	Fingerprint Fingerprint
	State       State
	Class       Class
	Version     Version
	Nonce       Nonce
	// Attempt counts the grants of this key, from 1. It outlives a release.
	Attempt int
	// Code is the transport's status of a finished operation, such as 201. It
	// outlives the result.
	Code int
	// Result is the stored answer, opaque here: transports encode it. Nobody
	// changes its bytes. Whether one is kept is told by Replay, not by its length.
	Result []byte
	// WrittenAt is the store's clock at this write.
	WrittenAt time.Time
	// TTL counts from WrittenAt: the lease while Pending, else how long the key is
	// remembered.
	TTL time.Duration
	// Replay counts from WrittenAt: how long Result may be replayed, once Done. It
	// is 0 where no result is kept.
	Replay time.Duration
	// Key is for people and for audits; a policy may withhold it.
	Key Key
	// Owner names the process that wrote the record, for people.
	Owner string
}

// Held tells whether r is a record at all: the zero Record is "nothing held".
func (r *Record) Held() bool { return !r.Version.IsZero() }

// Expires is WrittenAt + TTL: the end of the lease or of the retention, on the
// store's clock.
func (r *Record) Expires() time.Time { return r.WrittenAt.Add(r.TTL) }

// InDoubt tells whether the record's outcome is unknown at now, a time on the
// store's clock: it is pending, its lease has ended, and its class forbids
// another run.
func (r *Record) InDoubt(now time.Time) bool {
	return r.State == Pending && !now.Before(r.Expires()) && !r.Class.takesOver()
}

// Tombstone gives r without its result, as a sweep leaves it once its replay is
// over: a retry is told that the operation ran, and with which code. Nothing else
// changes, and so it is still the same write.
func (r Record) Tombstone() Record {
	r.Result, r.Replay = nil, 0
	return r
}

// Spent tells whether r keeps a result at now, a time on the store's clock, that
// cannot be replayed any more.
func (r *Record) Spent(now time.Time) bool {
	return r.State == Done && r.Replay > 0 && !now.Before(r.WrittenAt.Add(r.Replay))
}

// Entry is a record as one write left it, with the digest of its result in
// place of the result: one line of a journal, and what stores keep of a record
// beside its result.
type Entry struct {
	Record Record
	// ResultSum is the SHA-256 of the result, zero where none is kept.
	ResultSum [sha256.Size]byte
}

// Entry gives r as an entry, which shares nothing with r.
func (r *Record) Entry() Entry {
	e := Entry{Record: *r}
	e.Record.Result = nil
	if r.Result != nil {
		e.ResultSum = sha256.Sum256(r.Result)
	}
	return e
}

// Restore gives the record of e with the result that was kept beside it, nil if
// none was. The error is [ErrDamaged] if that is not the entry's result.
func (e *Entry) Restore(result []byte) (Record, error) {
	kept := e.ResultSum != [sha256.Size]byte{}
	switch {
	case kept && result == nil:
		return Record{}, fmt.Errorf("%w: its result is missing", ErrDamaged)
	case !kept && result != nil:
		return Record{}, fmt.Errorf("%w: it has a result that should not be there", ErrDamaged)
	case kept && sha256.Sum256(result) != e.ResultSum:
		return Record{}, fmt.Errorf("%w: its result has another SHA-256", ErrDamaged)
	}
	r := e.Record
	r.Result = result
	return r, nil
}

// The bytes of an entry, all integers big-endian:
//
//	1   format, 1
//	4   CRC-32C of the digest and of everything after these four bytes
//	8 8 version: epoch, counter
//	1 1 state, class
//	32  fingerprint
//	16  nonce
//	8 8 attempt, code
//	8   written at, Unix nanoseconds; 0 for the zero time
//	8 8 TTL and replay, nanoseconds
//	1   1 if a result is kept, else 0
//	32  SHA-256 of the result, if one is kept
//	…   scope, id, owner: each a uvarint of its length, then its bytes
const (
	entryFormat = 1
	entryFixed  = 1 + 4 + 16 + 2 + 32 + 16 + 16 + 8 + 16 + 1
	entryBody   = 1 + 4
)

func (e *Entry) checksum(body []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(e.Record.Digest[:], table), table, body)
}

// AppendTo appends the entry's bytes to b. The digest is not among them, since
// every store has it as its key; a checksum covers it with the rest.
func (e *Entry) AppendTo(b []byte) []byte {
	r := &e.Record
	start := len(b)
	b = append(b, entryFormat, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, r.Version.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.Version.Counter)
	b = append(b, byte(r.State), byte(r.Class))
	b = append(b, r.Fingerprint[:]...)
	b = append(b, r.Nonce[:]...)
	written := int64(0)
	if !r.WrittenAt.IsZero() {
		written = r.WrittenAt.UnixNano()
	}
	for _, n := range [...]int64{int64(r.Attempt), int64(r.Code), written, int64(r.TTL), int64(r.Replay)} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if e.ResultSum == [sha256.Size]byte{} {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), e.ResultSum[:]...)
	}
	for _, text := range [...]string{r.Key.Scope, r.Key.ID, r.Owner} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	binary.BigEndian.PutUint32(b[start+1:], e.checksum(b[start+entryBody:]))
	return b
}

// ParseEntry reads what [Entry.AppendTo] wrote for digest, and nothing else: the
// error is [ErrDamaged]. It keeps nothing of b.
func ParseEntry(digest Digest, b []byte) (Entry, error) {
	e := Entry{Record: Record{Digest: digest}}
	switch {
	case len(b) < entryFixed:
		return e, fmt.Errorf("%w: it has %d bytes, and at least %d are needed", ErrDamaged, len(b), entryFixed)
	case b[0] != entryFormat:
		return e, fmt.Errorf("%w: it has the format %d, and 1 is known", ErrDamaged, b[0])
	case binary.BigEndian.Uint32(b[1:]) != e.checksum(b[entryBody:]):
		return e, fmt.Errorf("%w: its checksum differs", ErrDamaged)
	}
	if !e.parseBody(b[entryBody:]) {
		return e, fmt.Errorf("%w: its fields do not decode", ErrDamaged)
	}
	return e, nil
}

// parseBody reads all fields and tells whether they are what AppendTo writes.
func (e *Entry) parseBody(b []byte) bool {
	number := func() int64 {
		n := binary.BigEndian.Uint64(b)
		b = b[8:]
		return int64(n)
	}
	r := &e.Record
	r.Version = Version{uint64(number()), uint64(number())}
	r.State, r.Class = State(b[0]), Class(b[1])
	b = b[2:]
	b = b[copy(r.Fingerprint[:], b):]
	b = b[copy(r.Nonce[:], b):]
	r.Attempt, r.Code = int(number()), int(number())
	if written := number(); written != 0 {
		r.WrittenAt = time.Unix(0, written)
	}
	r.TTL, r.Replay = time.Duration(number()), time.Duration(number())
	kept := b[0]
	b = b[1:]
	if kept > 1 || kept == 1 && len(b) < len(e.ResultSum) {
		return false
	}
	if kept == 1 {
		b = b[copy(e.ResultSum[:], b):]
	}
	for _, text := range [...]*string{&r.Key.Scope, &r.Key.ID, &r.Owner} {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > uint64(len(b)-width) {
			return false
		}
		*text, b = string(b[width:width+int(n)]), b[width+int(n):]
	}
	return len(b) == 0 && r.State >= Pending && r.State <= Released && r.Class <= Transactional
}
