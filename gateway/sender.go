package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"

	"github.com/semelhq/semel/semelhttp"
)

// sender sends each request at most once. The one of
// net/http sends again what carries an Idempotency-Key when a reused connection
// breaks (net/http.Request.isReplayable), which runs the request twice; this one
// has no code that could. It speaks HTTP/1.1, where "nothing of this request has
// left" can be told by counting bytes on the connection.
//
// The bodies of its answers must be read to the end or closed. It is safe for
// concurrent use.
type sender struct {
	pool    *pool
	buffers sync.Pool // of *bytes.Buffer
}

// sendError is a request that got no answer.
type sendError struct {
	// started tells that at least one byte of it left: nobody knows whether it ran.
	started bool
	err     error
}

func (e *sendError) Error() string {
	if e.started {
		return "the upstream was sent the request and did not answer it: " + e.err.Error()
	}
	return "the upstream was not reached: " + e.err.Error()
}

func (e *sendError) Unwrap() error { return e.err }

const (
	// inlineBody is the longest body that is written in one piece with its head,
	// before the answer is read.
	inlineBody = 64 << 10
	// largestKept is the largest buffer that is used again.
	largestKept = 128 << 10
	// answerAfter is how long to wait for an answer once the request could not be
	// written to its end: a server that refuses a body answers and closes.
	answerAfter = time.Second
)

// send sends the request and reads the head of the answer. silence is the
// longest the upstream may say nothing; 0 is for ever.
func (s *sender) send(r *http.Request, silence time.Duration) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength > 0 && r.ContentLength <= inlineBody {
		return s.sendInline(r, silence)
	}
	return s.sendStream(r, silence)
}

// sendInline writes head and body at once. A connection that turns out to be
// dead before it took a byte is replaced, once, by a new one.
func (s *sender) sendInline(r *http.Request, silence time.Duration) (*http.Response, error) {
	b := s.buffer()
	defer s.recycle(b)
	if err := r.Write(b); err != nil {
		return nil, &sendError{false, fmt.Errorf("the request cannot be written: %w", err)}
	}
	c, err := s.pool.get(r.Context())
	for {
		if err != nil {
			return nil, &sendError{false, err}
		}
		c.begin(silence)
		x := s.exchange(r, c)
		_, err = c.Write(b.Bytes())
		if err != nil && c.sent == 0 && c.reused && r.Context().Err() == nil {
			x.end(false)
			c, err = s.pool.dial(r.Context())
			continue
		}
		return x.answerInline(err)
	}
}

// sendStream writes the body beside reading the answer, which may come first.
func (s *sender) sendStream(r *http.Request, silence time.Duration) (*http.Response, error) {
	c, err := s.pool.get(r.Context())
	if err != nil {
		return nil, &sendError{false, err}
	}
	c.begin(silence)
	x := s.exchange(r, c)
	x.written = make(chan struct{})
	go func() {
		defer close(x.written)
		if x.broken = r.Write(c); x.broken != nil {
			// The answer may be there already, or on its way; if not, do not wait long.
			time.AfterFunc(answerAfter, x.cut)
		}
	}()
	resp, err := x.answer()
	if err == nil {
		return resp, nil
	}
	<-x.written // the connection is closed, so it ends
	if x.broken != nil && !errors.Is(x.broken, net.ErrClosed) {
		err = x.broken
	}
	return nil, &sendError{c.sent > 0, err}
}

func (s *sender) buffer() *bytes.Buffer {
	if b, ok := s.buffers.Get().(*bytes.Buffer); ok {
		return b
	}
	return new(bytes.Buffer)
}

func (s *sender) recycle(b *bytes.Buffer) {
	if b.Cap() <= largestKept {
		b.Reset()
		s.buffers.Put(b)
	}
}

// exchange is one request and its answer on one connection.
type exchange struct {
	pool    *pool
	conn    *conn
	request *http.Request
	stop    func() bool   // ends the watch over the request's context
	written chan struct{} // closed when writing has ended; nil if that was before
	broken  error         // why the request was not written whole; set before written is closed
	once    sync.Once
}

func (s *sender) exchange(r *http.Request, c *conn) *exchange {
	x := &exchange{pool: s.pool, conn: c, request: r}
	x.stop = context.AfterFunc(r.Context(), x.cut)
	return x
}

// cut ends whatever waits for the connection.
func (x *exchange) cut() { _ = x.conn.Conn.Close() }

// end gives the connection back, or closes it.
func (x *exchange) end(whole bool) {
	x.once.Do(func() {
		whole = x.stop() && whole && x.conn.reader.Buffered() == 0 && x.wrote()
		if whole {
			x.pool.put(x.conn)
		} else {
			x.cut()
		}
	})
}

// wrote tells whether the whole request has been written: a server may answer
// before it has the whole body.
func (x *exchange) wrote() bool {
	if x.written != nil {
		select {
		case <-x.written:
		default:
			return false
		}
	}
	return x.broken == nil
}

// answerInline reads the head of the answer to a request that was written,
// or half written.
func (x *exchange) answerInline(broken error) (resp *http.Response, err error) {
	x.broken = broken
	if broken == nil {
		resp, err = x.answer()
	} else {
		timer := time.AfterFunc(answerAfter, x.cut)
		defer timer.Stop()
		if x.conn.sent > 0 {
			resp, err = x.answer()
		}
		if resp == nil {
			x.end(false)
			err = broken
		}
	}
	if err != nil {
		return nil, &sendError{x.conn.sent > 0, err}
	}
	return resp, nil
}

// answer reads the head of the answer.
func (x *exchange) answer() (*http.Response, error) {
	resp, err := x.head()
	if err == nil {
		x.conn.head = -1
		x.adopt(resp)
		return resp, nil
	}
	x.end(false)
	if cause := context.Cause(x.request.Context()); cause != nil {
		err = cause
	}
	return nil, err
}

var (
	errSwitched = errors.New("it switched protocols, which nobody asked for")
	errStatus   = errors.New("its status is below 100, which no answer can have")
)

// head reads heads until one is final, and hands the others on.
func (x *exchange) head() (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(x.conn.reader, x.request)
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return nil, errors.New("it closed the connection before it had answered")
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case resp.StatusCode < 100:
			return nil, errStatus
		case resp.StatusCode >= 200:
			return resp, nil
		}
		trace := httptrace.ContextClientTrace(x.request.Context())
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// adopt puts the exchange behind the answer's body.
func (x *exchange) adopt(resp *http.Response) {
	if semelhttp.IsStream(resp.Header.Get("Content-Type")) {
		x.conn.silence = 0
		_ = x.conn.SetReadDeadline(time.Time{})
	}
	if resp.Body == http.NoBody {
		x.end(!resp.Close)
		return
	}
	resp.Body = &answerBody{exchange: x, inner: resp.Body, close: resp.Close}
}

// answerBody is the body of an answer. Unlike other bodies it panics with
// http.ErrAbortHandler if it breaks off: the one who reads it is a ReverseProxy,
// which does the same, but not in every kind of server, and a broken answer must
// never be taken for a whole one.
type answerBody struct {
	exchange *exchange
	inner    io.ReadCloser
	close    bool // the connection ends with the body
	over     bool
}

// Read is part of io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	if b.over {
		return 0, io.EOF
	}
	n, err := b.inner.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.over = true
		b.exchange.end(!b.close)
	default:
		b.exchange.end(false)
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// Close is part of io.Closer.
func (b *answerBody) Close() error {
	b.exchange.end(false)
	return nil
}
