package semelhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// call is one RoundTrip: all attempts at one request.
type call struct {
	r    *http.Request // the caller's
	sent *http.Request // what each attempt copies: with the key, without a body
	key  string
	body []byte
	rest io.ReadCloser // the body, if it is too long to be kept

	base                         http.RoundTripper
	replayHeader                 string
	maxAttempts                  int
	backoff, backoffCap, timeout time.Duration
	deadline                     time.Time // no attempt begins later
	maxBody                      int64
	pause                        func(*http.Request, time.Duration) error

	attempts int
	maybe    bool // an earlier attempt may have run
}

// attempt is what came of one request: a response or an error.
type attempt struct {
	judgement
	resp  *http.Response
	whole bool // the response's body is in memory, or there is none
	err   error
	end   context.CancelFunc // releases what a response's body needs
}

// errAttemptTimeout is the cause of an attempt's end by AttemptTimeout.
var errAttemptTimeout = fmt.Errorf("semelhttp: no answer within AttemptTimeout: %w", context.DeadlineExceeded)

func (c *call) run() (*http.Response, error) {
	ctx := c.r.Context()
	if err := ctx.Err(); err != nil {
		if c.rest != nil {
			_ = c.rest.Close() // unread
		}
		return nil, c.fail(OutcomeNotDone, err)
	}
	for {
		c.attempts++
		a := c.try()
		wait, again := c.wait(a)
		if !again {
			return c.last(a)
		}
		a.discard()
		c.maybe = c.maybe || a.outcome != OutcomeNotDone
		if err := c.pause(c.r, wait); err != nil {
			outcome := OutcomeNotDone
			if c.maybe {
				outcome = OutcomeUnknown
			}
			return nil, c.fail(outcome, fmt.Errorf("%w while waiting to ask again after %s", err, a.told()))
		}
	}
}

// try sends the request once.
func (c *call) try() attempt {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	timer := time.AfterFunc(c.timeout, func() { cancel(errAttemptTimeout) })
	a := attempt{end: func() { cancel(nil) }}
	var wanted, got atomic.Bool // dialling may go on after RoundTrip has returned
	sent := c.sent.Clone(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	}))
	sent.Trailer = c.sent.Trailer
	c.setBody(sent)
	a.resp, a.err = c.base.RoundTrip(sent)
	if a.err == nil {
		a.judgement = judge(a.resp, c.replayHeader)
		c.readAhead(&a)
	}
	if !timer.Stop() && a.resp != nil && !a.whole {
		_ = a.resp.Body.Close() // its bytes can no longer be read
		a.resp, a.err = nil, errAttemptTimeout
	}
	if a.err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(cause, errAttemptTimeout) {
			a.err = cause
		}
		a.end()
		a.judgeError(wanted.Load() && !got.Load() || !got.Load() && dialled(a.err))
	}
	return a
}

// setBody gives an attempt its body. GetBody is nil and the body is never nil nor
// http.NoBody, also where it is empty: net/http takes any of these, together with
// the key, for leave to send again by itself.
func (c *call) setBody(sent *http.Request) {
	if c.rest != nil {
		sent.Body = c.rest
		return
	}
	sent.Body = io.NopCloser(bytes.NewReader(c.body))
	sent.ContentLength = int64(len(c.body))
	if len(sent.Trailer) > 0 {
		sent.ContentLength = -1 // trailers travel with chunks only
	}
}

// judgeError tells whether a failed attempt may have run, and whether to repeat
// it. unsent is for positive evidence only: that there never was a connection.
func (a *attempt) judgeError(unsent bool) {
	a.judgement = judgement{outcome: OutcomeUnknown, retry: true}
	if unsent {
		a.outcome = OutcomeNotDone
	}
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](a.err); untrusted {
		a.retry = false // the next certificate is the same
	}
}

