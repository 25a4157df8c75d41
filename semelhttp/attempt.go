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

// exchange is one RoundTrip: all attempts at one request.
type exchange struct {
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

func (x *exchange) run() (*http.Response, error) {
	ctx := x.r.Context()
	if err := ctx.Err(); err != nil {
		if x.rest != nil {
			_ = x.rest.Close() // unread
		}
		return nil, x.fail(attempt{}, err)
	}
	for {
		x.attempts++
		a := x.try()
		wait, again := x.wait(a)
		if !again {
			return x.last(a)
		}
		a.discard()
		x.maybe = x.maybe || a.outcome != OutcomeNotDone
		if err := pause(ctx, wait); err != nil {
			return nil, x.fail(a, fmt.Errorf("%w while waiting to ask again after %s", err, a.told()))
		}
	}
}

// try sends the request once.
func (x *exchange) try() attempt {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	timer := time.AfterFunc(x.timeout, func() { cancel(errAttemptTimeout) })
	a := attempt{end: func() { cancel(nil) }}
	var wanted, got atomic.Bool // dialling may go on after RoundTrip has returned
	sent := x.sent.Clone(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	}))
	sent.Trailer = x.sent.Trailer
	x.setBody(sent)
	a.resp, a.err = x.base.RoundTrip(sent)
	if a.err == nil {
		a.judgement = judge(a.resp, x.replayHeader)
		x.readAhead(ctx, &a)
	}
	if !timer.Stop() && a.resp != nil && !a.whole {
		_ = a.resp.Body.Close() // its bytes can no longer be read
		a.resp, a.err = nil, errAttemptTimeout
	}
	if a.err != nil {
		a.err = orTimeout(ctx, a.err)
		a.end()
		a.judgeError(wanted.Load() && !got.Load() || !got.Load() && dialled(a.err))
	}
	return a
}

// orTimeout gives the cause in place of an error that only says "canceled".
func orTimeout(ctx context.Context, err error) error {
	if context.Cause(ctx) == errAttemptTimeout {
		return errAttemptTimeout
	}
	return err
}

// setBody gives an attempt its body. GetBody is nil and the body is never nil nor
// http.NoBody, also where it is empty: net/http takes any of these, together with
// the key, for leave to send again by itself.
func (x *exchange) setBody(sent *http.Request) {
	if x.rest != nil {
		sent.Body = x.rest
		return
	}
	sent.Body = io.NopCloser(bytes.NewReader(x.body))
	sent.ContentLength = int64(len(x.body))
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
func (x *exchange) readAhead(ctx context.Context, a *attempt) {
	body := a.resp.Body
	if body == nil || body == http.NoBody {
		a.resp.Body, a.whole = http.NoBody, true
		return
	}
	if a.resp.ContentLength < 0 || a.resp.ContentLength > x.maxBody {
		return
	}
	b, err := io.ReadAll(body)
	_ = body.Close() // all of it was read, or it is broken
	a.whole = true
	if err != nil {
		err, a.retry = orTimeout(ctx, err), true
	}
	a.resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b), failed{err}))
}

// wait gives the time until the next attempt, false if there is to be none.
func (x *exchange) wait(a attempt) (time.Duration, bool) {
	if !a.retry || x.rest != nil || x.attempts >= x.maxAttempts || x.r.Context().Err() != nil {
		return 0, false
	}
	ceiling := x.backoff
	for range x.attempts - 1 {
		if ceiling >= x.backoffCap/2 {
			ceiling = x.backoffCap
			break
		}
		ceiling *= 2
	}
	wait := rand.N(min(ceiling, x.backoffCap))
	left := time.Until(x.deadline)
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
func (x *exchange) last(a attempt) (*http.Response, error) {
	if a.err != nil {
		x.maybe = x.maybe || a.outcome != OutcomeNotDone
		return nil, x.fail(a, a.err)
	}
	if x.maybe && !a.proof {
		if a.outcome == OutcomeNotDone {
			a.discard()
			return nil, x.fail(a, fmt.Errorf("%s says that nothing ran, but an earlier attempt may have", a.told()))
		}
		a.outcome = OutcomeUnknown
	}
	a.resp.Request = x.sent.WithContext(withOutcome(x.r.Context(), a.outcome))
	switch {
	case a.whole:
		a.end()
	case a.resp.StatusCode != http.StatusSwitchingProtocols: // that body is also written to
		a.resp.Body = &endingBody{a.resp.Body, a.end}
	}
	return a.resp, nil
}

// fail gives the error that ends the exchange after its last attempt.
func (x *exchange) fail(a attempt, err error) *SendError {
	e := &SendError{Outcome: OutcomeNotDone, Key: x.key, Attempts: x.attempts, Err: err}
	if x.maybe {
		e.Outcome = OutcomeUnknown
	}
	if a.resp != nil {
		e.Status = a.resp.StatusCode
	}
	return e
}

// told names what an attempt got.
func (a *attempt) told() string {
	switch {
	case a.resp == nil:
		return "the error: " + a.err.Error()
	case a.kind != "":
		return "the answer " + a.resp.Status + " (" + string(a.kind) + ")"
	}
	return "the answer " + a.resp.Status
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

// bodyForKey is what Transport.Key reads.
func (x *exchange) bodyForKey() io.ReadCloser {
	if x.rest != nil {
		return io.NopCloser(failed{fmt.Errorf("semelhttp: a key cannot be derived from a body of more than MaxBody = %d bytes", x.maxBody)})
	}
	return io.NopCloser(bytes.NewReader(x.body))
}

// contextClose closes a body when the context ends, until stop is called. stop
// tells whether it was in time.
func contextClose(ctx context.Context, body io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = body.Close() }) // the context's error is the one that counts
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
