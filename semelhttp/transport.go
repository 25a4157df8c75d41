package semelhttp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// Transport is the client's side: an http.RoundTripper that gives unsafe requests
// a key, retries them under that key, and tells an unknown outcome from a failure
// (see [OutcomeOf] and [SendError]). The zero value is ready for use, as the
// Transport of an http.Client; numbers that are zero or negative give the
// default. It is safe for concurrent use; its fields must not change once it is
// in use. Limit time by the request's context: a Client.Timeout hides the
// SendError, and the key with it.
//
// It handles requests whose method is in Methods, and any request that carries a
// key; others go to Base as they are. A key that the caller has set is used as it
// is. The key that was sent is in the header of Response.Request; a request that
// a 307 or 308 redirects keeps its key.
//
// A body of up to MaxBody bytes is read into memory before the first attempt, and
// each attempt sends the same bytes. Network errors, 429, 502, 503, 504 and the
// problem in-progress are retried, after their Retry-After; other answers are
// final, and so is any that is marked as replayed. After the last attempt the last
// response is returned, whatever its status: unless it says that nothing ran and
// an earlier attempt may have, which is a SendError. An answer of known length, up
// to MaxBody, is read before it is returned; one that breaks off is asked for
// again.
//
// net/http itself sends requests with a key a second time when a reused
// connection breaks. Transport prevents that, so that MaxAttempts is what it
// says; the price is that an empty body goes out chunked, without a
// Content-Length. Base must not retry on its own.
type Transport struct {
	// Base sends the requests. Default http.DefaultTransport.
	Base http.RoundTripper
	// Key makes the key of a request that has none, unless its context is that of a
	// step, which has a derived key. It may read r.Body, and must
	// not change r otherwise. Its error refuses the request. Default: a UUIDv7, see
	// NewKey. KeyFromHeaders and KeyFromJSON make others.
	Key func(r *http.Request) (string, error)
	// KeyHeader is the request header with the key. Default Idempotency-Key.
	KeyHeader string
	// ReplayHeader marks replayed answers. Default Idempotent-Replayed.
	ReplayHeader string
	// Methods get a key. Default POST and PATCH.
	Methods []string
	// MaxAttempts is how often a request is sent at most, the first time included.
	// Default 5.
	MaxAttempts int
	// BackoffBase and BackoffCap bound the wait before a retry: it is random between
	// 0 and BackoffBase, which doubles with each attempt up to BackoffCap (full
	// jitter). A Retry-After comes on top. Default 200 ms and 10 s.
	BackoffBase, BackoffCap time.Duration
	// AttemptTimeout bounds one attempt, until its answer's header has come, or all
	// of an answer that is read ahead. It is at least the time for which the server
	// lets duplicates wait. Default 30 s.
	AttemptTimeout time.Duration
	// Budget is the time after which no further attempt begins. Default 2 min.
	Budget time.Duration
	// Retention is for how long the server remembers keys: a later retry would be a
	// new operation, so none is sent. A UUIDv7 that is older is not sent at all.
	// Default 24 h.
	Retention time.Duration
	// MaxBody is the longest request body in bytes that is kept for retries. A
	// longer one is streamed and sent once. Default 1 MiB.
	MaxBody int64

	keys keyClock
}

