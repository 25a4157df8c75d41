package semelhttp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// field is one header with its values.
type field struct {
	name   string
	values []string
}

// recorder is the ResponseWriter of a guarded handler. It keeps the answer
// back until the record is written. An answer that is flushed, or grows over
// the limit, is passed on as it comes (streaming); then only its end is kept
// back, so that a client never sees a complete answer that was not recorded.
//
// Once the handler has returned it takes nothing more: a goroutine that the
// handler left behind must not write into a buffer that is another's by then.
type recorder struct {
	mu   sync.Mutex // guards what follows against such goroutines
	over bool       // the handler has returned

	w     http.ResponseWriter
	in    body // the request's
	limit int
	hold  bool // obey Flush for event streams only

	outer     http.Header // what was set before the handler ran
	status    int         // 0 until WriteHeader
	fields    []field     // the headers that WriteHeader saw
	room      [12]field   // for fields
	body      *bytes.Buffer
	outcome   string
	streaming bool  // bytes have been passed on
	hijacked  bool  // the connection is the handler's
	passed    int64 // body bytes that were passed on
	declared  int64 // Content-Length while streaming, or -1
}

var (
	_ http.Flusher  = (*recorder)(nil)
	_ http.Hijacker = (*recorder)(nil)
	_ io.ReaderFrom = (*recorder)(nil)
)

// Unwrap lets http.ResponseController reach deadlines and full duplex.
func (r *recorder) Unwrap() http.ResponseWriter { return r.w }

// Header is the underlying writer's, so that what outer handlers set is seen.
func (r *recorder) Header() http.Header { return r.w.Header() }

// errOver is told to whoever writes after the handler has returned.
var errOver = errors.New("semelhttp: the handler has returned, and its answer is given")

// finish takes the recorder away from the handler.
func (r *recorder) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// WriteHeader notes status and headers; informational answers pass at once.
func (r *recorder) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.begin(status)
	}
}

func (r *recorder) begin(status int) {
	if r.status != 0 || r.hijacked {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("semelhttp: invalid status %d", status))
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		r.w.WriteHeader(status)
		return
	}
	r.status = status
	h := r.w.Header()
	if values := h[OutcomeHeader]; len(values) > 0 {
		r.outcome = values[0]
		delete(h, OutcomeHeader)
	}
	r.fields = r.room[:0]
	for name, values := range h {
		r.fields = append(r.fields, field{name, values})
	}
}

// Write keeps p back, or passes it on once the answer streams.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return 0, errOver
	}
	if r.hijacked {
		return 0, http.ErrHijacked
	}
	if r.status == 0 {
		r.sniff(p)
		r.begin(http.StatusOK)
	}
	if !bodyAllowed(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if !r.streaming {
		if r.body.Len()+len(p) <= r.limit {
			return r.body.Write(p)
		}
		if err := r.stream(); err != nil {
			return 0, err
		}
	}
	return r.pass(p)
}

// sniff sets the Content-Type that net/http would have set, so that it is
// stored as well.
func (r *recorder) sniff(p []byte) {
	h := r.w.Header()
	if _, has := h["Content-Type"]; !has && h.Get("Content-Encoding") == "" && h.Get("Transfer-Encoding") == "" && len(p) > 0 {
		h.Set("Content-Type", http.DetectContentType(p))
	}
}

// stream begins to pass the answer on.
func (r *recorder) stream() error {
	r.streaming = true
	r.restore()
	r.declared = -1
	for _, value := range r.seen("Content-Length") {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			r.declared = n
		}
	}
	r.w.WriteHeader(r.status)
	held := bytes.Clone(r.body.Bytes())
	r.body.Reset()
	_, err := r.pass(held)
	return err
}

// pass passes bytes on, but keeps back the byte that would complete the answer:
// once a client has it, it takes the answer for given.
func (r *recorder) pass(p []byte) (int, error) {
	now := p
	if r.declared >= 0 && len(p) > 0 && r.passed+int64(len(p)) == r.declared {
		now = p[:len(p)-1]
	}
	n, err := r.w.Write(now)
	r.passed += int64(n)
	if err == nil && len(now) < len(p) {
		r.body.WriteByte(p[len(p)-1])
		r.passed++
		n++
	}
	return n, err
}