// dialled tells whether the error is that of making a connection.
func dialled(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// readAhead reads a body of known length, so that an answer that breaks off
// counts as lost while it can still be asked for again. If it cannot, the caller
// gets what came, and the error.
func (c *call) readAhead(a *attempt) {
	body := a.resp.Body
	if body == nil || body == http.NoBody {
		a.whole = true
		return
	}
	if a.resp.ContentLength < 0 || a.resp.ContentLength > c.maxBody {
		return
	}
	b, err := io.ReadAll(body)
	_ = body.Close() // all of it was read, or it is broken
	a.whole = true
	a.resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b), failed{err}))
	if err != nil {
		a.retry = true
	}
}

// wait gives the time until the next attempt, false if there is to be none.
func (c *call) wait(a attempt) (time.Duration, bool) {
	if !a.retry || c.rest != nil || c.attempts >= c.maxAttempts || c.r.Context().Err() != nil {
		return 0, false
	}
	ceiling := c.backoff
	for range c.attempts - 1 {
		if ceiling >= c.backoffCap/2 {
			ceiling = c.backoffCap
			break
		}
		ceiling *= 2
	}
	wait := rand.N(min(ceiling, c.backoffCap) + 1)
	left := time.Until(c.deadline)
	if a.resp != nil {
		after, _ := parseRetryAfter(a.resp.Header, time.Now())
		wait += min(after, max(left, 0)) // not the sum of two very long times
	}
	return wait, wait < left
}

// discard gives an answer up. It reads a little of it, so that the connection can
// be used again.
func (a *attempt) discard() {
	if a.resp == nil {
		return
	}
	if !a.whole {
		stop := time.AfterFunc(time.Second, a.end)
		_, _ = io.CopyN(io.Discard, a.resp.Body, 64<<10)
		stop.Stop()
	}
	_ = a.resp.Body.Close() // nobody wants it
	a.end()
}

// last gives the final attempt to the caller, together with what the earlier ones
// leave open.
func (c *call) last(a attempt) (*http.Response, error) {
	maybe := c.maybe && !a.proof
	switch {
	case a.err != nil && (maybe || a.outcome != OutcomeNotDone):
		return nil, c.fail(OutcomeUnknown, a.err)
	case a.err != nil:
		return nil, c.fail(OutcomeNotDone, a.err)
	case maybe && a.outcome == OutcomeNotDone:
		a.discard()
		err := c.fail(OutcomeUnknown, fmt.Errorf("%s means that nothing ran, but an earlier attempt may have", a.told()))
		err.Status = a.resp.StatusCode
		return nil, err
	case maybe && a.outcome == OutcomeDone:
		a.outcome = OutcomeUnknown
	}
	a.resp.Request = c.sent.WithContext(withOutcome(c.r.Context(), a.outcome))
	switch {
	case a.whole:
		a.end()
	case a.resp.StatusCode != http.StatusSwitchingProtocols: // that body is also written to
		a.resp.Body = &endingBody{a.resp.Body, a.end}
	}
	return a.resp, nil
}

func (c *call) fail(o Outcome, err error) *SendError {
	return &SendError{Outcome: o, Key: c.key, Attempts: c.attempts, Err: err}
}

// told names what an attempt got.
func (a *attempt) told() string {
	if a.resp == nil {
		return "the error: " + a.err.Error()
	}
	text := "the answer " + a.resp.Status
	if p, ok := ReadProblem(a.resp); ok && p.Kind() != "" {
		text += " (" + string(p.Kind()) + ")"
	}
	return text
}

// endingBody releases its attempt when it is closed.
type endingBody struct {
	io.ReadCloser
	end context.CancelFunc
}

func (b *endingBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// joinedBody reads from one thing and closes another.
type joinedBody struct {
	io.Reader
	io.Closer
}

// bodyForKey is what Transport.Key reads.
func (c *call) bodyForKey() io.ReadCloser {
	if c.rest != nil {
		return io.NopCloser(failed{fmt.Errorf("semelhttp: a key cannot be derived from a body of more than MaxBody = %d bytes", c.maxBody)})
	}
	return io.NopCloser(bytes.NewReader(c.body))
}

// contextClose closes a body when the context ends, until stop is called. stop
// tells whether it was in time.
func contextClose(ctx context.Context, body io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = body.Close() }) // the context's error is the one that counts
}

func pause(r *http.Request, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
