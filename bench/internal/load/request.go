package load

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// Request is a POST with a key, as bytes.
type Request struct {
	bytes []byte
	key   int // where the key's number is; 0 if there is none
	check bool
	// replayed is what the answer must carry or, negative, must not; 0: either.
	replayed int
}

// Body is what all requests carry.
const Body = `{"amount":1999,"currency":"eur","customer":"cus_8f3a21","description":"order 4711, two items"}`

// keyDigits is the width of the number at the end of a key.
const keyDigits = 12

// Post makes a request to path. The keys look like random UUIDs; run tells those
// of one process from another's.
func Post(path string, run uint32) *Request {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: application/json\r\n", path)
	fmt.Fprintf(&b, "Authorization: Bearer sk_test_4eC39HqLyjWDarjtT1zdp7dc\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", len(Body))
	fmt.Fprintf(&b, "Idempotency-Key: %08x-0000-4000-8000-", run)
	r := &Request{key: b.Len(), check: true}
	fmt.Fprintf(&b, "%0*x\r\n\r\n%s", keyDigits, 0, Body)
	r.bytes = []byte(b.String())
	return r
}

// Replayed gives the request with the demand that its answer says that it is a
// replay, or that it does not say so.
func (r *Request) Replayed(yes bool) *Request {
	c := r.clone()
	c.replayed = -1
	if yes {
		c.replayed = 1
	}
	return c
}

func (r *Request) clone() *Request {
	c := *r
	c.bytes = bytes.Clone(r.bytes)
	return &c
}

// set writes the key's number.
func (r *Request) set(n uint64) {
	if r.key == 0 {
		return
	}
	const digits = "0123456789abcdef"
	for i := r.key + keyDigits - 1; i >= r.key; i-- {
		r.bytes[i] = digits[n&15]
		n >>= 4
	}
}

var replayMark = []byte("\r\nIdempotent-Replayed: true\r\n")

func (r *Request) expected(a *Answer) error {
	switch {
	case !r.check:
	case a.Status != http.StatusCreated:
		return fmt.Errorf("not a 201: %s%s", a.Head, a.Body)
	case r.replayed != 0 && bytes.Contains(a.Head, replayMark) != (r.replayed > 0):
		return fmt.Errorf("a wrong %q: %s", bytes.TrimSpace(replayMark), a.Head)
	}
	return nil
}