// seen gives the values that a header had at WriteHeader.
func (r *recorder) seen(name string) []string {
	for i := range r.fields {
		if r.fields[i].name == name {
			return r.fields[i].values
		}
	}
	return nil
}

// restore undoes what the handler did to the headers after WriteHeader, except
// for trailers: it has no effect in net/http either.
func (r *recorder) restore() {
	h := r.w.Header()
	for name := range h {
		if r.seen(name) == nil && !strings.HasPrefix(name, http.TrailerPrefix) {
			delete(h, name)
		}
	}
	for _, f := range r.fields {
		h[f.name] = f.values
	}
}

// Flush is part of http.Flusher.
func (r *recorder) Flush() { _ = r.FlushError() }

// FlushError makes the answer a stream, unless flushes are held.
func (r *recorder) FlushError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return errOver
	}
	if r.hijacked {
		return http.ErrHijacked
	}
	if r.hold && !IsStream(r.w.Header().Get("Content-Type")) {
		return nil
	}
	if r.status == 0 {
		r.begin(http.StatusOK)
	}
	if !r.streaming {
		if err := r.stream(); err != nil {
			return err
		}
	}
	return http.NewResponseController(r.w).Flush()
}

// IsStream tells whether a content type is read while it is still written: event
// streams, NDJSON, multipart/x-mixed-replace and gRPC. See Options.HoldFlush.
func IsStream(contentType string) bool {
	if contentType == "" || strings.HasPrefix(contentType, "application/json") {
		return false // the usual ones need no parsing
	}
	t, _, _ := mime.ParseMediaType(contentType)
	switch t {
	case "text/event-stream", "application/x-ndjson", "multipart/x-mixed-replace":
		return true
	}
	return strings.HasPrefix(t, "application/grpc")
}

// Hijack hands over the connection: what happens on it is not recorded.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return nil, nil, errOver
	}
	conn, rw, err := http.NewResponseController(r.w).Hijack()
	if err == nil {
		r.hijacked = true
		if r.status == 0 {
			r.status = http.StatusSwitchingProtocols
		}
	}
	return conn, rw, err
}

// ReadFrom is part of io.ReaderFrom: it reads straight into the buffer.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{r}, src)
}

// drop forgets the recorded answer and the headers that the handler set.
func (r *recorder) drop() {
	r.status, r.outcome = 0, ""
	r.body.Reset()
	r.fields = nil
	clear(r.w.Header())
	maps.Copy(r.w.Header(), r.outer)
}

// whole tells whether the answer was kept back in full.
func (r *recorder) whole() bool { return !r.streaming && !r.hijacked }

// send lets the answer go: all of it, or the end of a stream.
func (r *recorder) send(head bool) {
	if r.hijacked {
		return
	}
	if r.streaming {
		_, _ = r.w.Write(r.body.Bytes())
		return
	}
	trailers := r.trailers()
	r.restore()
	h := r.w.Header()
	if bodyAllowed(r.status) && !head && len(trailers) == 0 && h["Transfer-Encoding"] == nil &&
		(r.body.Len() > impliedLength || h["Content-Length"] != nil) {
		setLength(h, r.body.Len())
	}
	r.w.WriteHeader(r.status)
	if r.body.Len() > 0 {
		_, _ = r.w.Write(r.body.Bytes())
	}
	if r.seen("Trailer") != nil {
		maps.Copy(h, trailers)
	}
}

// trailers gives the trailers as they stand, by their plain names.
func (r *recorder) trailers() http.Header {
	var out http.Header
	set := func(name string, values []string) {
		if out == nil {
			out = make(http.Header)
		}
		out[name] = values
	}
	h := r.w.Header()
	for _, line := range r.seen("Trailer") {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values, ok := h[name]; ok && name != "" {
				set(name, values)
			}
		}
	}
	for name, values := range h {
		if plain, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			set(http.CanonicalHeaderKey(plain), values)
		}
	}
	return out
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// impliedLength is how long a body can be for net/http to set Content-Length by
// itself.
const impliedLength = 2000

func setLength(h http.Header, n int) {
	h["Content-Length"] = []string{strconv.Itoa(n)}
}
