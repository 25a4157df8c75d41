package semel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Fingerprint tells one payload from another under the same key: the same key
// with another fingerprint is a client's mistake, and is refused without a run
// (INVARIANTS S8).
type Fingerprint [32]byte

// String gives the fingerprint in hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// FingerprintOf is SHA-256 over the parts, each preceded by its length, so that
// moving a byte from one part to the next changes the result. The number of
// parts counts as well. It does not keep the parts.
func FingerprintOf(parts ...[]byte) Fingerprint {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	var f Fingerprint
	h.Sum(f[:0])
	return f
}
