package semelhttp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// PolicyDocument tells clients how their requests are treated. docs/spec/policy.md
// says what each member means. It holds nothing that a client could not find out by
// trying.
type PolicyDocument struct {
	Name        string            `json:"name,omitempty"`
	Methods     []string          `json:"methods,omitempty"`
	Class       string            `json:"class"`
	Key         KeyPolicy         `json:"key"`
	Fingerprint FingerprintPolicy `json:"fingerprint"`
	// Retention counts from the end of the operation.
	Retention RetentionPolicy `json:"retention"`
	// Wait is in seconds, 0 if a duplicate does not wait.
	Wait float64 `json:"wait"`
	// InDoubt is who settles an outcome that nobody knows: "operator", "resolver",
	// "next-request", or "never" where there are none.
	InDoubt string `json:"in_doubt"`
	// Quota tells that new keys are counted, and may get 429.
	Quota bool `json:"quota"`
	// MaxBody and MaxResult are in bytes.
	MaxBody   int64 `json:"max_body"`
	MaxResult int   `json:"max_result"`
	// NotDone are the statuses of answers that are not stored.
	NotDone      []int  `json:"not_done"`
	ReplayHeader string `json:"replay_header"`
	// StatusPath is that of the status endpoint, empty if there is none.
	StatusPath string `json:"status_path,omitempty"`
}

// KeyPolicy is what a route wants of keys.
type KeyPolicy struct {
	Header string `json:"header"`
	// Without is what becomes of a request that has none: "unguarded", "refused", or
	// "derived" from its content.
	Without string `json:"without"`
	// Format is always "token-or-string": see ParseKey.
	Format    string `json:"format"`
	MaxLength int    `json:"max_length"`
	// UUIDv7 is the window of the time that such keys carry, in seconds.
	UUIDv7 TimeWindow `json:"uuidv7"`
}

// TimeWindow is how old a key's own time may be, and how far ahead.
type TimeWindow struct {
	Past  int64 `json:"past"`
	Ahead int64 `json:"ahead"`
}

// FingerprintPolicy is what makes two requests with one key the same.
type FingerprintPolicy struct {
	// Body is what of it counts: "bytes" or, where the route says so, other words.
	Body    string   `json:"body"`
	Headers []string `json:"headers,omitempty"`
}

// RetentionPolicy is in seconds.
type RetentionPolicy struct {
	Replay   int64 `json:"replay"`
	Remember int64 `json:"remember"`
}

// keyAhead is how far ahead a key's own time may lie, see semel.Admit.
const keyAhead = 5 * time.Minute

// Document gives what h tells clients of its policy.
func (h *Handler) Document() PolicyDocument {
	p := &h.o.Policy
	d := PolicyDocument{
		Name: p.Name, Methods: slices.Clone(h.o.Methods), Class: p.Class.String(),
		Key: KeyPolicy{
			Header: h.o.KeyHeader, Without: "unguarded", Format: "token-or-string", MaxLength: maxKeyBytes,
			UUIDv7: TimeWindow{Past: seconds(p.Remember), Ahead: seconds(keyAhead)},
		},
		Fingerprint: FingerprintPolicy{Body: h.o.BodyCounts, Headers: slices.Clone(h.o.FingerprintHeaders)},
		Retention:   RetentionPolicy{Replay: seconds(p.Replay), Remember: seconds(p.Remember)},
		Wait:        max(p.Wait, 0).Seconds(),
		InDoubt:     settledBy(p), Quota: p.Quota != nil, MaxBody: h.o.MaxBody, MaxResult: p.MaxResult,
		NotDone: slices.Clone(h.o.NotDone), ReplayHeader: h.o.ReplayHeader, StatusPath: h.o.StatusPath,
	}
	switch {
	case h.o.RequireKey:
		d.Key.Without = "refused"
	case h.o.DeriveKey:
		d.Key.Without = "derived"
	}
	switch {
	case d.Fingerprint.Body != "":
	case h.o.Canonical != nil:
		d.Fingerprint.Body = "canonical"
	default:
		d.Fingerprint.Body = "bytes"
	}
	return d
}

func settledBy(p *semel.Policy) string {
	switch {
	case p.Class == semel.Transactional:
		return "never"
	case p.Class != semel.AtMostOnce:
		return "next-request"
	case p.Resolve != nil:
		return "resolver"
	}
	return "operator"
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// Policy gives the handler that tells clients how h treats their requests: the one
// that the link of a refusal leads to, if it is mounted at Options.PolicyPath. For
// several Handlers in one place see [Policies].
func (h *Handler) Policy() http.Handler { return h.policy }

func (h *Handler) describes() http.Handler {
	return Policies([]PolicyDocument{h.Document()}, func(method, _ string) int {
		if slices.Contains(h.o.Methods, method) {
			return 0
		}
		return -1
	})
}

// Policies gives the handler that tells clients how requests are treated: with GET
// all of it, and with ?method=POST&path=/orders the document that find chooses for
// such a request, by its index, or -1 if such a request is not guarded. What find
// gets is not checked. The answers are JSON with an ETag, the same for everybody;
// caches may keep them for five minutes.
func Policies(all []PolicyDocument, find func(method, path string) int) http.Handler {
	list := newDocument(struct {
		Policies []PolicyDocument `json:"policies"`
	}{all})
	each := make([]document, len(all))
	for i := range all {
		each[i] = newDocument(all[i])
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refusePlainly(w, r, http.StatusMethodNotAllowed, "policies are asked for with GET")
			return
		}
		query := r.URL.Query()
		method, path := query["method"], query["path"]
		if len(method) == 0 && len(path) == 0 {
			list.serve(w, r)
			return
		}
		if len(method) != 1 || len(path) != 1 || method[0] == "" || path[0] == "" {
			refusePlainly(w, r, http.StatusBadRequest, "ask with method= and path= of a request, each once, or with neither for all policies")
			return
		}
		i := find(method[0], path[0])
		if i < 0 || i >= len(each) {
			refusePlainly(w, r, http.StatusNotFound, "such a request is not guarded: it passes as it is, and a key in it means nothing")
			return
		}
		each[i].serve(w, r)
	})
}

// document is one that does not change.
type document struct {
	body []byte
	tag  string
}

func newDocument(v any) document {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // cannot fail: the members are words, numbers and flags
	sum := sha256.Sum256(b.Bytes())
	return document{b.Bytes(), `"` + hex.EncodeToString(sum[:12]) + `"`}
}

func (d *document) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "public, max-age=300")
	header.Set("Etag", d.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body))
}

// linkPolicy adds the link to the policy of a request.
func (h *Handler) linkPolicy(w http.ResponseWriter, r *http.Request) {
	if h.o.PolicyPath == "" {
		return
	}
	query := url.Values{"method": {r.Method}, "path": {r.URL.EscapedPath()}}
	link := "<" + h.o.PolicyPath + "?" + query.Encode() + `>; rel="service-desc"`
	if len(link) > maxLink {
		link = "<" + h.o.PolicyPath + `>; rel="service-desc"`
	}
	w.Header().Add("Link", link)
}
