package semelhttp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/semelhq/semel"
)

// largestKept is the largest buffer that is reused; a larger one is left to the
// collector.
const largestKept = 1 << 20

func (h *Handler) getBuffer() *bytes.Buffer {
	if b, ok := h.buffers.Get().(*bytes.Buffer); ok {
		return b
	}
	return new(bytes.Buffer)
}

func (h *Handler) putBuffer(b *bytes.Buffer) {
	if b.Cap() <= largestKept {
		b.Reset()
		h.buffers.Put(b)
	}
}

// readBody reads the whole body into b, at most limit bytes.
func readBody(b *bytes.Buffer, r *http.Request, limit int64) error {
	if r.ContentLength > limit {
		return bodyTooLong(limit)
	}
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	for {
		b.Grow(bytes.MinRead)
		room := b.AvailableBuffer()
		n, err := r.Body.Read(room[:cap(room)])
		b.Write(room[:n])
		switch {
		case int64(b.Len()) > limit:
			return bodyTooLong(limit)
		case err == io.EOF && r.ContentLength >= 0 && int64(b.Len()) != r.ContentLength:
			return fmt.Errorf("%w: Content-Length says %d bytes, and %d came", io.ErrUnexpectedEOF, r.ContentLength, b.Len())
		case err == io.EOF:
			return nil
		case err != nil:
			return bodyError(err)
		}
	}
}

// maxMemo is the longest memo in bytes: it is written with every claim.
const maxMemo = 4 << 10

// memo asks for what is kept of the request while its operation is pending.
func (h *Handler) memo(r *http.Request, content []byte) ([]byte, error) {
	memo, err := h.o.Memo(r, content)
	if err == nil && len(memo) > maxMemo {
		err = fmt.Errorf("%w: what this route keeps of a request to find out an unknown outcome may have %d bytes, and of this one has %d", ErrTooLarge, maxMemo, len(memo))
	}
	return memo, err
}

func bodyError(err error) error {
	if past := (*http.MaxBytesError)(nil); errors.As(err, &past) {
		return bodyTooLong(past.Limit)
	}
	return err
}

func bodyTooLong(limit int64) error {
	return fmt.Errorf("%w: this route takes bodies of up to %d bytes", ErrTooLarge, limit)
}

// body gives the handler the bytes that were read. A handler's helper that
// still reads after the handler has returned, as an http.Transport may, gets an
// error and not another request's bytes.
type body struct {
	mu     sync.Mutex
	rest   []byte
	closed bool
}

// Read is part of io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case len(b.rest) == 0:
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close is part of io.Closer.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.rest = true, nil
	return nil
}

// fingerprint covers the method, the path, the query, the chosen headers, and
// the bytes of the body that count.
func (h *Handler) fingerprint(r *http.Request, content []byte) (semel.Fingerprint, error) {
	if h.o.Canonical != nil {
		var err error
		if content, err = h.o.Canonical(r, content); err != nil {
			return semel.Fingerprint{}, err
		}
	}
	b := h.getBuffer()
	defer h.putBuffer(b)
	add := func(s string) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		b.Write(size[:])
		b.WriteString(s)
	}
	add(r.Method)
	add(r.URL.EscapedPath())
	add(r.URL.RawQuery)
	for _, name := range h.o.FingerprintHeaders {
		values := r.Header.Values(name)
		add(name)
		var count [8]byte
		binary.BigEndian.PutUint64(count[:], uint64(len(values)))
		b.Write(count[:])
		for _, v := range values {
			add(v)
		}
	}
	return semel.FingerprintOf(b.Bytes(), content), nil
}
