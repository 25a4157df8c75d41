package semelgrpc

import (
	"errors"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// SendError is how [Client] gives back an error of a call that it handled.
// errors.Is finds the root package's error in it: semel.ErrInDoubt if the operation
// may have run, semel.ErrNotDone if nothing ran, semel.ErrInProgress if it still
// runs, and that of the refusal, such as semel.ErrMismatch.
type SendError struct {
	// Outcome is what the client knows of its operation after all attempts. With
	// semelhttp.OutcomeDone the error is the operation's own answer.
	Outcome semelhttp.Outcome
	// Reason is that of the last attempt's refusal; "" for any other error.
	Reason Reason
	// Key is what to ask again with. It is "" if there was none yet. The error's text
	// does not contain it.
	Key string
	// Attempts is how many calls were made.
	Attempts int
	// Err is the last attempt's.
	Err error
}

// Error tells the outcome, the attempts and the cause.
func (e *SendError) Error() string {
	attempts := strconv.Itoa(e.Attempts) + " attempt"
	if e.Attempts != 1 {
		attempts += "s"
	}
	text := map[semelhttp.Outcome]string{
		semelhttp.OutcomeDone: "the answer is an error", semelhttp.OutcomeNotDone: "nothing was done",
		semelhttp.OutcomePending: "the operation is in progress",
	}[e.Outcome]
	if text == "" {
		return "semelgrpc: the outcome is unknown (" + attempts + "), ask again with the same key: " + e.Err.Error()
	}
	return "semelgrpc: " + text + " (" + attempts + "): " + e.Err.Error()
}

// GRPCStatus gives the status of the last attempt. A call that was not made for its
// key's sake has INVALID_ARGUMENT.
func (e *SendError) GRPCStatus() *status.Status {
	st := toStatus(e.Err)
	if e.Attempts == 0 && st.Code() == codes.Unknown {
		return status.New(codes.InvalidArgument, st.Message())
	}
	return st
}

// Unwrap gives the cause and the root package's errors for outcome and reason.
func (e *SendError) Unwrap() []error {
	errs := []error{e.Err}
	if j, _ := judgeReason(e.Reason); j.err != nil {
		errs = append(errs, j.err)
	}
	switch e.Outcome {
	case semelhttp.OutcomeNotDone:
		return append(errs, semel.ErrNotDone)
	case semelhttp.OutcomePending:
		return append(errs, semel.ErrInProgress)
	case semelhttp.OutcomeDone:
		return errs
	}
	return append(errs, semel.ErrInDoubt)
}

// OutcomeOf tells what a client knows after a call that had a key: the difference
// between "it failed" and "nobody knows", which a code alone does not tell.
//
//   - semelhttp.OutcomeDone: the response or the error is the operation's answer.
//     With the reason [ResultGone] it ran and its answer is no longer kept.
//   - semelhttp.OutcomeNotDone: nothing ran, and sending later is safe: with the
//     same key, or a new one.
//   - semelhttp.OutcomePending: ask again later with the same key.
//   - semelhttp.OutcomeUnknown: the operation may have run. Ask again with the same
//     key; never with a new one.
//
// For what [Client] returned, it counts all attempts. For another error it goes by
// the status alone.
func OutcomeOf(err error) semelhttp.Outcome {
	if err == nil {
		return semelhttp.OutcomeDone
	}
	if sent, ok := errors.AsType[*SendError](err); ok {
		return sent.Outcome
	}
	return judge(toStatus(err), nil, nil).outcome
}
