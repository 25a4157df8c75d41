package semelgrpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel/semelhttp"
)

// exchange is one call of the application's: all attempts at it.
type exchange struct {
	ctx  context.Context
	key  string
	send func(ctx context.Context, more ...grpc.CallOption) error

	maxAttempts                  int
	backoff, backoffCap, timeout time.Duration
	deadline                     time.Time // no attempt begins later

	attempts int
	maybe    bool // an earlier attempt may have run
}

// attempt is what came of one attempt.
type attempt struct {
	judgement
	err   error
	delay time.Duration // of the RetryInfo
}

// errAttemptTimeout is the cause of an attempt's end by AttemptTimeout.
var errAttemptTimeout = fmt.Errorf("semelgrpc: no answer within AttemptTimeout: %w", context.DeadlineExceeded)

func (x *exchange) run() error {
	if err := x.ctx.Err(); err != nil {
		return x.fail(attempt{judgement: judgement{outcome: semelhttp.OutcomeNotDone}}, err)
	}
	for {
		x.attempts++
		a := x.try()
		if a.err == nil {
			return nil
		}
		wait, again := x.wait(a)
		if !again {
			return x.last(a)
		}
		x.maybe = x.maybe || a.outcome != semelhttp.OutcomeNotDone
		if err := pause(x.ctx, wait); err != nil {
			return x.fail(a, fmt.Errorf("%w while waiting to ask again after: %w", err, a.err))
		}
	}
}

// try makes the call once. An attempt that never had a connection has no peer;
// nothing of it has left.
func (x *exchange) try() (a attempt) {
	// A deadline would go to the server, whose end of it can come back before ours.
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	timer := time.AfterFunc(x.timeout, func() { cancel(errAttemptTimeout) })
	defer timer.Stop()
	var header, trailer metadata.MD
	var to peer.Peer
	a.err = x.send(ctx, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&to), grpc.MaxRetryRPCBufferSize(0))
	if a.err == nil {
		return a
	}
	st := toStatus(a.err)
	a.delay = retryDelay(st)
	a.judgement = judge(st, header, trailer)
	if a.proof || a.reason != "" || len(trailer.Get(OutcomeMetadata)) > 0 {
		return a
	}
	if st.Code() == codes.Canceled && errors.Is(context.Cause(ctx), errAttemptTimeout) {
		a.judgement, a.err = judgement{outcome: semelhttp.OutcomeUnknown, retry: true}, errAttemptTimeout
	}
	if to.Addr == nil && (st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded || st.Code() == codes.Canceled) {
		a.outcome = semelhttp.OutcomeNotDone
	}
	return a
}

// wait gives the time until the next attempt, false if there is to be none.
func (x *exchange) wait(a attempt) (time.Duration, bool) {
	if !a.retry || x.attempts >= x.maxAttempts || x.ctx.Err() != nil {
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
	left := time.Until(x.deadline)
	wait := rand.N(min(ceiling, x.backoffCap)) + min(a.delay, max(left, 0)) // not the sum of two very long times
	return wait, wait < left
}

// last gives the final attempt to the caller, together with what the earlier ones
// leave open.
func (x *exchange) last(a attempt) error {
	switch {
	case x.maybe && !a.proof && a.outcome == semelhttp.OutcomeNotDone:
		return x.fail(a, fmt.Errorf("the last attempt did nothing, but an earlier one may have: %w", a.err))
	case x.maybe && !a.proof:
		a.outcome = semelhttp.OutcomeUnknown
	}
	return x.fail(a, a.err)
}

// fail gives the error that ends the exchange after its last attempt.
func (x *exchange) fail(a attempt, err error) error {
	e := &SendError{Outcome: a.outcome, Reason: a.reason, Key: x.key, Attempts: x.attempts, Err: err}
	if x.maybe && !a.proof {
		e.Outcome = semelhttp.OutcomeUnknown
	}
	return e
}

// judgement is what one status means.
type judgement struct {
	outcome semelhttp.Outcome
	// retry: the same call may get further.
	retry bool
	// proof: it speaks of the key, not only of this call, so it holds for whatever was
	// sent before.
	proof  bool
	reason Reason
	err    error // the root package's, of the reason
}

// judge looks at an error's status and at the metadata that came with it.
func judge(st *status.Status, header, trailer metadata.MD) judgement {
	switch marks := trailer.Get(OutcomeMetadata); {
	case only(header.Get(ReplayMetadata), "true"), only(marks, outcomeDone):
		return judgement{outcome: semelhttp.OutcomeDone, proof: true, reason: reasonOf(st)}
	case only(marks, outcomeNotDone):
		code := st.Code()
		retry := code == codes.Unavailable || code == codes.ResourceExhausted || code == codes.Aborted
		return judgement{outcome: semelhttp.OutcomeNotDone, retry: retry}
	}
	if j, ours := judgeReason(reasonOf(st)); ours {
		return j
	}
	switch st.Code() {
	case codes.Unavailable:
		return judgement{outcome: semelhttp.OutcomeUnknown, retry: true}
	case codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Internal, codes.DataLoss, codes.ResourceExhausted, codes.Aborted:
		// Also of a connection that broke, a proxy, or a response too long for the client.
		return judgement{outcome: semelhttp.OutcomeUnknown}
	}
	return judgement{outcome: semelhttp.OutcomeDone}
}

// judgeReason tells what a refusal means; ours is false for a reason that this
// package does not know.
func judgeReason(reason Reason) (j judgement, ours bool) {
	for _, t := range reasonTable {
		if t.reason == reason {
			return judgement{outcome: t.outcome, retry: t.wait > 0, proof: t.proof, reason: reason, err: t.err}, true
		}
	}
	return judgement{}, false
}

func only(values []string, value string) bool { return len(values) == 1 && values[0] == value }

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
