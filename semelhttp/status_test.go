package semelhttp_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

const statusPath = "/.well-known/semel/status"

// statusServer guards next, with the status endpoint beside it.
func statusServer(t *testing.T, next http.HandlerFunc, o semelhttp.Options) *httptest.Server {
	t.Helper()
	o.StatusPath = statusPath
	if o.Scope == nil {
		o.Scope = semelhttp.HeaderScope("X-Tenant")
	}
	h, err := semelhttp.NewHandler(newGuard(t, memory.New(memory.Options{})), next, o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(statusPath, h.Status())
	mux.Handle("/", h)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// statusLink gives the target of the answer's rel="status", "" if it has none.
func statusLink(a answer) string {
	for _, line := range a.Header["Link"] {
		if target, ok := strings.CutSuffix(line, `>; rel="status"`); ok {
			return strings.TrimPrefix(target, "<")
		}
	}
	return ""
}

// A client follows the link of a 409 from the first run to its end.
func TestStatusFollowsAnOperation(t *testing.T) {
	started, end := make(chan bool), make(chan string)
	s := statusServer(t, func(w http.ResponseWriter, _ *http.Request) {
		started <- true
		if outcome := <-end; outcome != "" {
			w.Header().Set(semelhttp.OutcomeHeader, outcome)
		}
		w.WriteHeader(http.StatusPaymentRequired)
	}, semelhttp.Options{Policy: semel.Policy{Wait: -1}})
	const path = "/a%2Fb/%C3%A4 +&?q=secret"
	ask := func(key string) answer {
		return send(t, "POST", s.URL+strings.ReplaceAll(path, " ", "%20"), "x", "X-Tenant", "a", "Idempotency-Key", key)
	}
	status := func(link string, headers ...string) answer { return send(t, "GET", s.URL+link, "", headers...) }
	for _, c := range []struct{ outcome, want string }{
		{"", `{"state":"done","status":402,"replayable":true}`},
		{semelhttp.OutcomeUnknown, `{"state":"in-doubt","replayable":false}`},
		{semelhttp.OutcomeNotDone, `{"state":"released","replayable":false}`},
	} {
		key := `"k ` + c.outcome + `"`
		var last answer
		var wait sync.WaitGroup
		wait.Go(func() { last = ask(key) })
		<-started
		link := statusLink(ask(key))
		if !strings.HasPrefix(link, statusPath+"?") || strings.Contains(link, "secret") {
			t.Errorf("a 409 leads to %q", link)
		}
		if a := status(link, "X-Tenant", "a"); a.StatusCode != 200 || a.body != `{"state":"pending","replayable":false}`+"\n" || a.Header.Get("Retry-After") == "" {
			t.Errorf("while it runs: %d %s %v", a.StatusCode, a.body, a.Header)
		}
		end <- c.outcome
		wait.Wait()
		if known := statusLink(last); (c.outcome == semelhttp.OutcomeUnknown) != (known == link) {
			t.Errorf("%q: the last answer leads to %q, the first 409 to %q", c.outcome, known, link)
		}
		a := status(link, "X-Tenant", "a")
		if a.StatusCode != 200 || a.body != c.want+"\n" || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: got %d %s %v, want %s", c.outcome, a.StatusCode, a.body, a.Header, c.want)
		}
		stranger := status(link, "X-Tenant", "b")
		nobody := status(strings.Replace(link, "key=k", "key=other", 1), "X-Tenant", "b")
		stranger.Header.Del("Date")
		nobody.Header.Del("Date")
		if stranger.StatusCode != 404 || stranger.body != `{"state":"unknown-key","replayable":false}`+"\n" ||
			nobody.StatusCode != 404 || nobody.body != stranger.body || len(nobody.Header) != len(stranger.Header) {
			t.Errorf("a stranger is told %d %s, of a key that does not exist %d %s", stranger.StatusCode, stranger.body, nobody.StatusCode, nobody.body)
		}
		if a := status(link, "X-Tenant", ""); a.kind() != semelhttp.ScopeRequired {
			t.Errorf("without credentials: %d %s", a.StatusCode, a.body)
		}
	}
}

func TestStatusAsksForWhatItNeeds(t *testing.T) {
	s := statusServer(t, func(http.ResponseWriter, *http.Request) {}, semelhttp.Options{})
	for query, want := range map[string]int{
		"":                            400,
		"key=k":                       400,
		"key=k&method=POST":           400,
		"key=k&method=POST&path=":     400,
		"key=&method=POST&path=/":     400,
		"key=%00&method=POST&path=/":  400,
		"key=a&key=b&method=P&path=/": 400,
		"key=k&method=POST&path=/":    404,
		"key=k&method=" + url.QueryEscape("POST|/x|key") + "&path=/": 404,
	} {
		a := send(t, "GET", s.URL+statusPath+"?"+query, "", "X-Tenant", "a")
		if a.StatusCode != want {
			t.Errorf("%q: got %d %s, want %d", query, a.StatusCode, a.body, want)
		}
	}
	if a := send(t, "POST", s.URL+statusPath+"?key=k&method=POST&path=/", "", "X-Tenant", "a"); a.StatusCode != 405 || a.Header.Get("Allow") == "" {
		t.Errorf("POST: got %d", a.StatusCode)
	}
	if a := send(t, "HEAD", s.URL+statusPath+"?key=k&method=POST&path=/", "", "X-Tenant", "a"); a.StatusCode != 404 || a.body != "" {
		t.Errorf("HEAD: got %d %q", a.StatusCode, a.body)
	}
}

// Operations with names are asked for by name; keys that nobody sent are not
// linked, and long ones neither.
func TestStatusLinks(t *testing.T) {
	unknown := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeUnknown)
	}
	named := statusServer(t, unknown, semelhttp.Options{Operation: func(*http.Request) string { return "charge|x" }})
	link := statusLink(send(t, "POST", named.URL+"/any", "x", "X-Tenant", "a", "Idempotency-Key", "k"))
	if a := send(t, "GET", named.URL+link, "", "X-Tenant", "a"); !strings.Contains(a.body, "in-doubt") {
		t.Errorf("%s: got %d %s", link, a.StatusCode, a.body)
	}
	derived := statusServer(t, unknown, semelhttp.Options{DeriveKey: true})
	if a := send(t, "POST", derived.URL, "x", "X-Tenant", "a"); a.StatusCode != 409 || statusLink(a) != "" {
		t.Errorf("a derived key is linked: %d %s", a.StatusCode, statusLink(a))
	}
	if a := send(t, "POST", derived.URL+"/"+strings.Repeat("x", 4000), "x", "X-Tenant", "a", "Idempotency-Key", "k"); a.StatusCode != 409 || statusLink(a) != "" {
		t.Errorf("a long path is linked: %d %s", a.StatusCode, statusLink(a))
	}
	plain := serve(t, unknown, semelhttp.Options{})
	if a := send(t, "POST", plain.URL, "x", "X-Tenant", "a", "Idempotency-Key", "k"); a.StatusCode != 409 || statusLink(a) != "" {
		t.Errorf("without an endpoint: %d %s", a.StatusCode, statusLink(a))
	}
	for _, path := range []string{"status", "/a?b", "/a#b", "/<", "/ "} {
		if _, err := semelhttp.NewHandler(newGuard(t, memory.New(memory.Options{})), http.NotFoundHandler(), semelhttp.Options{Scope: semelhttp.SharedScope(), StatusPath: path}); err == nil {
			t.Errorf("StatusPath %q is accepted", path)
		}
	}
}

