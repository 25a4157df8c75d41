package semelhttp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/semelhq/semel"
)

// Scope tells whose request it is. Records never cross scopes, so two clients
// may use equal keys. An error or an empty scope refuses the request: strangers
// that share a scope meet each other's keys. The scope is shown to people and
// kept in records, so it holds no credential: hash those, as HeaderScope does.
type Scope func(r *http.Request) (string, error)

// HeaderScope takes the scope from request headers, such as Authorization, each
// of which must come exactly once. The scope is a truncated hash of their
// values; the values themselves are not kept.
func HeaderScope(names ...string) Scope {
	return func(r *http.Request) (string, error) {
		var room [512]byte
		b := room[:0]
		for _, name := range names {
			lines := r.Header.Values(name)
			if len(lines) != 1 || lines[0] == "" {
				return "", fmt.Errorf("the scope of this route comes from the header %s, which must be sent exactly once and not be empty", name)
			}
			b = strconv.AppendInt(b, int64(len(lines[0])), 10)
			b = append(append(b, ':'), lines[0]...)
		}
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:12]), nil
	}
}

// SharedScope puts all clients into one scope: for a service with a single
// client, and for nothing else.
func SharedScope() Scope {
	return func(*http.Request) (string, error) { return "shared", nil }
}

// Canonical gives the bytes of a request's body that are to be fingerprinted,
// in place of the body itself. It may look at r.Header, and keeps nothing of
// body, whose room is used again. Its error refuses the request: with 413 if
// errors.Is(err, ErrTooLarge), else with 400.
type Canonical func(r *http.Request, body []byte) ([]byte, error)

// ErrTooLarge is a Canonical's error for a body that is too large to be
// fingerprinted, or that unpacks to too much.
var ErrTooLarge = errors.New("semelhttp: too large to fingerprint")

// Options are the settings of one route, or of a group of routes that share
// them.
type Options struct {
	// Scope is required; there is no default.
	Scope Scope
	// Policy holds the route's numbers and its class.
	Policy semel.Policy
	// Tenant tells whose quota a request counts for, if Policy has one. Its error refuses
	// the request. What it gives is kept in memory and, where quotas are shared, in the
	// store, so it holds no credential. Default: what Scope gives, so that all routes
	// with one quota share it for each client.
	Tenant Scope
	// Methods are guarded; others pass untouched. Default POST and PATCH: RFC 9110
	// calls the other methods safe or idempotent.
	Methods []string
	// RequireKey refuses guarded requests without a key. Otherwise they pass
	// untouched, unless DeriveKey is set.
	RequireKey bool
	// DeriveKey makes the fingerprint the key where a client sends none: two equal
	// requests of one scope are then one operation while the key is remembered.
	DeriveKey bool
	// Operation names what a request does; keys of different operations are
	// different. Default: method and path.
	Operation func(r *http.Request) string
	// KeyHeader is the request header with the key. Default Idempotency-Key.
	KeyHeader string
	// ReplayHeader marks a replayed answer with the value "true". Default
	// Idempotent-Replayed.
	ReplayHeader string
	// Canonical says which bytes of a body count. Default: all, as they are. The
	// method, the path and the query always count.
	Canonical Canonical
	// FingerprintHeaders are request headers whose values count, too.
	FingerprintHeaders []string
	// MaxBody is the longest request body in bytes; a longer one is refused with
	// 413 before anything runs. Default 1 MiB.
	MaxBody int64
	// KeepHeaders are response headers to store besides the usual ones (see
	// docs/spec/http.md). Set-Cookie and CORS headers are stored only if named here.
	KeepHeaders []string
	// NotDone are statuses by which the handler says that nothing happened: such an
	// answer is passed on and not stored, and the key is free. Default 425 and 429.
	// Any other status is an outcome, 500 and 503 included: a handler that fails
	// may have had its effect. See also OutcomeHeader.
	NotDone []int
	// HoldFlush obeys Flush for event streams only (text/event-stream,
	// application/x-ndjson, multipart/x-mixed-replace, application/grpc): what else
	// is flushed is still stored. It is for reverse proxies, which flush whatever
	// comes without a length.
	HoldFlush bool
	// MaxInFlight is how many guarded requests may be in the handler or waiting for
	// it at once; more are refused with 503. Default 10,000.
	MaxInFlight int
	// StatusPath is where the handler that [Handler.Status] gives is mounted, as
	// clients see it, such as /.well-known/semel/status. Refusals that say "in
	// progress" and "outcome unknown" then carry a Link to it with rel="status".
	// Default: there is none.
	StatusPath string
	// PolicyPath is where [Handler.Policy], or [Policies] of several, is mounted, as
	// clients see it, such as /.well-known/semel/policy. Refusals then carry a Link to
	// it with rel="service-desc". Default: there is none.
	PolicyPath string
	// BodyCounts tells clients in the policy document what of a body counts, such as
	// "json". Default "bytes", or "canonical" where Canonical is set.
	BodyCounts string
	// Memo gives what is to be kept of a request while its operation is pending, for
	// whoever has to find out what became of it, see semel.Ask. It keeps nothing of
	// body, whose room is used again, and puts no credential there: it is stored in
	// clear. At most 4 KiB. Its error refuses the request, as Canonical's does.
	// Default: nothing.
	Memo func(r *http.Request, body []byte) ([]byte, error)
	// Suspect is told of the keys whose outcome was just answered as unknown, so that
	// somebody can find out soon; Suspect of a completer is made for it. It must
	// return quickly. Default: nobody.
	Suspect func(semel.Digest)
	// Panicked is told of a handler's panic, which is answered and stored as a 500.
	// Default: slog.Error with the stack.
	Panicked func(r *http.Request, value any, stack []byte)
}

