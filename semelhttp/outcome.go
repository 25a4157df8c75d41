package semelhttp

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/semelhq/semel"
)

// Outcome is what a client knows of its operation, see [OutcomeOf]. Besides the
// two below it is [OutcomeNotDone] or [OutcomeUnknown], in the server's sense.
type Outcome string

const (
	// OutcomeDone: the operation has ended, and the response tells how, be it with
	// success or failure. With the problem [ResultGone] it ran and its answer is no
	// longer kept.
	OutcomeDone Outcome = "done"
	// OutcomePending: the operation still runs. Ask again with the same key.
	OutcomePending Outcome = "pending"
)

// OutcomeOf tells what a client knows after a request that had a key: the
// difference between "it failed" and "nobody knows", which status and error alone
// do not tell.
//
//   - [OutcomeDone]: read the response, it is the answer.
//   - [OutcomeNotDone]: nothing ran, and sending later is safe: with the same
//     key, or a new one.
//   - [OutcomePending]: ask again later with the same key.
//   - [OutcomeUnknown]: the operation may have run. Ask again with the same key;
//     never with a new one.
//
// For what [Transport] returned, it counts all attempts: after an attempt whose
// answer was lost, a 401 is not the operation's answer. For other responses it
// goes by the one response; ask before the body is read. Where nothing is known
// for certain, such as a 5xx that is not marked as replayed, it is
// OutcomeUnknown.
func OutcomeOf(resp *http.Response, err error) Outcome {
	if err != nil {
		if sent, ok := errors.AsType[*SendError](err); ok {
			return sent.Outcome
		}
		return OutcomeUnknown
	}
	if resp == nil {
		return OutcomeUnknown
	}
	if resp.Request != nil {
		if known, ok := resp.Request.Context().Value(outcomeKey{}).(Outcome); ok {
			return known
		}
	}
	return judge(resp, "Idempotent-Replayed").outcome
}

// outcomeKey finds the outcome in the context of a response's request.
type outcomeKey struct{}

func withOutcome(ctx context.Context, o Outcome) context.Context {
	return context.WithValue(ctx, outcomeKey{}, o)
}

// SendError is how [Transport] fails when it has no response that could be
// trusted. errors.Is finds semel.ErrInDoubt in it if the operation may have run,
// and semel.ErrNotDone if nothing was sent or nothing ran.
type SendError struct {
	// Outcome is OutcomeNotDone or OutcomeUnknown.
	Outcome Outcome
	// Key is what to ask again with. It is "" if there was none yet. The error's
	// text does not contain it.
	Key string
	// Attempts is how many requests were made.
	Attempts int
	// Status is that of the last response, 0 if there was none.
	Status int
	// Err is the last attempt's.
	Err error
}

// Error tells the outcome, the attempts and the cause.
func (e *SendError) Error() string {
	attempts := strconv.Itoa(e.Attempts) + " attempt"
	if e.Attempts != 1 {
		attempts += "s"
	}
	if e.Outcome == OutcomeNotDone {
		return "semelhttp: nothing was done (" + attempts + "): " + e.Err.Error()
	}
	return "semelhttp: the outcome is unknown (" + attempts + "), ask again with the same key: " + e.Err.Error()
}

// Unwrap gives the cause and the root package's error for the outcome.
func (e *SendError) Unwrap() []error {
	if e.Outcome == OutcomeNotDone {
		return []error{e.Err, semel.ErrNotDone}
	}
	return []error{e.Err, semel.ErrInDoubt}
}

// Timeout tells whether the cause is a timeout, as net.Error does.
func (e *SendError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// judgement is what one response means.
type judgement struct {
	outcome Outcome
	// retry: the same request may get further.
	retry bool
	// proof: it speaks of the key, not only of this request, so it holds for
	// whatever was sent before.
	proof bool
	kind  ProblemKind // "" without a problem of this package
}

// judge looks at one response. It may read a problem document, which can be read
// again.
func judge(resp *http.Response, replayHeader string) judgement {
	done := judgement{outcome: OutcomeDone, proof: true}
	if resp.StatusCode < 400 || resp.Header.Get(replayHeader) == "true" {
		return done // also a stored 503: it stays what it is, however often one asks
	}
	if p, ok := ReadProblem(resp); ok && p.Kind() != "" {
		j := p.Kind().judge()
		j.kind = p.Kind()
		return j
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		return judgement{outcome: OutcomeNotDone, retry: true}
	case code == http.StatusTooEarly:
		return judgement{outcome: OutcomeNotDone} // RFC 8470, section 5.2
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return judgement{outcome: OutcomeUnknown, retry: true}
	case code == http.StatusRequestTimeout, code >= 500:
		return judgement{outcome: OutcomeUnknown}
	}
	return judgement{outcome: OutcomeDone}
}

func (k ProblemKind) judge() judgement {
	switch k {
	case InProgress:
		return judgement{outcome: OutcomePending, retry: true, proof: true}
	case ResultGone, HandlerFailed:
		return judgement{outcome: OutcomeDone, proof: true}
	case PayloadMismatch: // the key is another payload's, so this one never ran under it
		return judgement{outcome: OutcomeNotDone, proof: true}
	case TooManyInFlight, StoreUnavailable, NotCommitted, UpstreamUnreachable, QuotaExceeded:
		return judgement{outcome: OutcomeNotDone, retry: true}
	case KeyRequired, KeyInvalid, KeyEarly, ScopeRequired, BodyUnreadable, BodyTooLarge:
		return judgement{outcome: OutcomeNotDone}
	}
	// Unknown, or a key so old that nobody remembers whether it ran.
	return judgement{outcome: OutcomeUnknown, proof: true}
}
