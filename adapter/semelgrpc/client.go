package semelgrpc

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// Client is the client's side: it gives calls a key, retries them under that key,
// and tells an unknown outcome from a failure (see [OutcomeOf] and [SendError]). Its
// method Unary is the interceptor, for grpc.WithChainUnaryInterceptor. Numbers that
// are zero or negative give the default. It is safe for concurrent use; its fields
// must not change once it is in use.
//
// It handles calls of the methods in Methods, calls that carry the metadata
// idempotency-key, and calls under the context of a step; others pass. The zero
// value handles the last two.
//
// Retried are calls that nobody answered (UNAVAILABLE, or no answer within
// AttemptTimeout) and refusals that come with a RetryInfo, after its delay. Any
// answer of the operation is final, be it an error.
//
// gRPC retries by itself what a service configuration tells it to. Client switches
// that off for the calls that it handles, so that MaxAttempts is what it says; what
// is left is the transparent retry of a call whose request has not been handed to a
// connection. Interceptors after this one must not retry.
type Client struct {
	// Methods get a key: "/bank.Payments/Charge", or "/bank.Payments/*" for all of a
	// service. They have to be guarded at the server: to retry others may run them
	// twice.
	Methods []string
	// Key makes the key of a call that has none, unless its context is that of a step.
	// Its error refuses the call. Default: a UUIDv7, see semelhttp.NewKey; make one
	// that depends on req with semelhttp.DeriveKey.
	Key func(ctx context.Context, method string, req any) (string, error)
	// MaxAttempts is how often a call is made at most, the first time included.
	// Default 5.
	MaxAttempts int
	// BackoffBase and BackoffCap bound the wait before a retry: it is random between
	// 0 and BackoffBase, which doubles with each attempt up to BackoffCap (full
	// jitter). A RetryInfo comes on top. Default 200 ms and 10 s.
	BackoffBase, BackoffCap time.Duration
	// AttemptTimeout bounds one attempt. It is at least the time for which the server
	// lets duplicates wait. Default 30 s.
	AttemptTimeout time.Duration
	// Budget is the time after which no further attempt begins. Default 2 min.
	Budget time.Duration
	// Retention is for how long the server remembers keys: a later retry would be a
	// new operation, so none is made. A UUIDv7 that is older is not sent at all.
	// Default 24 h.
	Retention time.Duration
}

// Unary is a grpc.UnaryClientInterceptor. Its error for a call that it handles is a
// *SendError, whose gRPC status is that of the last attempt.
func (c *Client) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	sent, _ := metadata.FromOutgoingContext(ctx) // a copy
	lines := sent.Get(KeyMetadata)
	derived, inStep := semel.DerivedKey(ctx)
	if len(lines) == 0 && !inStep && !listed(c.Methods, method) {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	x := &exchange{
		ctx: ctx, maxAttempts: positive(c.MaxAttempts, 5),
		backoff: positive(c.BackoffBase, 200*time.Millisecond), backoffCap: positive(c.BackoffCap, 10*time.Second),
		timeout: positive(c.AttemptTimeout, 30*time.Second),
	}
	var err error
	switch {
	case len(lines) > 0:
		x.key, err = semelhttp.ParseKey(lines)
	case inStep:
		x.key = derived
	case c.Key != nil:
		x.key, err = c.Key(ctx, method, req)
	default:
		x.key = semelhttp.NewKey()
	}
	if err == nil {
		err = x.limit(positive(c.Budget, 2*time.Minute), positive(c.Retention, 24*time.Hour))
	}
	if err != nil {
		return x.fail(attempt{judgement: judgement{outcome: semelhttp.OutcomeNotDone}}, err)
	}
	line, err := semelhttp.FormatKey(x.key)
	if err != nil {
		return x.fail(attempt{judgement: judgement{outcome: semelhttp.OutcomeNotDone}}, err)
	}
	if sent == nil {
		sent = metadata.MD{}
	}
	sent.Set(KeyMetadata, line)
	x.send = func(ctx context.Context, more ...grpc.CallOption) error {
		return invoker(metadata.NewOutgoingContext(ctx, sent), method, req, reply, cc, append(opts[:len(opts):len(opts)], more...)...)
	}
	return x.run()
}

// limit fixes the time after which no attempt begins.
func (x *exchange) limit(budget, retention time.Duration) error {
	now := time.Now()
	x.deadline = now.Add(min(budget, retention))
	if end, ok := x.ctx.Deadline(); ok && end.Before(x.deadline) {
		x.deadline = end
	}
	at, timed := semel.KeyTime(x.key)
	if !timed {
		return nil
	}
	if age := now.Sub(at); age > retention {
		return fmt.Errorf("%w: its own time is %v ago and Retention is %v, so the server may have forgotten it and run the operation again; find out what became of it, and use a new key for a new operation", semel.ErrExpired, age.Round(time.Second), retention)
	}
	if end := at.Add(retention); end.Before(x.deadline) {
		x.deadline = end
	}
	return nil
}

// positive gives the default for zero, and for a negative number, which has no
// meaning in any of the settings.
func positive[N int | time.Duration](n, byDefault N) N {
	if n <= 0 {
		return byDefault
	}
	return n
}
