package redis

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// What a key holds, integers big-endian:
//
//	8 8 8  epoch, counter, microseconds since 1970: set by the script
//	8      epoch + microseconds + 3 * counter, which tells a flipped bit
//	4      length of the entry
//	…      the entry with neither version nor time, see [semel.Entry]
//	…      the result
const (
	versionLen = 16
	headLen    = 32
)

// appendVersion appends v as it stands at the beginning of a value.
func appendVersion(b []byte, v semel.Version) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, v.Epoch), v.Counter)
}

// appendBody appends what the script puts behind the head.
func appendBody(b []byte, r *semel.Record) []byte {
	bare := *r
	bare.Version, bare.WrittenAt = semel.Version{}, time.Time{}
	return appendCopy(b, &bare)
}

// decode reads a value; its Result is a copy. The error is [semel.ErrDamaged].
func decode(digest semel.Digest, value string) (semel.Record, error) {
	b := []byte(value)
	version, at, err := parseHead(b)
	if err != nil {
		return semel.Record{}, err
	}
	r, err := parseBody(digest, b[headLen:])
	r.Version, r.WrittenAt = version, at
	return r, err
}

// entryEnd tells where the entry ends in a value of which at least the beginning
// is there, and the result begins; 0 if that cannot be told.
func entryEnd(value string) int {
	if len(value) < headLen+4 {
		return 0
	}
	return headLen + 4 + int(min(binary.BigEndian.Uint32([]byte(value[headLen:headLen+4])), 2*maxRecord))
}

// decodeHead reads a value of which the result is missing, or a part of it. The
// record has none, and keeps Replay.
func decodeHead(digest semel.Digest, value string) (semel.Record, error) {
	b := []byte(value)
	version, at, err := parseHead(b)
	if err != nil {
		return semel.Record{}, err
	}
	end := entryEnd(value)
	if end > len(b) {
		return semel.Record{}, fmt.Errorf("%w: it was cut off", semel.ErrDamaged)
	}
	e, err := semel.ParseEntry(digest, b[headLen+4:end])
	r := e.Record
	r.Version, r.WrittenAt = version, at
	return r, err
}

// parseHead reads what the script puts before an entry.
func parseHead(b []byte) (semel.Version, time.Time, error) {
	if len(b) < headLen+4 {
		return semel.Version{}, time.Time{}, fmt.Errorf("%w: it has %d bytes, and at least %d are needed", semel.ErrDamaged, len(b), headLen+4)
	}
	version := semel.Version{Epoch: binary.BigEndian.Uint64(b), Counter: binary.BigEndian.Uint64(b[8:])}
	micros := binary.BigEndian.Uint64(b[16:])
	if version.Epoch == 0 || version.Epoch+micros+3*version.Counter != binary.BigEndian.Uint64(b[24:]) {
		return semel.Version{}, time.Time{}, fmt.Errorf("%w: its version and time contradict each other", semel.ErrDamaged)
	}
	return version, time.UnixMicro(int64(micros)), nil
}

// parseBody reads what appendBody or appendCopy wrote.
func parseBody(digest semel.Digest, b []byte) (semel.Record, error) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return semel.Record{}, fmt.Errorf("%w: it was cut off", semel.ErrDamaged)
	}
	size, rest := binary.BigEndian.Uint32(b), b[4:]
	e, err := semel.ParseEntry(digest, rest[:size])
	if err != nil {
		return semel.Record{}, err
	}
	result := rest[size:]
	if len(result) == 0 && e.ResultSum == [len(e.ResultSum)]byte{} {
		result = nil
	}
	return e.Restore(result)
}

// appendCopy appends a record as it is, with version and time, for the cache.
func appendCopy(b []byte, r *semel.Record) []byte {
	e := r.Entry()
	at := len(b)
	b = e.AppendTo(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return append(b, r.Result...)
}

// decodeCopy reads what appendCopy wrote.
func decodeCopy(digest semel.Digest, value string) (semel.Record, error) {
	r, err := parseBody(digest, []byte(value))
	if err == nil && r.Version.IsZero() {
		err = fmt.Errorf("%w: it has no version", semel.ErrDamaged)
	}
	return r, err
}
