package semelhttp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/semelhq/semel"
)

// Answer is what an operation answered, for those who read a record, and for
// those who settle one: see [semel.Settlement].
type Answer struct {
	// Status is from 200 to 599.
	Status int
	Header http.Header
	Body   []byte
}

// Result gives the answer in the form in which [Handler] stores and replays one.
// Of Header it takes what a Handler keeps by default, and what keep names
// besides. The Body is copied. The error says what no server could answer.
func (a Answer) Result(keep ...string) (semel.Result, error) {
	switch {
	case a.Status < 200 || a.Status > 599:
		return semel.Result{}, fmt.Errorf("semelhttp: an answer has a status from 200 to 599, not %d", a.Status)
	case len(a.Body) > 0 && !bodyAllowed(a.Status):
		return semel.Result{}, fmt.Errorf("semelhttp: an answer with the status %d has no body, and this one has %d bytes", a.Status, len(a.Body))
	}
	wanted := make(map[string]bool)
	for _, name := range keep {
		wanted[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	var header []field
	for name, values := range a.Header {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if (kept(name) || wanted[name]) && !neverKept(name) {
			header = append(header, field{name, values})
		}
	}
	return semel.Result{Code: a.Status, Data: encode(a.Status, header, nil, a.Body)}, nil
}

// AnswerOf reads the answer that a finished record keeps. The error says that it
// keeps none, or none of a Handler's. The Body is a part of r.Result, which nobody
// changes.
func AnswerOf(r *semel.Record) (Answer, error) {
	if r.State != semel.Done || r.Replay == 0 {
		return Answer{}, fmt.Errorf("semelhttp: the record keeps no answer: %w", semel.ErrGone)
	}
	s, err := decode(r.Result)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: s.status, Header: make(http.Header), Body: s.body}
	for _, f := range s.header {
		a.Header[f.name] = f.values
	}
	return a, nil
}

// stored is an answer as it is kept: what a replay sends again.
type stored struct {
	status  int
	header  []field
	body    []byte
	trailer []field
}

// kept tells whether a response header is stored by default: it describes the
// content or where to find it, and is not about one connection or one client.
func kept(name string) bool {
	switch name {
	case "Accept-Ranges", "Allow", "Cache-Control", "Content-Digest", "Content-Disposition", "Content-Encoding",
		"Content-Language", "Content-Location", "Content-Range", "Content-Type", "Deprecation", "Etag", "Expires",
		"Last-Modified", "Link", "Location", "Preference-Applied", "Repr-Digest", "Retry-After", "Sunset", "Vary",
		"Www-Authenticate":
		return true
	}
	return false
}

// neverKept tells whether a header belongs to one connection (RFC 9110,
// section 7.6.1), to one client's credentials, or to the server itself.
func neverKept(name string) bool {
	switch textproto.CanonicalMIMEHeaderKey(name) {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Date", "Authorization", OutcomeHeader, "":
		return true
	}
	return false
}

// resultFormat is the first byte of an encoded answer.
const resultFormat = 1

// errResult: an encoded answer cannot be read.
var errResult = errors.New("semelhttp: the stored answer cannot be decoded")

// encode gives the answer as bytes: format, status, headers, trailers, body.
// Header names are sorted, so equal answers are equal bytes.
func encode(status int, header, trailer []field, body []byte) []byte {
	size := 16 + len(body)
	for _, fields := range [...][]field{header, trailer} {
		slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
		for _, f := range fields {
			for _, v := range f.values {
				size += len(f.name) + len(v) + 4
			}
		}
	}
	b := make([]byte, 0, size)
	b = append(b, resultFormat)
	b = binary.AppendUvarint(b, uint64(status))
	b = appendHeader(b, header)
	b = appendHeader(b, trailer)
	return append(b, body...)
}

func appendHeader(b []byte, header []field) []byte {
	lines := 0
	for _, f := range header {
		lines += len(f.values)
	}
	b = binary.AppendUvarint(b, uint64(lines))
	for _, f := range header {
		for _, v := range f.values {
			b = appendString(b, f.name)
			b = appendString(b, v)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads what encode wrote. The body is a part of b.
func decode(b []byte) (stored, error) {
	if len(b) == 0 || b[0] != resultFormat {
		return stored{}, errResult
	}
	d := decoder{rest: b[1:]}
	var s stored
	s.status = int(d.number(999))
	s.header = d.header()
	s.trailer = d.header()
	s.body = d.rest
	if d.bad || s.status < 100 {
		return stored{}, errResult
	}
	return s, nil
}

type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) number(most uint64) uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > most {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) text() []byte {
	n := d.number(uint64(len(d.rest)))
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

// header gives the fields, with the values of one name together as encode
// writes them.
func (d *decoder) header() []field {
	n := d.number(uint64(len(d.rest)))
	var out []field
	for range n {
		name, value := d.text(), d.text()
		if d.bad {
			return nil
		}
		if last := len(out) - 1; last >= 0 && out[last].name == string(name) {
			out[last].values = append(out[last].values, string(value))
			continue
		}
		out = append(out, field{string(name), []string{string(value)}})
	}
	return out
}
