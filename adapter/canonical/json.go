// Package canonical gives fingerprints of JSON that follow what a body says and
// not how it is written: the order of members, white space, escapes and 1.0 for
// 1 do not count, nor does compression. A client that builds its body anew for
// each attempt then sends the same operation.
//
// Use it where clients do that. A client that keeps its bytes is served better
// by the default of semelhttp, which takes the body as it is: two texts with one
// canonical form are one payload here, so do not use it where a service tells
// them apart.
//
//	fingerprint, err := canonical.JSON(canonical.Options{Exclude: []string{"/client/sentAt"}})
//	…
//	semelhttp.Options{Canonical: fingerprint, …}
//
// It may be imported by gateway programs and by users; it imports semelhttp.
package canonical

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/semelhq/semel/semelhttp"
)

// Options say what of a body counts. The zero value is usable: all of it does.
type Options struct {
	// Include are JSON Pointers (RFC 6901), such as /amount or /order/lines/0, to
	// the values that count. Default: the whole body. A body that has none of them is
	// refused, because every such body would have the same fingerprint.
	Include []string
	// Exclude are JSON Pointers to the values that do not count, such as the time at
	// which the client sent the body. They win over Include.
	Exclude []string
	// MaxBytes is the longest body in bytes, after decompression. A longer one is
	// refused with semelhttp.ErrTooLarge. Default 1 MiB.
	MaxBytes int64
}

// form is a checked Options.
type form struct {
	include, exclude *node
	maxBytes         int64
}

// JSON gives a Canonical for JSON bodies. The bytes that it gives are those of
// RFC 8785 with one difference: a number with more digits than a double keeps,
// such as 9007199254740993, keeps them all, where the RFC would round it and two
// payments would have one fingerprint.
//
// It refuses what is no single JSON value, a name that stands twice in an
// object, invalid UTF-8, a Content-Type that is not JSON, and a Content-Encoding
// other than gzip. It is safe for concurrent use, and does not keep the body.
//
// The error of JSON itself names the option that cannot be.
func JSON(o Options) (semelhttp.Canonical, error) {
	f := form{maxBytes: o.MaxBytes}
	if f.maxBytes == 0 {
		f.maxBytes = 1 << 20
	}
	if f.maxBytes < 0 {
		return nil, fmt.Errorf("canonical: MaxBytes %d is negative", f.maxBytes)
	}
	var err error
	if f.include, err = pointers(o.Include); err != nil {
		return nil, fmt.Errorf("canonical: include: %w", err)
	}
	if f.exclude, err = pointers(o.Exclude); err != nil {
		return nil, fmt.Errorf("canonical: exclude: %w", err)
	}
	if f.exclude.leaf() {
		return nil, errors.New(`canonical: exclude: "" is the whole body, and nothing would be left of it`)
	}
	for _, text := range o.Include {
		if names, err := split(text); err == nil && f.exclude.covers(names) {
			return nil, fmt.Errorf("canonical: include: all of %q is excluded", text)
		}
	}
	return f.request, nil
}

// request is the Canonical.
func (f *form) request(r *http.Request, body []byte) ([]byte, error) {
	if err := checkType(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	body, err := f.decompress(r.Header.Values("Content-Encoding"), body)
	if err != nil {
		return nil, err
	}
	return f.canonical(body)
}

// checkType takes application/json, text/json and anything that ends in +json.
func checkType(header string) error {
	if header == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(header)
	if err != nil {
		return fmt.Errorf("the Content-Type cannot be read: %w", err)
	}
	if media != "application/json" && media != "text/json" && !strings.HasSuffix(media, "+json") {
		return fmt.Errorf("this route takes JSON, and the Content-Type is %q", media)
	}
	return nil
}

func (f *form) decompress(lines []string, body []byte) ([]byte, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(lines, ","))); encoding {
	case "", "identity":
		if int64(len(body)) > f.maxBytes {
			return nil, f.tooLarge()
		}
		return body, nil
	case "gzip", "x-gzip":
	default:
		return nil, fmt.Errorf("this route takes gzip or no Content-Encoding, and it is %q", encoding)
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the gzip body cannot be read: %w", err)
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(z, f.maxBytes+1))
	if n > f.maxBytes {
		return nil, f.tooLarge()
	}
	if err != nil {
		return nil, fmt.Errorf("the gzip body cannot be read: %w", err)
	}
	return out.Bytes(), nil
}

