package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel/semelhttp"
)

// Resolver says how to ask the upstream what became of a request whose outcome
// nobody knows. It asks and must not act: its request is repeated. Serve has it
// asked, for the keys of this process and for those that others left behind.
//
// Path and the values of Header are templates: {derived-key} is the key that the
// upstream was sent in KeyHeader, {key} the client's own, {body.order.id} a field of
// the request's JSON, {query.ref} one of its query, {path.2} the second part of its
// path, {path} all of it. What they stand for is kept with the claim, so that it
// is known after a crash; a request that lacks one is refused before it runs (400).
type Resolver struct {
	// Method is GET or HEAD. Default GET.
	Method string
	// Path is the path and query at the upstream, with at least one field. Required.
	Path string
	// Header is sent along. A credential stands here, not in a field.
	Header http.Header
	// Done are statuses by which the upstream says that it did it: the answer
	// becomes the operation's, for every retry. Default 200.
	Done []int
	// NotDone are statuses by which it says that it did not, and will not: the next
	// retry runs. Default none: 404 belongs here only if it can mean nothing else. All
	// that is in neither list leaves the outcome unknown, and is asked again.
	NotDone []int
	// NotDoneAfter is how long after the request broke off NotDone is believed:
	// longer than the upstream may work at a request that it was sent. Default 1 min;
	// negative is at once.
	NotDoneAfter time.Duration
	// Status takes the place of the answer's own status, for the stored answer.
	// Default 0: its own.
	Status int
	// Timeout bounds one question. Default 10 s.
	Timeout time.Duration
	// Every is how often the store is searched for keys in doubt; those of this
	// process are asked for at once. The shortest of a guard's routes counts. Default
	// 10 s.
	Every time.Duration
	// KeyHeader is the request header in which the upstream gets the derived key. A
	// client's own header of that name is dropped. Default Semel-Derived-Key.
	KeyHeader string
}

// derivedStep names the call of the upstream in derived keys.
const derivedStep = "upstream"

// maxAsked is the longest wait for one question: a resolver is asked again.
const maxAsked = 5 * time.Minute

// Check tells what is wrong with x as the resolver of a route with this match and
// these guarded methods, nil for the usual ones.
func (x Resolver) Check(match string, methods []string) error {
	_, err := x.compose(match, methods)
	return err
}

// resolver is a Resolver, composed.
type resolver struct {
	Resolver
	path   template
	header map[string]template
	names  []string // of all fields
}

