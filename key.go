package semel

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Digest is the 32-byte name under which stores know a key.
type Digest [32]byte

// String gives the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads what [Digest.String] wrote.
func ParseDigest(s string) (Digest, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(Digest{}) {
		return Digest{}, errors.New("semel: a digest is 64 hexadecimal digits")
	}
	return Digest(raw), nil
}

// Key names one intended operation: whose it is, and which one.
//
// Two keys are the same operation only if both fields are equal byte for
// byte. There is no folding of case, accents or trailing space, whatever the
// database below would do: stores see the [Digest] only.
type Key struct {
	// Scope is tenant, principal and operation, joined by [JoinScope]. Records
	// never cross scopes (INVARIANTS S9).
	Scope string
	// ID is the client's key, or one derived from content.
	ID string
}

// Digest is SHA-256 over the length-prefixed fields, or HMAC-SHA-256 where the
// deployment has a secret. Without the secret nobody who reads a store can
// test a guess of a key. Changing the secret makes every key a new key.
func (k Key) Digest(secret []byte) Digest {
	var room [256]byte
	b := append(room[:0], "semel key 1\n"...)
	for _, field := range [...]string{k.Scope, k.ID} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(field)))
		b = append(b, field...)
	}
	if len(secret) == 0 {
		return sha256.Sum256(b)
	}
	return sealedDigest(secret, string(b))
}

// sealedDigest takes a copy, so that the plain digest's buffer stays on the stack.
func sealedDigest(secret []byte, text string) Digest {
	h := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(h, text) // a hash never fails
	return Digest(h.Sum(nil))
}

// JoinScope joins the parts of a scope so that no two different lists of parts
// give the same scope: a vertical bar or a backslash inside a part is escaped
// with a backslash. A caller who controls one part cannot reach another's
// scope, nor one that Semel uses for itself.
func JoinScope(parts ...string) string {
	plain := true
	for _, p := range parts {
		plain = plain && !strings.ContainsAny(p, `|\`)
	}
	if plain {
		return strings.Join(parts, "|")
	}
	escape := strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = escape.Replace(p)
	}
	return strings.Join(escaped, "|")
}

// KeyTime tells the time that a key carries in itself, to the millisecond, if
// the key is a UUID of version 7 in its text form (RFC 9562, section 5.7).
func KeyTime(id string) (time.Time, bool) {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[14] != '7' || id[18] != '-' || id[23] != '-' {
		return time.Time{}, false
	}
	var raw [16]byte
	var text [32]byte
	n := 0
	for i := range len(id) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		text[n] = id[i]
		n++
	}
	if _, err := hex.Decode(raw[:], text[:]); err != nil || raw[8]>>6 != 2 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, raw[:6]...)))), true
}

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

// checkSecret writes which secret the store's digests are made with, or
// compares: with another secret every stored key would be a new one, and every
// retry a second run.
func (g *Guard) checkSecret(ctx context.Context) error {
	key := Key{Scope: JoinScope("semel", "self-test"), ID: "deployment secret"}
	mark := Record{
		// A plain digest: who has another secret must find it.
		Digest: key.Digest(nil), Fingerprint: Fingerprint(g.Digest(key)), State: Done, Nonce: newNonce(),
		Attempt: 1, TTL: math.MaxInt64 / 2, Key: key, Owner: g.options.Owner,
	}
	held, err := g.store.CompareAndSwap(ctx, Version{}, mark)
	switch {
	case errors.Is(err, ErrConflict) && held.Record.Fingerprint == mark.Fingerprint, err == nil:
		return nil
	case errors.Is(err, ErrConflict):
		return fmt.Errorf("semel: this store was written with another deployment secret (first by %s): every key in it would be "+
			"new again, and every retry a second run; start with that secret, or take an empty store", held.Record.Owner)
	}
	return fmt.Errorf("semel: the store failed its self-test: the mark of the deployment's secret was not written: %w", errors.Join(ErrUnavailable, err))
}
