package semelhttp

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// NewKey gives a new key: a UUID of version 7 (RFC 9562, section 5.7), which
// carries the time, so that a server recognises it as too old long after it has
// forgotten it. A client that must survive a crash makes its key itself, writes
// it down with what it is about to ask for, and sets the header. Safe for
// concurrent use.
func NewKey() string { return uuid7(ticks(time.Now())) }

// DeriveKey gives the key that belongs to the fields: the same for the same
// fields in the same order, whoever asks and whenever, and another for any others
// ("ab", "c" is not "a", "bc"). The fields cannot be read back from it, unless
// they can be guessed. Name in them what makes the operation one: an order's
// number and what is done to it, not the amount alone.
func DeriveKey(fields ...string) string {
	b := []byte("semel derived key 1\n")
	for _, field := range fields {
		b = binary.BigEndian.AppendUint64(b, uint64(len(field)))
		b = append(b, field...)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// KeyFromHeaders is for [Transport.Key]: it derives the key from method, path and
// the values of the named request headers. Each must be there and not be empty,
// or the request is not sent.
func KeyFromHeaders(names ...string) func(*http.Request) (string, error) {
	return func(r *http.Request) (string, error) {
		fields := []string{"headers", r.Method, r.URL.EscapedPath()}
		for _, name := range names {
			values := r.Header.Values(name)
			if strings.Join(values, "") == "" {
				return "", fmt.Errorf("semelhttp: the key is derived from the request header %s, which is missing or empty", name)
			}
			fields = append(fields, strconv.Itoa(len(values)))
			fields = append(fields, values...)
		}
		return DeriveKey(fields...), nil
	}
}

// KeyFromJSON is for [Transport.Key]: it derives the key from method, path and
// the named members of the JSON object that is the request's body. "order.id" is
// the member id of the member order. Each must be a string that is not empty, a
// number or a boolean, or the request is not sent. Numbers count as they are
// written: 1 and 1.0 give two keys.
func KeyFromJSON(names ...string) func(*http.Request) (string, error) {
	return func(r *http.Request) (string, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return "", err
		}
		fields := []string{"json", r.Method, r.URL.EscapedPath()}
		for _, name := range names {
			value, err := jsonScalar(body, strings.Split(name, "."))
			if err != nil {
				return "", fmt.Errorf("semelhttp: the key is derived from the JSON member %q: %w", name, err)
			}
			fields = append(fields, value)
		}
		return DeriveKey(fields...), nil
	}
}

// jsonScalar gives the value at a path. Its first byte tells its type, as "1" and
// 1 are two values.
func jsonScalar(body json.RawMessage, path []string) (string, error) {
	for _, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return "", fmt.Errorf("the body has no JSON object that could hold it")
		}
		body = object[name]
	}
	switch {
	case len(body) == 0 || string(body) == "null" || string(body) == `""`:
		return "", fmt.Errorf("it is missing or empty")
	case body[0] == '{' || body[0] == '[':
		return "", fmt.Errorf("it is an object or an array; name the members in it")
	case body[0] != '"':
		return "#" + string(body), nil
	}
	var s string
	err := json.Unmarshal(body, &s)
	return `"` + s, err
}

// keyClock makes keys that grow strictly, also where many are made in one tick.
type keyClock struct {
	mu   sync.Mutex
	last uint64
}

// maxLead is how far, in ticks, keys may run ahead of the clock before they
// follow it backwards. A clock that was an hour fast and is set right must not
// leave an hour of keys from the future, which servers refuse.
const maxLead = 1000 << 12 // one second

func (c *keyClock) next(now time.Time) string {
	c.mu.Lock()
	tick := ticks(now)
	if tick <= c.last && c.last-tick < maxLead {
		tick = c.last + 1
	}
	c.last = tick
	c.mu.Unlock()
	return uuid7(tick)
}

// ticks counts milliseconds in the upper bits and 4096ths of one in the lower
// twelve (RFC 9562, section 6.2, method 3).
func ticks(now time.Time) uint64 {
	ns := max(now.UnixNano(), 0)
	fraction := ns % int64(time.Millisecond) << 12 / int64(time.Millisecond)
	return uint64(ns/int64(time.Millisecond))<<12 | uint64(fraction)
}

func uuid7(tick uint64) string {
	var raw [16]byte
	_, _ = rand.Read(raw[8:]) // never fails: it ends the program instead
	binary.BigEndian.PutUint64(raw[:8], tick>>12<<16|7<<12|tick&0xfff)
	raw[8] = raw[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], raw[:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:], raw[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