// compose gives x with its defaults and its templates parsed.
func (x Resolver) compose(match string, methods []string) (*resolver, error) {
	out := &resolver{Resolver: x.filled(), header: make(map[string]template)}
	p, err := parsePattern(match)
	if err != nil {
		return nil, err
	}
	if methods == nil {
		methods = p.methods
	}
	if err := out.check(); err != nil {
		return nil, err
	}
	if out.path, err = parseTemplate(out.Path, false); err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	out.names = out.path.names()
	switch {
	case len(out.names) == 0:
		return nil, fmt.Errorf("path: %q is the same for every request; name the operation in it, by one of %s", out.Path, fieldsInWords)
	case !strings.HasPrefix(out.Path, "/") && !strings.HasPrefix(out.Path, "{path}"):
		return nil, fmt.Errorf("path: %q must begin with /", out.Path)
	case strings.Contains(out.Path, "#") || strings.IndexFunc(out.Path, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return nil, fmt.Errorf("path: %q has a character that no path can have; write it as %%20 and the like", out.Path)
	case slices.Contains(guardedMethods(semelhttp.Options{Methods: methods}), out.Method) && p.mayMatch(out.Path):
		return nil, fmt.Errorf("path: %s %s may be a request of this very route: to ask would run it again", out.Method, out.Path)
	}
	if _, err := url.ParseRequestURI(sample(out.Path)); err != nil {
		return nil, fmt.Errorf("path: %q is no path: its escapes do not decode", out.Path)
	}
	for name, values := range out.Header {
		if len(values) != 1 || values[0] == "" {
			return nil, fmt.Errorf("headers: %s needs exactly one value", name)
		}
		t, err := parseTemplate(values[0], true)
		if err != nil {
			return nil, fmt.Errorf("headers: %s: %w", name, err)
		}
		out.header[textproto.CanonicalMIMEHeaderKey(name)] = t
		for _, field := range t.names() {
			if !slices.Contains(out.names, field) {
				out.names = append(out.names, field)
			}
		}
	}
	return out, nil
}

func (x Resolver) filled() Resolver {
	if x.Method == "" {
		x.Method = http.MethodGet
	}
	if x.Done == nil {
		x.Done = []int{http.StatusOK}
	}
	if x.NotDoneAfter == 0 {
		x.NotDoneAfter = time.Minute
	}
	if x.Timeout == 0 {
		x.Timeout = 10 * time.Second
	}
	if x.Every == 0 {
		x.Every = 10 * time.Second
	}
	if x.KeyHeader == "" {
		x.KeyHeader = "Semel-Derived-Key"
	}
	x.KeyHeader = textproto.CanonicalMIMEHeaderKey(x.KeyHeader)
	return x
}

func (x *Resolver) check() error {
	switch {
	case x.Path == "":
		return errors.New("path: it is empty; write where the upstream tells what became of a request, as in /charges/by-key/{derived-key}")
	case x.Method != http.MethodGet && x.Method != http.MethodHead:
		return fmt.Errorf("method: %q: a resolver asks and must not act, and it asks again and again; take GET or HEAD", x.Method)
	case len(x.Done) == 0 && len(x.NotDone) == 0:
		return errors.New("done: no status means done, and none not-done, so nothing would ever be settled")
	case x.Timeout < 0 || x.Timeout > maxAsked:
		return fmt.Errorf("timeout: %v; take more than 0 and at most %v", x.Timeout, maxAsked)
	case x.Every < 0:
		return fmt.Errorf("every: %v is negative", x.Every)
	case x.Status != 0 && (x.Status < 200 || x.Status > 599):
		return fmt.Errorf("status: %d cannot be an operation's answer; take 200 to 599", x.Status)
	case x.KeyHeader == "Idempotency-Key" || x.KeyHeader == "Authorization" || x.KeyHeader == "Host":
		return fmt.Errorf("key-header: %s is the client's own; take another, such as Semel-Derived-Key", x.KeyHeader)
	}
	for _, list := range [...]struct {
		name     string
		statuses []int
	}{{"done", x.Done}, {"not-done", x.NotDone}} {
		for _, status := range list.statuses {
			if status < 200 || status > 599 {
				return fmt.Errorf("%s: %d is no status that an answer can have; take 200 to 599", list.name, status)
			}
		}
	}
	for _, status := range x.Done {
		if slices.Contains(x.NotDone, status) {
			return fmt.Errorf("not-done: %d means done as well; it cannot mean both", status)
		}
	}
	for _, status := range x.NotDone {
		if status < 400 || status >= 500 {
			return fmt.Errorf("not-done: %d: only 400 to 499 can say that nothing happened; a service that fails knows nothing", status)
		}
	}
	return nil
}

// memo is semelhttp's Memo: the values of the fields, as a query string.
func (x *resolver) memo(keyHeader string) func(*http.Request, []byte) ([]byte, error) {
	return func(r *http.Request, body []byte) ([]byte, error) {
		values, err := valuesOf(x.names, r, keyHeader, body)
		if err != nil {
			return nil, err
		}
		kept := make(url.Values, len(values))
		for name, value := range values {
			kept.Set(name, value)
		}
		for _, name := range [...]string{derivedKeyField, keyField} {
			if _, known := values[name]; !known {
				values[name] = "0"
			}
		}
		if _, _, err := x.request(values); err != nil {
			return nil, fmt.Errorf("this route must be able to find out what became of a request: %w", err)
		}
		return []byte(kept.Encode()), nil
	}
}

// request fills the templates in.
func (x *resolver) request(values map[string]string) (path string, header http.Header, err error) {
	if path, err = x.path.fill(values); err != nil {
		return "", nil, err
	}
	header = make(http.Header, len(x.header))
	for name, t := range x.header {
		value, err := t.fill(values)
		if err != nil {
			return "", nil, err
		}
		header[name] = []string{value}
	}
	return path, header, nil
}

// sample fills a path's fields with a letter.
func sample(path string) string {
	var b strings.Builder
	for {
		literal, rest, field := strings.Cut(path, "{")
		b.WriteString(literal)
		if !field {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		if name == "path" {
			b.WriteString("/")
		}
		b.WriteString("x")
		path = after
	}
}
