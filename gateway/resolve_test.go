package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

func TestTemplates(t *testing.T) {
	for _, c := range []struct{ template, target, body, want string }{
		{"/c/{derived-key}", "/charges", "", "/c/dk"},
		{"/c/{key}?again={key}", "/charges", "", "/c/k%20%3F1?again=k+%3F1"},
		{"/c/{body.order.id}", "/charges", `{"order":{"id":"ö/"}}`, "not one part"},
		{"/c/{body.order.id}", "/charges", `{"order":{"id":"ö;%"}}`, "/c/%C3%B6%3B%25"},
		{"/c?id={body.order.id}", "/charges", `{"order":{"id":"a/b&c"}}`, "/c?id=a%2Fb%26c"},
		{"/c/{body.0.n}/{body.1}", "/charges", `[{"n":12345678901234567890},"x"]`, "/c/12345678901234567890/x"},
		{"/c/{body.id}", "/charges", `{"id":".."}`, "not one part"},
		{"/c/{body.id}", "/charges", `{"id":"a\\..\\b"}`, "not one part"},
		{"/c/{body.id}", "/charges", `{"id":""}`, "0 bytes"},
		{"/c/{body.id}", "/charges", `{"id":"` + strings.Repeat("x", 600) + `"}`, "600 bytes"},
		{"/c/{body.id}", "/charges", `{"id":null}`, "no such field"},
		{"/c/{body.id}", "/charges", `{"id":true}`, "neither a text nor a number"},
		{"/c/{body.id}", "/charges", `{"id":{}}`, "neither a text nor a number"},
		{"/c/{body.id.x}", "/charges", `{"id":"y"}`, "no such field"},
		{"/c/{body.9}", "/charges", `[1]`, "no such entry"},
		{"/c/{body.-1}", "/charges", `[1]`, "no such entry"},
		{"/c/{body.id}", "/charges", `{"id":`, "not JSON"},
		{"/c/{body.id}", "/charges", `{"id":"a"} {"id":"b"}`, "not JSON"},
		{"/c/{query.ref}", "/charges?ref=a%20b&x=1", "", "/c/a%20b"},
		{"/c/{query.ref}", "/charges?ref=a&ref=b", "", "2 times"},
		{"/c/{query.ref}", "/charges", "", "0 times"},
		{"/c/{path.2}", "/charges/a%3Fb/refund", "", "/c/a%3Fb"},
		{"/c/{path.2}", "/charges/a%2Fb/refund", "", "not one part"},
		{"/c/{path.2}", "/charges/%2e%2e/refund", "", "not one part"},
		{"/c/{path.4}", "/charges/a/refund", "", "has 3 parts"},
		{"{path}/status", "/charges/a%20b", "", "/charges/a%20b/status"},
		{"{path}/status", "/charges/../admin", "", "dots"},
		{"{path}/status", "/charges/a%2Fb", "", "escapes"},
	} {
		x, err := Resolver{Path: c.template}.compose("POST *", nil)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		got, err := filled(x, httptest.NewRequest("POST", c.target, nil), c.body)
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && (!strings.Contains(got, c.want) || strings.HasPrefix(c.want, "/")) {
			t.Errorf("%s of %s %s: got %q, want %q", c.template, c.target, c.body, got, c.want)
		}
	}
}

// filled does what becomes of a request from its claim to the question.
func filled(x *resolver, r *http.Request, body string) (string, error) {
	r.Header.Set("Idempotency-Key", `"k ?1"`)
	memo, err := x.memo("Idempotency-Key")(r, []byte(body))
	if err != nil {
		return "", err
	}
	kept, err := url.ParseQuery(string(memo))
	if err != nil {
		return "", err
	}
	values := map[string]string{derivedKeyField: "dk"}
	for name := range kept {
		values[name] = kept.Get(name)
	}
	path, _, err := x.request(values)
	return path, err
}

// ledger is an upstream that loses its answers, after it has charged or before,
// as the body says, and tells what it did by the derived key.
type ledger struct {
	mu      sync.Mutex
	charged map[string]string // by derived key
	runs    map[string]int    // by idempotency key
	keys    []string          // that came with requests without an idempotency key
	tell    int               // the status of questions about nothing; 0 for 404
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key, asked := strings.CutPrefix(r.URL.Path, "/by-key/"); asked {
		charge, done := l.charged[key]
		if !done || r.Header.Get("Authorization") != "ledger" {
			w.WriteHeader(max(l.tell, http.StatusNotFound))
			return
		}
		w.Header().Set("Location", "/charges/"+charge)
		w.Header().Set("Set-Cookie", "not=kept")
		fmt.Fprint(w, "charge "+charge)
		return
	}
	derived := r.Header.Get("Semel-Derived-Key")
	if r.Header.Get("Idempotency-Key") == "" {
		l.keys = append(l.keys, derived)
		return
	}
	run := l.runs[r.Header.Get("Idempotency-Key")]
	l.runs[r.Header.Get("Idempotency-Key")]++
	body := make([]byte, r.ContentLength)
	_, _ = r.Body.Read(body)
	switch string(body) {
	case "after":
		l.charged[derived] = derived[:8]
		panic(http.ErrAbortHandler)
	case "before":
		if run == 0 {
			panic(http.ErrAbortHandler)
		}
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, "answered")
}