func (f *form) tooLarge() error {
	return fmt.Errorf("%w: this route takes JSON of up to %d bytes, unpacked", semelhttp.ErrTooLarge, f.maxBytes)
}

// canonical gives the canonical form of one JSON value.
func (f *form) canonical(body []byte) ([]byte, error) {
	var out bytes.Buffer
	w := walk{from: jsontext.NewDecoder(bytes.NewReader(body)), to: jsontext.NewEncoder(&out)}
	err := w.value(f.include, f.exclude)
	if err == nil {
		_, err = w.from.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			err = nil
		case err == nil:
			err = errors.New("there is more after the value")
		}
	}
	switch {
	case errors.Is(err, io.EOF) && len(bytes.TrimSpace(body)) == 0:
		return nil, errors.New("this route takes JSON, and the body is empty")
	case err != nil:
		return nil, fmt.Errorf("the body is not one JSON value, near byte %d: %w", w.from.InputOffset(), err)
	case f.include != nil && !w.included:
		return nil, errors.New("the body has none of the fields that tell it from others")
	}
	v := jsontext.Value(bytes.TrimSpace(out.Bytes()))
	// The numbers are canonical already, and more exactly than here.
	if err := v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return nil, fmt.Errorf("the body has no canonical form: %w", err)
	}
	return v, nil
}

// walk copies a value, token by token.
type walk struct {
	from     *jsontext.Decoder
	to       *jsontext.Encoder
	included bool // something that Include names was met
}

// value copies the next value, as far as it counts. in is what of it is
// included, nil for all of it; out what of it is excluded, nil for none.
func (w *walk) value(in, out *node) error {
	if in.leaf() {
		in, w.included = nil, true
	}
	switch w.from.PeekKind() {
	case '{':
		return w.object(in, out)
	case '[':
		return w.array(in, out)
	}
	v, err := w.from.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() == '0' {
		if v, err = number(v); err != nil {
			return err
		}
	}
	return w.to.WriteValue(v)
}

func (w *walk) object(in, out *node) error {
	if err := w.copyToken(); err != nil {
		return err
	}
	for w.from.PeekKind() != '}' {
		name, err := w.from.ReadToken()
		if err != nil {
			return err
		}
		text := name.String()
		if !w.counts(in, out, text) {
			if err := w.from.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if err := w.to.WriteToken(jsontext.String(text)); err != nil {
			return err
		}
		if err := w.value(in.child(text), out.child(text)); err != nil {
			return err
		}
	}
	return w.copyToken()
}

func (w *walk) array(in, out *node) error {
	if err := w.copyToken(); err != nil {
		return err
	}
	for i := 0; w.from.PeekKind() != ']'; i++ {
		index := fmt.Sprint(i)
		if w.counts(in, out, index) {
			if err := w.value(in.child(index), out.child(index)); err != nil {
				return err
			}
		} else if err := w.from.SkipValue(); err != nil {
			return err
		}
	}
	return w.copyToken()
}

// counts tells whether anything of the next value, a member under name,
// counts. Of a scalar on the way to something that is included nothing does.
func (w *walk) counts(in, out *node, name string) bool {
	if out.child(name).leaf() {
		return false
	}
	if in == nil {
		return true
	}
	next := in.child(name)
	kind := w.from.PeekKind()
	return next != nil && (next.leaf() || kind == '{' || kind == '[')
}

func (w *walk) copyToken() error {
	t, err := w.from.ReadToken()
	if err != nil {
		return err
	}
	return w.to.WriteToken(t)
}
