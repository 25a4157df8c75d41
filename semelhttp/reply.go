package semelhttp

import (
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// unavailable answers a request for which nothing could be started. One that
// was broken off is answered, too: a client that has closed its half of the
// connection still reads, and net/http would tell it 200.
func (h *Handler) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil || errors.Is(err, semel.ErrUnavailable) {
		h.refuse(w, r, StoreUnavailable, "", 0)
		return
	}
	p := &Problem{
		Type: "about:blank", Title: http.StatusText(http.StatusServiceUnavailable), Status: http.StatusServiceUnavailable,
		Detail:    "the request was broken off before it was started; the same request with the same key may be sent again",
		Retryable: true, RetryAfter: retryAtLeast,
	}
	_ = p.Write(w, r) // a client that cannot be reached asks again
}

// refuse answers a request to the operation with a problem. retryAfter is 0 for the
// kind's own.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, kind ProblemKind, detail string, retryAfter time.Duration) {
	h.linkPolicy(w, r)
	refuse(w, r, kind, detail, retryAfter)
}

// refuse answers with a problem. retryAfter is 0 for the kind's own.
func refuse(w http.ResponseWriter, r *http.Request, kind ProblemKind, detail string, retryAfter time.Duration) {
	p := NewProblem(kind, detail)
	p.RetryAfter = max(p.RetryAfter, retryAfter)
	_ = p.Write(w, r) // a client that cannot be reached asks again
}

// answer tells a duplicate what the record says.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, v semel.Verdict) {
	if v.Action != semel.Replay {
		h.refusal(w, r, v)
		return
	}
	s, err := decode(v.Held.Result)
	if err != nil {
		// A record that cannot be read is in doubt, never absent (INVARIANTS S15).
		h.inDoubt(w, r, v.Held.Digest)
		return
	}
	header := w.Header()
	for _, f := range s.header {
		header[f.name] = f.values
	}
	if v.Reason != semel.Shared {
		header[h.o.ReplayHeader] = h.replayed
		header[RetentionHeader] = h.aged.value(&v.Held, h.guard.Now().Sub(v.Held.WrittenAt))
	}
	for _, f := range s.trailer {
		header.Add("Trailer", f.name)
	}
	if bodyAllowed(s.status) && r.Method != http.MethodHead && len(s.trailer) == 0 && len(s.body) > impliedLength {
		setLength(header, len(s.body))
	}
	w.WriteHeader(s.status)
	if len(s.body) > 0 {
		_, _ = w.Write(s.body)
	}
	for _, f := range s.trailer {
		header[f.name] = f.values
	}
}

// maxInProgress is the longest Retry-After for a lease that runs: most end long
// before.
const maxInProgress = 5 * time.Second

func (h *Handler) refusal(w http.ResponseWriter, r *http.Request, v semel.Verdict) {
	switch v.Reason {
	case semel.InProgress:
		h.linkStatus(w, r)
		h.refuse(w, r, InProgress, "ask again with the same key and the same content after Retry-After", min(v.RetryAfter, maxInProgress))
	case semel.Mismatch:
		h.refuse(w, r, PayloadMismatch, "a new operation needs a new key; a repetition needs the method, path and content of the first request, unchanged", 0)
	case semel.Gone:
		h.linkPolicy(w, r)
		w.Header()[RetentionHeader] = h.aged.value(&v.Held, max(v.Held.Replay, h.guard.Now().Sub(v.Held.WrittenAt)))
		p := NewProblem(ResultGone, "do not send it again: it ran once, with the status that original_status tells")
		p.OriginalStatus = v.Held.Code
		_ = p.Write(w, r)
	case semel.OverQuota:
		h.refuse(w, r, QuotaExceeded, "nothing was started; send it again after Retry-After with the same key and the same content", v.RetryAfter)
	case semel.Expired:
		h.refuse(w, r, KeyExpired, "whether it ran long ago is not remembered; look for its effect before it is sent again with a new key", 0)
	case semel.Early:
		h.refuse(w, r, KeyEarly, "the clock of the client that made this key is more than 5 minutes ahead", 0)
	default:
		h.inDoubt(w, r, v.Held.Digest)
	}
}

// askAgain is what a client can do about an unknown outcome.
const askAgain = "look for the effect before anything else; asking again with the same key is safe and never runs the operation a second time, a new key may"

// unknown tells the client that nobody knows.
func (h *Handler) unknown(rec *recorder, r *http.Request, claim *semel.Claim) {
	_ = claim.Doubt() // whatever came of it, the answer is the same
	h.replace(rec, r, claim.Digest())
}

// replace answers that the outcome is unknown, in place of the recorded answer. A stream
// that has begun is broken off instead, so that nobody takes it for complete.
func (h *Handler) replace(rec *recorder, r *http.Request, digest semel.Digest) {
	switch {
	case rec.hijacked:
		h.suspect(digest)
	case rec.streaming:
		h.suspect(digest)
		panic(http.ErrAbortHandler)
	default:
		rec.drop()
		h.inDoubt(rec.w, r, digest)
	}
}

// inDoubt answers that the outcome is unknown. The digest is zero where it is not
// at hand.
func (h *Handler) inDoubt(w http.ResponseWriter, r *http.Request, digest semel.Digest) {
	h.suspect(digest)
	h.linkStatus(w, r)
	h.refuse(w, r, OutcomeUnknownKind, askAgain, 0)
}

// suspect tells of a key that is in doubt.
func (h *Handler) suspect(digest semel.Digest) {
	if h.o.Suspect != nil && digest != (semel.Digest{}) {
		h.o.Suspect(digest)
	}
}

// retention gives the values of RetentionHeader. It keeps the last one: most answers
// have the same.
type retention struct{ last atomic.Pointer[retained] }

type retained struct {
	replay, remember time.Duration
	value            []string // nobody changes it
}

// value tells of a record that was written so long ago.
func (k *retention) value(r *semel.Record, age time.Duration) []string {
	age = max(age, 0)
	replay := max(r.Replay-age, 0).Truncate(time.Second)
	remember := max(r.TTL-age, 0).Truncate(time.Second)
	if last := k.last.Load(); last != nil && last.replay == replay && last.remember == remember {
		return last.value
	}
	text := "replay=" + strconv.FormatInt(int64(replay/time.Second), 10) + ", remember=" + strconv.FormatInt(int64(remember/time.Second), 10)
	next := &retained{replay, remember, []string{text}}
	k.last.Store(next)
	return next.value
}
