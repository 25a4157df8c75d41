package semelhttp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/textproto"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/semelhq/semel"
)

// Handler guards another handler: it runs it once per key, and answers the
// duplicates. It is safe for concurrent use.
type Handler struct {
	guard    *semel.Guard
	next     http.Handler
	o        Options
	replayed []string        // the value of the headers that say so; nobody changes it
	extra    map[string]bool // stored headers besides the usual ones
	buffers  sync.Pool       // of *bytes.Buffer
	inFlight atomic.Int64

	fresh, aged retention // of new answers, and of replayed ones
	policy      http.Handler
}

// NewHandler gives next guarded by guard. Settings that are unsafe or
// incomplete are refused with an error that says what to set.
func NewHandler(guard *semel.Guard, next http.Handler, o Options) (*Handler, error) {
	if guard == nil || next == nil {
		return nil, errors.New("semelhttp: NewHandler needs a guard and a handler")
	}
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	h := &Handler{guard: guard, next: next, o: o, extra: make(map[string]bool), replayed: []string{"true"}}
	for _, name := range o.KeepHeaders {
		h.extra[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	h.policy = h.describes()
	return h, nil
}

// Middleware gives NewHandler in the form that routers expect.
func Middleware(guard *semel.Guard, o Options) (func(http.Handler) http.Handler, error) {
	if _, err := NewHandler(guard, http.NotFoundHandler(), o); err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		h, err := NewHandler(guard, next, o)
		if err != nil {
			panic(err) // the same settings were accepted above; next is nil
		}
		return h
	}, nil
}

// ServeHTTP is part of http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	lines := r.Header[h.o.KeyHeader]
	if !slices.Contains(h.o.Methods, r.Method) || len(lines) == 0 && !h.o.RequireKey && !h.o.DeriveKey {
		h.next.ServeHTTP(w, r)
		return
	}
	if h.inFlight.Add(1) > int64(h.o.MaxInFlight) {
		h.inFlight.Add(-1)
		h.refuse(w, r, TooManyInFlight, "", 0)
		return
	}
	defer h.inFlight.Add(-1)
	content := h.getBuffer()
	defer h.putBuffer(content)
	ask, kind, detail := h.ask(r, lines, content)
	if kind != "" {
		h.refuse(w, r, kind, detail, 0)
		return
	}
	claim, v, err := h.guard.Begin(r.Context(), ask)
	if v.Unconfirmed {
		w.Header()[UnconfirmedHeader] = h.replayed
	}
	switch {
	case claim != nil:
		for h.execute(w, r, claim, content) {
		}
	case err != nil:
		h.unavailable(w, r, err)
	default:
		h.answer(w, r, v)
	}
}

// ask reads a request, its body into content, and gives what to ask the guard, or why
// it is refused.
func (h *Handler) ask(r *http.Request, lines []string, content *bytes.Buffer) (semel.Ask, ProblemKind, string) {
	key, scope, kind, detail := h.key(r, lines)
	if kind != "" {
		return semel.Ask{}, kind, detail
	}
	if err := readBody(content, r, h.o.MaxBody); err != nil {
		return semel.Ask{}, bodyKind(err), err.Error()
	}
	fingerprint, err := h.fingerprint(r, content.Bytes())
	if err != nil {
		return semel.Ask{}, bodyKind(err), err.Error()
	}
	if key.ID == "" {
		key.ID = fingerprint.String()
	}
	ask := semel.Ask{Key: key, Fingerprint: fingerprint, Tenant: scope, Policy: &h.o.Policy}
	if h.o.Memo != nil {
		if ask.Memo, err = h.memo(r, content.Bytes()); err != nil {
			return ask, bodyKind(err), err.Error()
		}
	}
	if h.o.Tenant != nil && h.o.Policy.Quota != nil {
		switch ask.Tenant, err = h.o.Tenant(r); {
		case err != nil:
			return ask, ScopeRequired, err.Error()
		case ask.Tenant == "":
			return ask, ScopeRequired, "it is not known whose quota this request counts for"
		}
	}
	return ask, "", ""
}

// key gives the key of a request with the scope that is in its own, or why there is
// none. An empty ID is to be derived from the content. The last part of the key's
// scope tells sent keys from derived ones, so no client can send a key that is
// another's derived one.
func (h *Handler) key(r *http.Request, lines []string) (key semel.Key, scope string, kind ProblemKind, detail string) {
	source := "content"
	if len(lines) > 0 {
		var err error
		if key.ID, err = ParseKey(lines); err != nil {
			return key, "", KeyInvalid, err.Error()
		}
		source = "key"
	} else if h.o.RequireKey {
		return key, "", KeyRequired, "send the header " + h.o.KeyHeader + " with a value that is unique to this operation, such as a UUID in quotes"
	}
	scope, err := h.o.Scope(r)
	switch {
	case err != nil:
		return key, "", ScopeRequired, err.Error()
	case scope == "":
		return key, "", ScopeRequired, "this request belongs to nobody that the route knows"
	}
	if h.o.Operation == nil {
		key.Scope = semel.JoinScope(scope, r.Method, r.URL.EscapedPath(), source)
	} else {
		key.Scope = semel.JoinScope(scope, h.o.Operation(r), source)
	}
	return key, scope, "", ""
}

func bodyKind(err error) ProblemKind {
	if errors.Is(err, ErrTooLarge) {
		return BodyTooLarge
	}
	return BodyUnreadable
}

