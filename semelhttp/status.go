package semelhttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/semelhq/semel"
)

// Status gives the handler that tells what is known of a key that was sent to h:
// the one that the link of a refusal leads to, if it is mounted at
// Options.StatusPath. It takes a GET with the credentials of the operation's own
// request, and as the query the key and the method and path of that request, or,
// where the route names operations, the operation. It answers in JSON, see
// docs/spec/http.md, and runs nothing.
//
// Whose key it is comes from the asking request alone: Options.Scope is called
// with that. A stranger's key and one that nobody has sent give the same answer. A
// Scope that looks at paths finds nothing here.
func (h *Handler) Status() http.Handler { return http.HandlerFunc(h.status) }

// keyStatus is the JSON of a status answer.
type keyStatus struct {
	// State is one of the words of stateOf.
	State string `json:"state"`
	// Status is the HTTP status that the operation ended with.
	Status int `json:"status,omitempty"`
	// Replayable tells that asking again with the same key and content gives the
	// answer itself.
	Replayable bool `json:"replayable"`
}

// unknownKey is the state of a key of which nothing is known in the asker's scope.
const unknownKey = "unknown-key"

// lookWithin bounds how long the store is asked.
const lookWithin = 5 * time.Second

func (h *Handler) status(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refusePlainly(w, r, http.StatusMethodNotAllowed, "the status of a key is asked for with GET")
		return
	}
	key, ok := h.statusKey(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookWithin)
	defer cancel()
	held, err := h.guard.Store().Get(ctx, h.guard.Digest(key))
	switch {
	case errors.Is(err, semel.ErrDamaged): // in doubt, never absent (INVARIANTS S15)
		tellStatus(w, r, http.StatusOK, keyStatus{State: "in-doubt"})
		return
	case err != nil:
		refuse(w, r, StoreUnavailable, "", 0)
		return
	}
	if held.Unconfirmed {
		w.Header()[UnconfirmedHeader] = h.replayed
	}
	told, code := stateOf(held), http.StatusOK
	switch told.State {
	case unknownKey:
		code = http.StatusNotFound
	case semel.Pending.String():
		left := min(held.Record.Expires().Sub(held.Now), maxInProgress)
		w.Header().Set("Retry-After", formatRetryAfter(left))
	}
	tellStatus(w, r, code, told)
}

// statusKey gives the key that is asked about, or refuses.
func (h *Handler) statusKey(w http.ResponseWriter, r *http.Request) (semel.Key, bool) {
	query := r.URL.Query()
	id := query.Get("key")
	if _, err := FormatKey(id); err != nil || len(query["key"]) != 1 {
		refuse(w, r, KeyInvalid, "ask with ?key= and the idempotency key without quotes, once", 0)
		return semel.Key{}, false
	}
	names := []string{"method", "path"}
	if h.o.Operation != nil {
		names = []string{"operation"}
	}
	var operation []string
	for _, name := range names {
		if len(query[name]) != 1 || query.Get(name) == "" {
			refusePlainly(w, r, http.StatusBadRequest, "ask with "+name+"= of the operation's own request in the query, once, as the link of its answer has it")
			return semel.Key{}, false
		}
		operation = append(operation, query.Get(name))
	}
	scope, err := h.o.Scope(r)
	if err != nil || scope == "" {
		detail := "this request belongs to nobody that the route knows"
		if err != nil {
			detail = err.Error()
		}
		refuse(w, r, ScopeRequired, detail, 0)
		return semel.Key{}, false
	}
	return semel.Key{Scope: semel.JoinScope(append(append([]string{scope}, operation...), "key")...), ID: id}, true
}

// stateOf says what a record tells its own client.
func stateOf(held semel.Reading) keyStatus {
	r := &held.Record
	switch {
	case !r.Held():
		return keyStatus{State: unknownKey}
	case r.State == semel.Done:
		return keyStatus{State: r.State.String(), Status: r.Code, Replayable: held.Now.Before(r.WrittenAt.Add(r.Replay))}
	case r.InDoubt(held.Now):
		return keyStatus{State: "in-doubt"}
	case r.State == semel.Pending && !held.Now.Before(r.Expires()):
		return keyStatus{State: "interrupted"} // the next request takes it over
	}
	return keyStatus{State: r.State.String()}
}

func tellStatus(w http.ResponseWriter, r *http.Request, code int, s keyStatus) {
	body, err := json.Marshal(s)
	if err != nil {
		return // cannot be: the fields are a word, a number and a flag
	}
	body = append(body, '\n')
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that cannot be reached asks again
	}
}

// refusePlainly is for what no kind of problem stands for.
func refusePlainly(w http.ResponseWriter, r *http.Request, status int, detail string) {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
	_ = p.Write(w, r) // a client that cannot be reached asks again
}

// maxLink is the longest link in bytes: heads have their limits at clients, too.
const maxLink = 2 << 10

// linkStatus adds the link to the status of the request's key, if there is an
// endpoint. A key that was derived from the content has none: its hash in a URL
// would let who reads logs test guesses of the content.
func (h *Handler) linkStatus(w http.ResponseWriter, r *http.Request) {
	if h.o.StatusPath == "" {
		return
	}
	id, err := ParseKey(r.Header[h.o.KeyHeader])
	if err != nil {
		return
	}
	query := url.Values{"key": {id}}
	if h.o.Operation != nil {
		query.Set("operation", h.o.Operation(r))
	} else {
		query.Set("method", r.Method)
		query.Set("path", r.URL.EscapedPath())
	}
	if link := "<" + h.o.StatusPath + "?" + query.Encode() + `>; rel="status"`; len(link) <= maxLink {
		w.Header().Add("Link", link)
	}
}
