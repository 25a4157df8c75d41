package semel

import (
	"encoding/hex"
	"fmt"
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
// after a restore or a promotion. The zero Version means that nothing is held.
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