// resolving opens a gateway with a resolver before an upstream.
func resolving(t *testing.T, upstream http.Handler, change func(*Resolver)) *door {
	t.Helper()
	x := &Resolver{
		Path: "/by-key/{derived-key}", Header: http.Header{"Authorization": {"ledger"}}, NotDone: []int{404}, NotDoneAfter: -1, Status: 201, Timeout: time.Second,
	}
	if change != nil {
		change(x)
	}
	d := open(t, serve(t, upstream), func(c *Config) {
		c.Routes = append([]Route{{Match: "POST /charges", Resolve: x, Options: semelhttp.Options{Scope: semelhttp.HeaderScope("X-Tenant")}}}, c.Routes...)
	})
	t.Cleanup(d.background(t.Context()))
	return d
}

// settled asks the status endpoint until the state is not in doubt.
func (d *door) settled(t *testing.T, link string) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a := d.ask(t, "GET", link, "", "", "X-Tenant", "a")
		if !strings.Contains(a.body, "in-doubt") || time.Now().After(deadline) {
			return a.body
		}
	}
}

// come waits until the log has a text, and tells whether it has.
func (l *logs) come(text string) bool {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(l.String(), text) {
			return true
		}
	}
	return false
}

func newLedger() *ledger {
	return &ledger{charged: make(map[string]string), runs: make(map[string]int)}
}

func TestUpstreamTellsWhatBecameOfIt(t *testing.T) {
	l := newLedger()
	d := resolving(t, l, nil)
	for _, c := range []struct{ key, state, retry string }{
		{"after", `"state":"done","status":201`, "charge "},
		{"before", `"state":"released"`, "answered"},
	} {
		a := d.ask(t, "POST", "/charges", c.key, c.key, "X-Tenant", "a")
		var link string
		for _, line := range a.header["Link"] {
			if target, ok := strings.CutSuffix(line, `>; rel="status"`); ok {
				link = target[1:]
			}
		}
		if a.kind() != semelhttp.OutcomeUnknownKind || !strings.HasPrefix(link, "/.well-known/semel/status?") {
			t.Fatalf("%s: got %v, want outcome-unknown with a link", c.key, a)
		}
		if state := d.settled(t, link); !strings.Contains(state, c.state) {
			t.Errorf("%s: the status is %s, want %s\n%s", c.key, state, c.state, d.logs)
		}
		if other := d.ask(t, "GET", link, "", "", "X-Tenant", "b"); other.status != 404 {
			t.Errorf("%s: a stranger is told %v", c.key, other)
		}
		first := d.ask(t, "POST", "/charges", c.key, c.key, "X-Tenant", "a")
		again := d.ask(t, "POST", "/charges", c.key, c.key, "X-Tenant", "a")
		if first.status != 201 || !strings.HasPrefix(first.body, c.retry) || first.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: the retry got %v", c.key, first)
		}
		if again.status != 201 || again.body != first.body || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("%s: asked again: %v, want the same as %v", c.key, again, first)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs["after"] != 1 || l.runs["before"] != 2 {
		t.Errorf("runs: %v", l.runs)
	}
	for _, want := range []string{"the outcome of an operation is unknown", "the outcome of an operation was found out", "settled=done", "settled=released", "answered 404"} {
		if !d.logs.come(want) {
			t.Errorf("the log lacks %q:\n%s", want, d.logs)
		}
	}
}