// OutcomeHeader is a response header by which a handler says what its answer
// means, whatever the status: [OutcomeNotDone] or [OutcomeUnknown]. It is
// removed before the answer leaves.
const OutcomeHeader = "Semel-Outcome"

// UnconfirmedHeader marks with the value "true" an answer for which the
// authoritative store could not be asked: a replay from a cache meanwhile, or a
// run that is known to this process alone, on a route that goes on without its
// store.
const UnconfirmedHeader = "Semel-Unconfirmed"

// RetentionHeader tells how long the operation of an answer is remembered, in whole
// seconds from then on: replay, the time in which the same request gets the same
// answer again, and remember, the time in which its key leads to no second run. It
// is a dictionary of integers (RFC 9651), as in "replay=86400, remember=259200".
const RetentionHeader = "Semel-Retention"

const (
	// OutcomeNotDone promises that the request had no effect: the answer is passed
	// on, not stored, and the key is free.
	OutcomeNotDone = "not-done"
	// OutcomeUnknown says that nobody knows: the client is told so (409), and the
	// key is in doubt.
	OutcomeUnknown = "unknown"
)

// filled gives o with its defaults, or an error that names what is wrong.
func (o Options) filled() (Options, error) {
	var err error
	if o.Policy, err = o.Policy.Filled(); err != nil {
		return o, err
	}
	if o.Scope == nil {
		return o, errors.New("semelhttp: Options.Scope is required: without it clients would get each other's answers; use HeaderScope(\"Authorization\"), or SharedScope() if there is only one client")
	}
	if len(o.Methods) == 0 {
		o.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
		*s = textproto.CanonicalMIMEHeaderKey(*s)
	}
	set(&o.KeyHeader, "Idempotency-Key")
	set(&o.ReplayHeader, "Idempotent-Replayed")
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	if o.NotDone == nil {
		o.NotDone = []int{http.StatusTooEarly, http.StatusTooManyRequests}
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 10_000
	}
	if o.Panicked == nil {
		o.Panicked = logPanic
	}
	return o, o.check()
}

func (o *Options) check() error {
	if o.MaxBody < 0 || o.MaxInFlight < 0 {
		return fmt.Errorf("semelhttp: MaxBody %d and MaxInFlight %d must not be negative", o.MaxBody, o.MaxInFlight)
	}
	for _, p := range [...]struct{ name, path, such string }{{"StatusPath", o.StatusPath, "status"}, {"PolicyPath", o.PolicyPath, "policy"}} {
		if p.path != "" && (p.path[0] != '/' || strings.ContainsAny(p.path, "?#<>\" \r\n")) {
			return fmt.Errorf("semelhttp: %s %q: it has to be a path that begins with / and has no query, such as /.well-known/semel/%s", p.name, p.path, p.such)
		}
	}
	for _, method := range o.Methods {
		if method == "" || strings.ToUpper(method) != method {
			return fmt.Errorf("semelhttp: %q is no method; methods are in upper case, as in POST", method)
		}
	}
	for _, status := range o.NotDone {
		if status < 400 || status > 599 {
			return fmt.Errorf("semelhttp: NotDone status %d: only 400 to 599 can mean that nothing happened", status)
		}
	}
	if o.RequireKey && o.DeriveKey {
		return errors.New("semelhttp: RequireKey refuses what DeriveKey would accept; set one of them")
	}
	if i := slices.IndexFunc(o.KeepHeaders, neverKept); i >= 0 {
		return fmt.Errorf("semelhttp: KeepHeaders: %s belongs to one connection or one client and cannot be replayed", o.KeepHeaders[i])
	}
	return nil
}