// What a route keeps of a request is found by whoever settles it, and each key
// that is in doubt is told of.
func TestMemoAndSuspect(t *testing.T) {
	guard := newGuard(t, memory.New(memory.Options{}))
	var suspects []semel.Digest
	runs := 0
	h, err := semelhttp.NewHandler(guard, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		switch r.URL.Path {
		case "/aborts":
			panic(http.ErrAbortHandler)
		case "/says":
			w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeUnknown)
		}
	}), semelhttp.Options{
		Scope: semelhttp.SharedScope(), Policy: semel.Policy{Name: "route"},
		Memo:    memoOf,
		Suspect: func(d semel.Digest) { suspects = append(suspects, d) },
	})
	if err != nil {
		t.Fatal(err)
	}
	call := func(path, body string) *httptest.ResponseRecorder { return askAt(h, path, body) }
	for path, told := range map[string]int{"/says": 1, "/aborts": 1, "/fine": 0} {
		suspects = nil
		w := call(path, "x")
		digest := guard.Digest(semel.Key{Scope: semel.JoinScope("shared", "POST", path, "key"), ID: "k"})
		if len(suspects) != told || told == 1 && (suspects[0] != digest || w.Code != 409) {
			t.Errorf("%s: %d, told of %v", path, w.Code, suspects)
		}
		held, err := guard.Store().Get(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if u := held.Record.Unresolved(); told == 1 && (u.Policy != "route" || string(u.Memo) != "memo of x") {
			t.Errorf("%s: kept %q, %q", path, u.Policy, u.Memo)
		}
		if told == 0 {
			continue
		}
		for deadline := time.Now().Add(5 * time.Second); !held.Record.InDoubt(held.Now) && time.Now().Before(deadline); {
			held, _ = guard.Store().Get(t.Context(), digest)
		}
		if call(path, "x"); len(suspects) != 2 || suspects[1] != digest {
			t.Errorf("%s: asked again, told of %v", path, suspects)
		}
	}
	runs = 0
	for body, want := range map[string]int{"bad": 400, "long": 413} {
		if w := call("/new", body); w.Code != want || runs != 0 {
			t.Errorf("%s: got %d %s and %d runs", body, w.Code, w.Body, runs)
		}
	}
}

// askAt sends a POST with the key k to a path, without a network.
func askAt(h http.Handler, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Idempotency-Key", "k")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// memoOf keeps the body, but for two bodies.
func memoOf(_ *http.Request, body []byte) ([]byte, error) {
	switch string(body) {
	case "bad":
		return nil, errors.New("nothing is known of this one")
	case "long":
		return make([]byte, 5<<10), nil
	}
	return append([]byte("memo of "), body...), nil
}