// CloseIdleConnections closes those of Base, if it can.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip is part of http.RoundTripper. Its error for a handled request is a
// *SendError. The request's body is closed before it returns, or later where it
// is streamed.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	header := named(t.KeyHeader, "Idempotency-Key")
	if len(headerLines(r.Header, header)) == 0 && !slices.Contains(or(t.Methods, []string{http.MethodPost, http.MethodPatch}), r.Method) {
		return t.base().RoundTrip(r)
	}
	x, err := t.open(r, header)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // it was only read from
		}
		return nil, &SendError{Outcome: OutcomeNotDone, Err: err}
	}
	return x.run()
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// open prepares the attempts: settings, body, key.
func (t *Transport) open(r *http.Request, header string) (*exchange, error) {
	now := time.Now()
	x := &exchange{
		r:            r,
		base:         t.base(),
		replayHeader: named(t.ReplayHeader, "Idempotent-Replayed"),
		maxAttempts:  positive(t.MaxAttempts, 5),
		backoff:      positive(t.BackoffBase, 200*time.Millisecond),
		backoffCap:   positive(t.BackoffCap, 10*time.Second),
		timeout:      positive(t.AttemptTimeout, 30*time.Second),
		maxBody:      positive(t.MaxBody, 1<<20),
	}
	retention := positive(t.Retention, 24*time.Hour)
	x.deadline = now.Add(min(positive(t.Budget, 2*time.Minute), retention))
	if end, ok := r.Context().Deadline(); ok && end.Before(x.deadline) {
		x.deadline = end
	}
	if r.URL == nil || r.URL.Host == "" {
		return nil, errors.New("semelhttp: the request's URL names no host; it looks like https://api.example.com/payments")
	}
	if err := x.readBody(); err != nil {
		return nil, err
	}
	x.sent = r.Clone(r.Context())
	x.sent.Body, x.sent.GetBody = nil, nil
	x.sent.Trailer = r.Trailer // a streamed body fills the caller's trailer
	if x.sent.Header == nil {
		x.sent.Header = http.Header{}
	}
	if err := t.setKey(x, header, now); err != nil {
		return nil, err
	}
	if at, ok := semel.KeyTime(x.key); ok {
		if age := now.Sub(at); age > retention {
			return nil, fmt.Errorf("%w: its own time is %v ago and Retention is %v, so the server may have forgotten it and run the operation again; find out what became of it, and use a new key for a new operation", semel.ErrExpired, age.Round(time.Second), retention)
		}
		if end := at.Add(retention); end.Before(x.deadline) {
			x.deadline = end
		}
	}
	return x, nil
}

// setKey finds or makes the key.
func (t *Transport) setKey(x *exchange, header string, now time.Time) error {
	lines := headerLines(x.r.Header, header)
	if len(lines) > 0 {
		id, err := ParseKey(lines)
		x.key = id
		return err
	}
	if x.r.Response != nil && x.r.Response.Request != nil {
		// http.Client redirects the caller's request, which has no key: without this
		// the one operation would go on under a second key.
		lines = headerLines(x.r.Response.Request.Header, header)
	}
	derived, inStep := semel.DerivedKey(x.r.Context())
	switch {
	case len(lines) > 0:
		id, err := ParseKey(lines)
		if err != nil {
			return err
		}
		x.key = id
	case inStep:
		x.key = derived
	case t.Key == nil:
		x.key = t.keys.next(now)
	default:
		asked := x.sent.Clone(x.sent.Context())
		asked.Body = x.bodyForKey()
		id, err := t.Key(asked)
		if err != nil {
			return err
		}
		x.key = id
	}
	line, err := FormatKey(x.key)
	x.sent.Header[header] = []string{line}
	return err
}

// readBody reads the body, unless it is too long to be kept.
func (x *exchange) readBody() error {
	body := x.r.Body
	if body == nil || body == http.NoBody {
		return nil
	}
	if x.r.ContentLength > x.maxBody {
		x.rest = body
		return nil
	}
	// A body whose sender is stuck does not hold up a cancelled request.
	stop := contextClose(x.r.Context(), body)
	b, err := io.ReadAll(io.LimitReader(body, x.maxBody+1))
	if !stop() {
		return x.r.Context().Err()
	}
	switch {
	case err != nil:
		return fmt.Errorf("semelhttp: the request's body cannot be read: %w", err)
	case int64(len(b)) > x.maxBody:
		x.rest = &rereadBody{io.MultiReader(bytes.NewReader(b), body), body}
		return nil
	case x.r.ContentLength > 0 && int64(len(b)) != x.r.ContentLength:
		return fmt.Errorf("semelhttp: the request's ContentLength is %d and its body has %d bytes", x.r.ContentLength, len(b))
	}
	x.body = b
	return body.Close()
}

func headerLines(h http.Header, name string) []string {
	if lines, ok := h[name]; ok || len(h) == 0 {
		return lines
	}
	for other, lines := range h { // whoever fills the map by hand may spell it in lower case
		if strings.EqualFold(other, name) {
			return lines
		}
	}
	return nil
}

func named(name, byDefault string) string {
	if name == "" {
		return byDefault
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

func or(list, byDefault []string) []string {
	if len(list) == 0 {
		return byDefault
	}
	return list
}

// positive gives the default for zero, and for a negative number, which has no
// meaning in any of the settings.
func positive[N int | int64 | time.Duration](n, byDefault N) N {
	if n <= 0 {
		return byDefault
	}
	return n
}
