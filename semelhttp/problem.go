package semelhttp

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// ProblemKind says why a request was refused. It is the fragment of a problem's
// type, and is not renamed once released. docs/spec/problems.md tells for each
// what happened, whether anything ran, and what a client does next.
type ProblemKind string

const (
	KeyRequired         ProblemKind = "key-required"                // 400: no key, and the route demands one
	KeyInvalid          ProblemKind = "key-invalid"                 // 400: the header cannot be read, see [ParseKey]
	KeyEarly            ProblemKind = "key-early"                   // 400: the key's own time lies ahead
	ScopeRequired       ProblemKind = "scope-required"              // 400: it is not known whose request it is
	BodyUnreadable      ProblemKind = "body-unreadable"             // 400: cut short, or it cannot be decoded
	PayloadMismatch     ProblemKind = "payload-mismatch"            // 422: the key was used with another payload
	InProgress          ProblemKind = "in-progress"                 // 409: the first request still runs
	OutcomeUnknownKind  ProblemKind = "outcome-unknown"             // 409: it started, and nobody knows how it ended
	ResultGone          ProblemKind = "result-gone"                 // 410: it ran, and its answer is not kept
	KeyExpired          ProblemKind = "key-expired"                 // 410: the key is older than keys are remembered
	BodyTooLarge        ProblemKind = "body-too-large"              // 413: over the limit, nothing ran
	TooManyInFlight     ProblemKind = "too-many-requests-in-flight" // 503: over the limit, nothing ran
	StoreUnavailable    ProblemKind = "store-unavailable"           // 503: nothing can be remembered, so nothing ran
	NotCommitted        ProblemKind = "not-committed"               // 503: the database undid all of it, nothing happened
	QuotaExceeded       ProblemKind = "quota-exceeded"              // 429: the tenant has begun as much as it may, nothing ran
	HandlerFailed       ProblemKind = "handler-failed"              // 500: the handler panicked; stored as the answer
	UpstreamUnreachable ProblemKind = "upstream-unreachable"        // 502: the upstream was not reached, nothing ran
)

const (
	problemMedia  = "application/problem+json"
	problemTypes  = "https://github.com/semelhq/semel/blob/main/docs/spec/problems.md#"
	problemLink   = `<https://github.com/semelhq/semel/blob/main/docs/spec/http.md>; rel="describedby"`
	maxProblem    = 64 << 10 // bytes of a problem document that are read
	retryAtLeast  = time.Second
	maxRetryAfter = math.MaxInt64 / time.Second // in seconds
)

// problemTable is the one place with what is fixed about each kind. The error
// is the one that [Problem.Unwrap] gives.
var problemTable = [...]struct {
	kind      ProblemKind
	status    int
	retryable bool
	waits     bool // always carries Retry-After
	err       error
	title     string
}{
	{KeyRequired, 400, false, false, nil, "An idempotency key is required"},
	{KeyInvalid, 400, false, false, nil, "The idempotency key cannot be read"},
	{KeyEarly, 400, false, false, semel.ErrEarly, "The idempotency key's own time lies in the future"},
	{ScopeRequired, 400, false, false, nil, "It is not known whose request this is"},
	{BodyUnreadable, 400, false, false, nil, "The request's body cannot be read"},
	{PayloadMismatch, 422, false, false, semel.ErrMismatch, "The idempotency key was used with another payload"},
	{InProgress, 409, true, true, semel.ErrInProgress, "The first request with this key is still in progress"},
	{OutcomeUnknownKind, 409, false, false, semel.ErrInDoubt, "The operation started and its outcome is unknown"},
	{ResultGone, 410, false, false, semel.ErrGone, "The operation ran and its answer is not kept"},
	{KeyExpired, 410, false, false, semel.ErrExpired, "The idempotency key is older than keys are remembered"},
	{BodyTooLarge, 413, false, false, nil, "The request's body is too large"},
	{TooManyInFlight, 503, true, true, nil, "Too many requests are in flight"},
	{StoreUnavailable, 503, true, true, semel.ErrUnavailable, "Nothing can be remembered at the moment, so nothing was started"},
	{NotCommitted, 503, true, true, semel.ErrNotDone, "The database undid the operation, so nothing happened"},
	{QuotaExceeded, 429, true, true, semel.ErrOverQuota, "This client has begun as much as it may for now"},
	{HandlerFailed, 500, false, false, nil, "The server failed while it handled the request"},
	{UpstreamUnreachable, 502, true, false, nil, "The upstream service was not reached"},
}