// What says nothing for certain settles nothing: a status of neither list, a
// redirect, a 404 that comes while the request may still run, no answer at all.
func TestUpstreamThatDoesNotKnow(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Resolver)
		tell   int
		log    string
	}{
		"unlisted": {nil, 500, "the upstream answered 500, which is neither"},
		"redirect": {nil, 307, "the upstream answered 307, which is neither"},
		"early":    {func(x *Resolver) { x.NotDoneAfter = time.Hour }, 0, "the outcome of an operation is still unknown"},
		"silent":   {func(x *Resolver) { x.Timeout = 50 * time.Millisecond }, -1, "could not be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			d := resolving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked := strings.HasPrefix(r.URL.Path, "/by-key/"); asked && c.tell < 0 {
					<-r.Context().Done()
					return
				} else if asked && c.tell > 0 {
					w.Header().Set("Location", "/")
					w.WriteHeader(c.tell)
					return
				}
				l.ServeHTTP(w, r)
			}), c.change)
			d.ask(t, "POST", "/charges", "k", "before", "X-Tenant", "a")
			told := d.logs.come(c.log)
			a := d.ask(t, "POST", "/charges", "k", "before", "X-Tenant", "a")
			l.mu.Lock()
			defer l.mu.Unlock()
			if !told || a.kind() != semelhttp.OutcomeUnknownKind || l.runs["k"] != 1 {
				t.Errorf("got %v after %d runs, and the log\n%s", a, l.runs["k"], d.logs)
			}
			if strings.Contains(d.logs.String(), "/by-key/") && strings.Contains(d.logs.String(), "http://127") {
				t.Errorf("the log has the question's URL:\n%s", d.logs)
			}
		})
	}
}

// The derived key is the gateway's word: a client cannot say it.
func TestDerivedKeyIsNotTheClients(t *testing.T) {
	l := newLedger()
	d := resolving(t, l, nil)
	d.ask(t, "POST", "/charges", "", "x", "X-Tenant", "a", "Semel-Derived-Key", "forged")
	l.mu.Lock()
	if len(l.keys) != 1 || l.keys[0] != "" {
		t.Errorf("without a key the upstream got %q", l.keys)
	}
	l.mu.Unlock()
	d.ask(t, "POST", "/charges", "k", "after", "X-Tenant", "a", "Semel-Derived-Key", "forged")
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, forged := l.charged["forged"]; forged || len(l.charged) != 1 {
		t.Errorf("charged under %v", l.charged)
	}
}

// A request of which nothing could be found out later is not started.
func TestRequestThatCouldNotBeAskedFor(t *testing.T) {
	l := newLedger()
	d := resolving(t, l, func(x *Resolver) { x.Path = "/by-key/{body.id}" })
	a := d.ask(t, "POST", "/charges", "k", `{"id":"../x"}`, "X-Tenant", "a")
	if a.status != 400 || a.kind() != semelhttp.BodyUnreadable || len(l.runs) != 0 {
		t.Errorf("got %v after %v runs", a, l.runs)
	}
}

func TestResolversThatAreRefused(t *testing.T) {
	u, _ := url.Parse("http://127.0.0.1:1")
	for want, change := range map[string]func(*Route){
		"leaves nothing in doubt":      func(r *Route) { r.Options.Policy.Class = semel.Fenced },
		"not known where keys":         func(r *Route) { r.Options.Policy.WithholdKey = true },
		"the same for every request":   func(r *Route) { r.Resolve.Path = "/x" },
		"two policies are named \"*\"": func(r *Route) { r.Match = "*" },
	} {
		r := Route{Match: "/x", Resolve: &Resolver{Path: "/{key}"}, Options: semelhttp.Options{Scope: semelhttp.SharedScope()}}
		last := r
		last.Match = "*"
		change(&r)
		if _, err := New(Config{Upstream: u, Guard: newGuard(t), Routes: []Route{r, last}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// FuzzTemplate: whatever a client sends, its value stays one part of the path, or
// one value of the query.
func FuzzTemplate(f *testing.F) {
	for _, value := range []string{"a", "..", ".", "a/b", `a\b`, "%2f", "%", "?x=1", "#", "a;b", "ö", "\x00", "a&b=c", " ", "{key}", "\xff"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for text, place := range map[string]func(*url.URL) (string, bool){
			"/by/{body.id}/end": func(u *url.URL) (string, bool) {
				parts := strings.Split(u.EscapedPath(), "/")
				part, err := url.PathUnescape(parts[min(2, len(parts)-1)])
				return part, err == nil && len(parts) == 4 && u.RawQuery == "" && part != ".." && part != "."
			},
			"/by?id={body.id}&end=1": func(u *url.URL) (string, bool) {
				query, err := url.ParseQuery(u.RawQuery)
				return query.Get("id"), err == nil && len(query) == 2 && query.Get("end") == "1" && u.Path == "/by"
			},
		} {
			template, err := parseTemplate(text, false)
			if err != nil {
				t.Fatal(err)
			}
			path, err := template.fill(map[string]string{"body.id": value})
			if err != nil {
				continue
			}
			u, err := url.Parse("http://upstream" + path)
			if err != nil {
				t.Fatalf("%q gives %q: %v", value, path, err)
			}
			if got, ok := place(u); !ok || got != value || u.Host != "upstream" || u.Fragment != "" {
				t.Errorf("%q gives %q, which has %q there", value, path, got)
			}
		}
	})
}
