package remote

import (
	"encoding/binary"
	"fmt"

	"github.com/semelhq/semel"
)

// A record on the wire:
//
//	32  digest
//	4 … length and bytes of its entry, as semel.Entry has them
//	1   1 if a result is kept, else 0
//	4 … length and bytes of the result, if one is kept
func appendRecord(b []byte, r *semel.Record) []byte {
	e := r.Entry()
	b = appendEntry(append(b, r.Digest[:]...), &e)
	b = appendBool(b, r.Result != nil)
	if r.Result != nil {
		b = appendBytes(b, r.Result)
	}
	return b
}

// record reads what appendRecord wrote. The result is the message's own bytes.
func (c *cursor) record() semel.Record {
	digest := c.digest()
	e := c.entry(digest)
	var result []byte
	if c.bool() {
		result = c.bytes()
	}
	if c.bad {
		return semel.Record{}
	}
	r, err := e.Restore(result)
	c.bad = err != nil
	return r
}

func appendEntry(b []byte, e *semel.Entry) []byte {
	at := len(b)
	b = e.AppendTo(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

func (c *cursor) entry(digest semel.Digest) semel.Entry {
	e, err := semel.ParseEntry(digest, c.bytes())
	c.bad = c.bad || err != nil
	return e
}

// sendable tells whether a record decodes at the other end.
func sendable(r *semel.Record) error {
	if r.State < semel.Pending || r.State > semel.Released || r.Class > semel.Transactional {
		return fmt.Errorf("a record with state %v and class %v cannot be sent", r.State, r.Class)
	}
	return nil
}

// recordSize is how many bytes a record takes, at most.
func recordSize(r *semel.Record) int {
	const fixed = 512 // digest, entry without its texts, lengths
	return fixed + len(r.Key.Scope) + len(r.Key.ID) + len(r.Owner) + len(r.Result)
}

// A reading on the wire:
//
//	8   the far store's clock, Unix nanoseconds, never 0
//	1   1 if the reading is unconfirmed, else 0
//	1   1 if a record is held, else 0
//	…   the record
func appendReading(b []byte, r *semel.Reading) []byte {
	b = appendTime(b, r.Now)
	b = appendBool(b, r.Unconfirmed)
	b = appendBool(b, r.Record.Held())
	if r.Record.Held() {
		b = appendRecord(b, &r.Record)
	}
	return b
}

// reading reads a reading of one digest: another one's is bad.
func (c *cursor) reading(digest semel.Digest) semel.Reading {
	r := semel.Reading{Now: c.time(), Unconfirmed: c.bool()}
	if c.bool() {
		r.Record = c.record()
		c.bad = c.bad || r.Record.Digest != digest || !r.Record.Held()
	}
	return r
}

// A swap on the wire is the old version and the record, whose version and time
// are zero: the far store sets them.
func appendSwap(b []byte, old semel.Version, next *semel.Record) []byte {
	r := *next
	r.Version, r.WrittenAt = semel.Version{}, semel.Record{}.WrittenAt
	return appendRecord(appendVersion(b, old), &r)
}

func (c *cursor) swap() semel.Swap {
	return semel.Swap{Old: c.version(), Next: c.record()}
}