// Problem is a refusal as an RFC 9457 problem document. It is an error:
// errors.Is(p, semel.ErrInDoubt), and so on, tells what to do next.
type Problem struct {
	// Type is a URL that ends in # and the kind, or somebody else's.
	Type string `json:"type"`
	// Title is the kind in words.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail tells about this one case. It holds neither a key, nor anything of a
	// stored record, nor of another scope.
	Detail string `json:"detail,omitempty"`
	// Retryable: the same request with the same key, sent again unchanged, may get
	// further. It never means that a new key is safe.
	Retryable bool `json:"retryable"`
	// OriginalStatus is the status of the answer that is not kept; 0 if there is
	// none to tell.
	OriginalStatus int `json:"original_status,omitempty"`
	// RetryAfter is the Retry-After header, rounded up to whole seconds; 0 if there
	// is none. Kinds that always have one are sent with at least 1 s.
	RetryAfter time.Duration `json:"-"`
}

// NewProblem makes the problem of a kind. The detail must be fit for strangers'
// eyes, see [Problem]. A kind that does not exist gives a bare 500.
func NewProblem(kind ProblemKind, detail string) *Problem {
	for _, t := range problemTable {
		if t.kind == kind {
			p := &Problem{Type: problemTypes + string(kind), Title: t.title, Status: t.status, Detail: detail, Retryable: t.retryable}
			if t.waits {
				p.RetryAfter = retryAtLeast
			}
			return p
		}
	}
	return &Problem{Type: "about:blank", Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError, Detail: detail}
}

// Kind gives the kind, or "" for a problem that is not one of this package's.
func (p *Problem) Kind() ProblemKind {
	name, ours := strings.CutPrefix(p.Type, problemTypes)
	for _, t := range problemTable {
		if ours && string(t.kind) == name {
			return t.kind
		}
	}
	return ""
}

// Error gives status, title and detail in one line.
func (p *Problem) Error() string {
	text := "semelhttp: " + strconv.Itoa(p.Status) + " " + p.Title
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	return text
}

// Unwrap gives the root package's error of the same meaning, nil if it has none.
func (p *Problem) Unwrap() error {
	kind := p.Kind()
	for _, t := range problemTable {
		if t.kind == kind {
			return t.err
		}
	}
	return nil
}

// Write sends p as the whole answer to r. It drops headers that describe some
// other body, keeps all others, forbids caches to store it, and sends no body
// to a HEAD. The error is that of writing.
func (p *Problem) Write(w http.ResponseWriter, r *http.Request) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err // cannot be: the fields are strings, numbers and a flag
	}
	body = append(body, '\n')
	h := w.Header()
	for _, name := range [...]string{"Content-Encoding", "Content-Language", "Content-Range", "Etag", "Last-Modified", "Trailer", "Retry-After"} {
		h.Del(name)
	}
	h.Set("Content-Type", problemMedia)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Add("Link", problemLink)
	if p.RetryAfter > 0 {
		h.Set("Retry-After", formatRetryAfter(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(body)
	return err
}

// ReadProblem reads the problem document of a response, anybody's, and false if
// it has none. The response's body can still be read from its start, and is
// still the caller's to close. Up to 64 KiB of it are held in memory.
func ReadProblem(resp *http.Response) (*Problem, bool) {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != problemMedia || resp.Body == nil {
		return nil, false
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem+1))
	resp.Body = &rereadBody{Reader: io.MultiReader(bytes.NewReader(head), failed{err}, resp.Body), Closer: resp.Body}
	var p Problem
	if err != nil || len(head) > maxProblem || json.Unmarshal(head, &p) != nil {
		return nil, false
	}
	if p.Type == "" {
		p.Type = "about:blank" // RFC 9457, section 3.1.1
	}
	if p.Status == 0 {
		p.Status = resp.StatusCode
	}
	p.RetryAfter, _ = parseRetryAfter(resp.Header, time.Now())
	return &p, true
}

// rereadBody is a body of which a part was read and is read again.
type rereadBody struct {
	io.Reader
	io.Closer
}

// failed gives the error that reading ended with, or nothing.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// formatRetryAfter gives whole seconds, rounded up, at least one: a client that
// comes back at once comes for nothing.
func formatRetryAfter(d time.Duration) string {
	d = max(d, retryAtLeast)
	seconds := d / time.Second
	if d%time.Second > 0 {
		seconds++
	}
	return strconv.FormatInt(int64(seconds), 10)
}

// parseRetryAfter reads the header as seconds or as an HTTP date (RFC 9110,
// section 10.2.3). A date that has passed is 0 and true; what cannot be read, or
// comes twice, is 0 and false.
func parseRetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	lines := h["Retry-After"]
	if len(lines) != 1 {
		return 0, false
	}
	value := strings.Trim(lines[0], " \t")
	digits := value != "" && strings.Trim(value, "0123456789") == ""
	if digits {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter) {
			seconds = int64(maxRetryAfter) // too large for a number: still a very long time
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(0, at.Sub(now)), maxRetryAfter*time.Second), true
}
