package semelhttp

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxKeyBytes is the longest key, after quotes and escapes are removed.
const maxKeyBytes = 255

// ParseKey reads the key out of all lines of an Idempotency-Key header, as
// r.Header.Values gives them.
//
// The header is a structured-field string (RFC 9651, section 3.3.3, as
// draft-ietf-httpapi-idempotency-key-header-07 demands): "8e03978e", in quotes.
// A bare value, as most clients send it, is the same key as its quoted form: a
// UUID, base64, order:42. Bare values consist of visible ASCII without quotes,
// commas and semicolons; quoted ones may hold these and spaces. A key has 1 to
// 255 bytes. Space around the value does not count.
//
// Two lines, a list and parameters are refused, never guessed at: to pick one of
// two keys is to pick one of two operations. Errors say what to send instead and
// never contain the key, so they may go to clients and logs.
func ParseKey(lines []string) (string, error) {
	switch {
	case len(lines) == 0:
		return "", errors.New("there is no idempotency key; send one of 1 to 255 characters, such as a UUID")
	case len(lines) > 1:
		return "", fmt.Errorf("the idempotency key comes %d times; send the header once", len(lines))
	}
	value := strings.Trim(lines[0], " \t")
	if len(value) > 2*maxKeyBytes+2 { // longer than any key with each byte escaped
		return "", tooLong(len(value))
	}
	if value == "" {
		return "", errEmptyKey
	}
	if value[0] == '"' {
		return parseQuoted(value[1:])
	}
	return parseBare(value)
}

// FormatKey gives the header value for a key: the structured-field string, in
// quotes. [ParseKey] gives the key back. The error tells why id cannot be a key.
func FormatKey(id string) (string, error) {
	if id == "" {
		return "", errEmptyKey
	}
	if len(id) > maxKeyBytes {
		return "", tooLong(len(id))
	}
	b := make([]byte, 0, len(id)+2)
	b = append(b, '"')
	for i := range len(id) {
		if c := id[i]; !printable(c) {
			return "", badByte(c, i)
		} else if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, id[i])
	}
	return string(append(b, '"')), nil
}

var errEmptyKey = errors.New("the idempotency key is empty; send 1 to 255 characters, such as a UUID")

func parseBare(value string) (string, error) {
	for i := range len(value) {
		switch c := value[i]; {
		case !printable(c):
			return "", badByte(c, i)
		case c == ',':
			return "", fmt.Errorf("the idempotency key has a comma at byte %d; send one key, not a list, or put a key that contains a comma in double quotes", i)
		case c == ';':
			return "", fmt.Errorf("the idempotency key has a semicolon at byte %d; parameters are not accepted, and a key that contains a semicolon goes in double quotes", i)
		case c == ' ' || c == '"':
			return "", fmt.Errorf("the idempotency key has a space or a quote at byte %d; put such a key in double quotes, with \\\" for a quote in it", i)
		}
	}
	if len(value) > maxKeyBytes {
		return "", tooLong(len(value))
	}
	return value, nil
}

// parseQuoted reads what follows the opening quote.
func parseQuoted(value string) (string, error) {
	var unescaped []byte // nil until the first escape, so that plain keys cost no memory
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case !printable(c):
			return "", badByte(c, i+1)
		case c == '"':
			if err := parseTail(value[i+1:]); err != nil {
				return "", err
			}
			if unescaped != nil {
				return checkLength(string(unescaped))
			}
			return checkLength(value[:i])
		case c == '\\':
			if unescaped == nil {
				unescaped = append(make([]byte, 0, len(value)), value[:i]...)
			}
			i++
			if i == len(value) || value[i] != '"' && value[i] != '\\' {
				return "", fmt.Errorf("the idempotency key has a bad escape at byte %d; in a quoted key a backslash stands only before a double quote or a backslash", i)
			}
			c = value[i]
		}
		if unescaped != nil {
			unescaped = append(unescaped, c)
		}
	}
	return "", errors.New("the idempotency key begins with a double quote and does not end with one; close the quote, or leave both out")
}

// parseTail refuses whatever follows the closing quote.
func parseTail(tail string) error {
	tail = strings.TrimLeft(tail, " \t")
	switch {
	case tail == "":
		return nil
	case tail[0] == ',':
		return errors.New("the idempotency key is a list; send one key")
	case tail[0] == ';':
		return errors.New("the idempotency key has parameters, which are not accepted; send the quoted string alone")
	}
	return errors.New("the idempotency key goes on after its closing quote; write a quote that belongs to the key as \\\"")
}

func checkLength(id string) (string, error) {
	if id == "" {
		return "", errEmptyKey
	}
	if len(id) > maxKeyBytes {
		return "", tooLong(len(id))
	}
	return id, nil
}

// printable tells whether a structured-field string can hold c.
func printable(c byte) bool { return ' ' <= c && c <= '~' }

func tooLong(n int) error {
	return fmt.Errorf("the idempotency key is %d bytes long; send at most %d, such as a UUID or a hash", n, maxKeyBytes)
}

// badByte names a byte that no key can hold. It is one byte of the key, and not
// one that anybody's secret is made of.
func badByte(c byte, at int) error {
	return fmt.Errorf("the idempotency key has the byte 0x%02X at byte %d; keys consist of printable ASCII: encode other text, as base64 or hexadecimal", c, at)
}

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