// execute runs the handler and ends the claim, whatever the handler does. again
// tells that its transaction was undone, and that another has begun.
func (h *Handler) execute(w http.ResponseWriter, r *http.Request, claim *semel.Claim, content *bytes.Buffer) (again bool) {
	rec := &recorder{w: w, limit: h.o.Policy.MaxResult, hold: h.o.HoldFlush, body: h.getBuffer()}
	if outer := w.Header(); len(outer) > 0 {
		rec.outer = maps.Clone(outer)
	}
	defer h.putBuffer(rec.body)
	rec.in.rest = content.Bytes()
	defer rec.in.Close()
	run := r.WithContext(claim.Context())
	run.Body, run.GetBody, run.ContentLength, run.TransferEncoding = &rec.in, nil, int64(content.Len()), nil
	if content.Len() == 0 {
		run.Body = http.NoBody
	}
	settled := false
	defer func() {
		if !settled { // the handler ended its goroutine
			_ = claim.Doubt()
			h.suspect(claim.Digest())
		}
	}()
	value, stack := invoke(h.next, rec, run)
	rec.finish()
	switch {
	case stack == nil:
		again = h.conclude(rec, r, claim)
	case value != http.ErrAbortHandler && rec.whole():
		h.o.Panicked(r, value, stack)
		h.panicked(rec, r, claim)
	default:
		if value != http.ErrAbortHandler {
			h.o.Panicked(r, value, stack)
		}
		h.unknown(rec, r, claim)
	}
	settled = true
	return again
}

// invoke runs the handler. stack is nil if it returned.
func invoke(next http.Handler, w http.ResponseWriter, r *http.Request) (value any, stack []byte) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if value = recover(); value != nil {
			stack = debug.Stack()
		}
	}()
	next.ServeHTTP(w, r)
	returned = true
	return nil, nil
}

// conclude does what the answer of a handler that returned means.
func (h *Handler) conclude(rec *recorder, r *http.Request, claim *semel.Claim) (again bool) {
	if rec.status == 0 {
		rec.begin(http.StatusOK)
	}
	switch {
	case rec.outcome == OutcomeUnknown:
		h.unknown(rec, r, claim)
		return false
	case rec.outcome == OutcomeNotDone, rec.outcome == "" && slices.Contains(h.o.NotDone, rec.status):
		h.release(rec, r, claim)
		return false
	case rec.outcome == "" && rec.status >= 500 && claim.Transactional():
		if record, err := claim.Retry(nil); err != nil {
			return h.concluded(rec, r, claim, record, err)
		}
		h.release(rec, r, claim)
		return false
	}
	return h.complete(rec, r, claim)
}

// release frees the key: nothing happened, or the claim's transaction undoes it.
// The answer goes to those who wait, and is not stored.
func (h *Handler) release(rec *recorder, r *http.Request, claim *semel.Claim) {
	if err := claim.Release(semel.Result{Code: rec.status, Data: h.encoded(rec)}); err != nil {
		h.replace(rec, r, claim.Digest())
		return
	}
	rec.send(r.Method == http.MethodHead)
}

// complete stores the answer as the operation's outcome, then lets it go.
func (h *Handler) complete(rec *recorder, r *http.Request, claim *semel.Claim) (again bool) {
	record, err := claim.Complete(semel.Result{Code: rec.status, Data: h.encoded(rec)})
	return h.concluded(rec, r, claim, record, err)
}

// concluded answers what the end of the claim came to.
func (h *Handler) concluded(rec *recorder, r *http.Request, claim *semel.Claim, record semel.Record, err error) (again bool) {
	switch {
	case err == nil:
		rec.fields = append(rec.fields, field{RetentionHeader, h.fresh.value(&record, 0)})
		rec.send(r.Method == http.MethodHead)
	case errors.Is(err, semel.ErrSettled) && rec.whole():
		rec.drop()
		h.answer(rec.w, r, semel.Decide(semel.Reading{Record: record, Now: record.WrittenAt}, semel.Ask{Fingerprint: record.Fingerprint}))
	case errors.Is(err, semel.ErrNotDone) && rec.whole():
		rec.drop()
		h.refuse(rec.w, r, NotCommitted, "", 0)
	case errors.Is(err, semel.ErrUndone) && rec.whole():
		rec.drop()
		return true
	case errors.Is(err, semel.ErrUndone): // part of the answer has left already
		_ = claim.Release(semel.Result{})
		h.replace(rec, r, claim.Digest())
	default:
		h.replace(rec, r, claim.Digest())
	}
	return false
}

// encoded gives the answer to store, or nil if it was streamed.
func (h *Handler) encoded(rec *recorder) []byte {
	if !rec.whole() {
		return nil
	}
	var room [12]field
	header := room[:0]
	for _, f := range rec.fields {
		if kept(f.name) || h.extra[f.name] {
			header = append(header, f)
		}
	}
	var trailer []field
	for name, values := range rec.trailers() {
		trailer = append(trailer, field{name, values})
	}
	return encode(rec.status, header, trailer, rec.body.Bytes())
}

// panicked stores and answers a 500: a panic is an outcome. A connection that
// was dropped instead would make the client's transport send again.
func (h *Handler) panicked(rec *recorder, r *http.Request, claim *semel.Claim) {
	rec.drop()
	answer := &recorder{w: rec.w, limit: rec.limit, body: rec.body}
	h.refuse(answer, r, HandlerFailed, "", 0)
	if claim.Transactional() {
		h.release(answer, r, claim)
		return
	}
	h.complete(answer, r, claim) // whatever the route says of a 500: the effect may have happened
}

func logPanic(r *http.Request, value any, stack []byte) {
	slog.ErrorContext(context.WithoutCancel(r.Context()), "semelhttp: the handler panicked",
		"method", r.Method, "path", r.URL.Path, "panic", value, "stack", string(stack))
}
