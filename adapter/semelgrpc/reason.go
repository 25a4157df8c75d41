package semelgrpc

import (
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// Domain is that of the ErrorInfo of every refusal.
const Domain = "github.com/semelhq/semel"

// Reason says why a call was refused. It is the reason of the refusal's ErrorInfo,
// and is not renamed once released. docs/spec/grpc.md tells for each what happened,
// whether anything ran, and what a client does next.
type Reason string

const (
	KeyRequired        Reason = "KEY_REQUIRED"                // INVALID_ARGUMENT: no key, and the method demands one
	KeyInvalid         Reason = "KEY_INVALID"                 // INVALID_ARGUMENT: the key cannot be read
	KeyEarly           Reason = "KEY_EARLY"                   // INVALID_ARGUMENT: the key's own time lies ahead
	ScopeRequired      Reason = "SCOPE_REQUIRED"              // INVALID_ARGUMENT: it is not known whose call it is
	MessageUnreadable  Reason = "MESSAGE_UNREADABLE"          // INVALID_ARGUMENT: the request cannot be fingerprinted
	PayloadMismatch    Reason = "PAYLOAD_MISMATCH"            // FAILED_PRECONDITION: the key was used with another payload
	InProgress         Reason = "IN_PROGRESS"                 // ABORTED: the first call still runs
	OutcomeUnknown     Reason = "OUTCOME_UNKNOWN"             // UNKNOWN: it started, and nobody knows how it ended
	ResultGone         Reason = "RESULT_GONE"                 // ALREADY_EXISTS: it ran, and its answer is not kept
	KeyExpired         Reason = "KEY_EXPIRED"                 // OUT_OF_RANGE: the key is older than keys are remembered
	MessageTooLarge    Reason = "MESSAGE_TOO_LARGE"           // RESOURCE_EXHAUSTED: over the limit, nothing ran
	TooManyInFlight    Reason = "TOO_MANY_REQUESTS_IN_FLIGHT" // UNAVAILABLE: over the limit, nothing ran
	StoreUnavailable   Reason = "STORE_UNAVAILABLE"           // UNAVAILABLE: nothing can be remembered, so nothing ran
	NotCommitted       Reason = "NOT_COMMITTED"               // UNAVAILABLE: the database undid all of it
	QuotaExceeded      Reason = "QUOTA_EXCEEDED"              // RESOURCE_EXHAUSTED: the tenant has begun as much as it may, nothing ran
	HandlerFailed      Reason = "HANDLER_FAILED"              // INTERNAL: the handler panicked; stored as the answer
	MessageUnsupported Reason = "MESSAGE_UNSUPPORTED"         // UNIMPLEMENTED: the message is no protocol buffer
	StreamRefused      Reason = "STREAM_REFUSED"              // UNIMPLEMENTED: streams are not guarded
)

// reasonTable is the one place with what is fixed about each reason. wait is the
// RetryInfo that it comes with at least; 0 means none, and not retryable.
var reasonTable = [...]struct {
	reason  Reason
	code    codes.Code
	wait    time.Duration
	outcome semelhttp.Outcome // what a client knows
	proof   bool              // it speaks of the key, not only of this call
	err     error
	text    string
}{
	{KeyRequired, codes.InvalidArgument, 0, semelhttp.OutcomeNotDone, false, nil, "an idempotency key is required: send the metadata " + KeyMetadata + " with a value that is unique to this operation, such as a UUID"},
	{KeyInvalid, codes.InvalidArgument, 0, semelhttp.OutcomeNotDone, false, nil, "the idempotency key cannot be read"},
	{KeyEarly, codes.InvalidArgument, 0, semelhttp.OutcomeNotDone, false, semel.ErrEarly, "the clock of the client that made this key is more than 5 minutes ahead"},
	{ScopeRequired, codes.InvalidArgument, 0, semelhttp.OutcomeNotDone, false, nil, "it is not known whose call this is"},
	{MessageUnreadable, codes.InvalidArgument, 0, semelhttp.OutcomeNotDone, false, nil, "the request cannot be read"},
	{PayloadMismatch, codes.FailedPrecondition, 0, semelhttp.OutcomeNotDone, true, semel.ErrMismatch, "the idempotency key was used with another payload: a new operation needs a new key"},
	{InProgress, codes.Aborted, time.Second, semelhttp.OutcomePending, true, semel.ErrInProgress, "the first call with this key is still in progress: ask again with the same key and the same request"},
	{OutcomeUnknown, codes.Unknown, 0, semelhttp.OutcomeUnknown, true, semel.ErrInDoubt, "the operation started and its outcome is unknown: look for the effect before anything else; asking again with the same key never runs it a second time, a new key may"},
	{ResultGone, codes.AlreadyExists, 0, semelhttp.OutcomeDone, true, semel.ErrGone, "the operation ran and its answer is not kept: do not send it again"},
	{KeyExpired, codes.OutOfRange, 0, semelhttp.OutcomeUnknown, true, semel.ErrExpired, "the key is older than keys are remembered, and so is whether it ran: look for its effect before it is sent again with a new key"},
	{MessageTooLarge, codes.ResourceExhausted, 0, semelhttp.OutcomeNotDone, false, nil, "the request is too large"},
	{TooManyInFlight, codes.Unavailable, time.Second, semelhttp.OutcomeNotDone, false, nil, "too many calls are in flight"},
	{StoreUnavailable, codes.Unavailable, time.Second, semelhttp.OutcomeNotDone, false, semel.ErrUnavailable, "nothing can be remembered at the moment, so nothing was started"},
	{NotCommitted, codes.Unavailable, time.Second, semelhttp.OutcomeNotDone, false, semel.ErrNotDone, "the database undid the operation, so nothing happened"},
	{QuotaExceeded, codes.ResourceExhausted, time.Second, semelhttp.OutcomeNotDone, false, semel.ErrOverQuota, "this client has begun as much as it may for now, and nothing was started: ask again later with the same key and the same request"},
	{HandlerFailed, codes.Internal, 0, semelhttp.OutcomeDone, true, nil, "the server failed while it handled the call"},
	{MessageUnsupported, codes.Unimplemented, 0, semelhttp.OutcomeNotDone, false, nil, "only methods whose messages are protocol buffers can be guarded"},
	{StreamRefused, codes.Unimplemented, 0, semelhttp.OutcomeNotDone, false, nil, "streams are not guarded"},
}

// refusal is a status of this package, with all that is to go out with it.
type refusal struct {
	reason Reason
	detail string // in place of the usual text
	wait   time.Duration
	// original is the code of the answer that is not kept, of a ResultGone.
	original codes.Code
}

// status gives the refusal as gRPC has it.
func (r refusal) status() *status.Status {
	for _, t := range reasonTable {
		if t.reason != r.reason {
			continue
		}
		text := t.text
		if r.detail != "" {
			text = r.detail
		}
		info := &errdetails.ErrorInfo{Reason: string(r.reason), Domain: Domain, Metadata: map[string]string{"retryable": strconv.FormatBool(t.wait > 0)}}
		if r.reason == ResultGone {
			info.Metadata["original_code"] = codeName(r.original)
		}
		details := []protoadapt.MessageV1{info}
		if wait := max(t.wait, r.wait); t.wait > 0 {
			details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
		}
		st, err := status.New(t.code, text).WithDetails(details...)
		if err != nil {
			return status.New(t.code, text) // cannot be: no code is OK, and the details encode
		}
		return st
	}
	return status.New(codes.Internal, r.detail)
}

// pushback is what tells gRPC's own retries when to come again, and -1 not to.
func pushback(st *status.Status) string {
	if wait := retryDelay(st); wait > 0 {
		return strconv.FormatInt(wait.Milliseconds(), 10)
	}
	return "-1"
}

// ReasonOf gives the reason of a refusal of this package, or "" for any other error.
func ReasonOf(err error) Reason {
	st, ok := status.FromError(err)
	if !ok {
		return ""
	}
	return reasonOf(st)
}

func reasonOf(st *status.Status) Reason {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return Reason(info.GetReason())
		}
	}
	return ""
}

// retryDelay gives the status' RetryInfo, anybody's, or 0.
func retryDelay(st *status.Status) time.Duration {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}

// foreign gives st without what other servers of Semel said in it: a handler that
// passes on the error of a call it made does not speak of its own key.
func foreign(st *status.Status) *status.Status {
	if reasonOf(st) == "" {
		return st
	}
	p := st.Proto()
	kept := p.Details[:0]
	for _, d := range p.Details {
		info := new(errdetails.ErrorInfo)
		if d.MessageIs(info) && d.UnmarshalTo(info) == nil && info.GetDomain() == Domain {
			continue
		}
		kept = append(kept, d)
	}
	p.Details = kept
	return status.FromProto(p)
}

// codeName gives the code as it is written in the specification of gRPC.
func codeName(c codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "CODE_" + strconv.Itoa(int(c))
}
