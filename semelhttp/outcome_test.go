package semelhttp_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// What is known after several attempts is more than what the last one says.
func TestOutcomeCountsAllAttempts(t *testing.T) {
	done, notDone, pending, unknown := semelhttp.OutcomeDone, semelhttp.Outcome(semelhttp.OutcomeNotDone), semelhttp.OutcomePending, semelhttp.Outcome(semelhttp.OutcomeUnknown)
	for _, c := range []struct {
		name   string
		script []step
		want   semelhttp.Outcome
		status int // of the response; 0 for an error
	}{
		{"lost, then done", []step{lost, status(201)}, done, 201},
		{"lost always", []step{lost}, unknown, 0},
		{"lost, then unauthorized", []step{lost, status(401)}, unknown, 401},
		{"lost, then a stored failure", []step{lost, status(402, "Idempotent-Replayed", "true")}, done, 402},
		{"lost, then nothing ran", []step{lost, problem(semelhttp.StoreUnavailable)}, unknown, 0},
		{"lost, then refused", []step{lost, problem(semelhttp.KeyRequired)}, unknown, 0},
		{"lost, then too many", []step{lost, status(429)}, unknown, 0},
		{"lost, then another's key", []step{lost, problem(semelhttp.PayloadMismatch)}, notDone, 422},
		{"lost, then in progress", []step{lost, problem(semelhttp.InProgress)}, pending, 409},
		{"in progress, then nothing ran", []step{problem(semelhttp.InProgress), problem(semelhttp.StoreUnavailable)}, unknown, 0},
		{"lost, then gone", []step{lost, problem(semelhttp.ResultGone)}, done, 410},
		{"503 of somebody, then unauthorized", []step{status(503), status(401)}, unknown, 401},
		{"nothing ran, then unauthorized", []step{problem(semelhttp.StoreUnavailable), status(401)}, done, 401},
		{"nothing ran, ever", []step{status(429), problem(semelhttp.TooManyInFlight)}, notDone, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := up(t, c.script...)
			tr := fast(t)
			tr.MaxAttempts = 2
			tr.Base = instantly{tr.Base}
			resp, err := tr.RoundTrip(post(t, u.URL, "x"))
			if got := semelhttp.OutcomeOf(resp, err); got != c.want {
				t.Errorf("got %s, want %s (%v)", got, c.want, err)
			}
			if err == nil {
				read(t, resp)
				if got := semelhttp.OutcomeOf(resp, err); got != c.want || resp.StatusCode != c.status {
					t.Errorf("with the body read: %d, %s; want %d, %s", resp.StatusCode, got, c.status, c.want)
				}
				return
			}
			sent, ok := errors.AsType[*semelhttp.SendError](err)
			id, _ := semelhttp.ParseKey(u.seen()[:1])
			if !ok || c.status != 0 || sent.Key != id || sent.Attempts != 2 || !errors.Is(err, semel.ErrInDoubt) || strings.Contains(err.Error(), id) {
				t.Errorf("got %#v: %v; want an unknown outcome, the key %s in a field and not in the text", err, err, id)
			}
		})
	}
}

// instantly takes Retry-After out of answers.
type instantly struct{ http.RoundTripper }

func (i instantly) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := i.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Header.Del("Retry-After")
	}
	return resp, err
}

func TestOutcomeWithoutConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + l.Addr().String()
	l.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer secure.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name     string
		request  *http.Request
		attempts int
	}{
		{"refused", post(t, refused, "x"), 5},
		{"a certificate that nobody trusts", post(t, secure.URL, "x"), 1},
		{"no host", post(t, "localhost:8080", "x"), 0},
		{"a context that has ended", post(t, refused, "x").WithContext(ended), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, err := (&http.Client{Transport: fast(t)}).Do(c.request)
			sent, ok := errors.AsType[*semelhttp.SendError](err)
			if !ok || !errors.Is(err, semel.ErrNotDone) || semelhttp.OutcomeOf(resp, err) != semelhttp.OutcomeNotDone || sent.Attempts != c.attempts {
				t.Errorf("got %v, %s; want nothing done after %d attempts", err, semelhttp.OutcomeOf(resp, err), c.attempts)
			}
		})
	}
}

func TestOutcomeOfOtherTransports(t *testing.T) {
	w := httptest.NewRecorder()
	_ = semelhttp.NewProblem(semelhttp.OutcomeUnknownKind, "").Write(w, httptest.NewRequest("POST", "/", nil))
	for _, c := range []struct {
		resp *http.Response
		err  error
		want semelhttp.Outcome
	}{
		{nil, nil, semelhttp.OutcomeUnknown},
		{nil, io.ErrUnexpectedEOF, semelhttp.OutcomeUnknown},
		{w.Result(), nil, semelhttp.OutcomeUnknown},
		{&http.Response{StatusCode: 201}, nil, semelhttp.OutcomeDone},
		{&http.Response{StatusCode: 500}, nil, semelhttp.OutcomeUnknown},
	} {
		if got := semelhttp.OutcomeOf(c.resp, c.err); got != c.want {
			t.Errorf("OutcomeOf(%v, %v) = %s, want %s", c.resp, c.err, got, c.want)
		}
	}
}

func TestTransportKeys(t *testing.T) {
	for _, c := range []struct {
		name string
		key  func(*http.Request) (string, error)
		set  func(*http.Request)
		want string // the header that is sent; "" if nothing is
	}{
		{name: "bare, of the caller", set: header("Idempotency-Key", "order-42"), want: "order-42"},
		{name: "quoted, of the caller", set: header("Idempotency-Key", `"a b"`), want: `"a b"`},
		{name: "in lower case", set: func(r *http.Request) { r.Header["idempotency-key"] = []string{"k"} }, want: "k"},
		{name: "malformed", set: header("Idempotency-Key", `"k";p=1`)},
		{name: "empty", set: header("Idempotency-Key", "")},
		{name: "twice", set: func(r *http.Request) { r.Header["Idempotency-Key"] = []string{"k", "k"} }},
		{name: "a GET with a key", set: func(r *http.Request) { r.Method = "GET"; r.Header.Set("Idempotency-Key", "k") }, want: "k"},
		{name: "made by a function", key: func(*http.Request) (string, error) { return `a"b`, nil }, want: `"a\"b"`},
		{name: "a function that fails", key: func(*http.Request) (string, error) { return "", errors.New("no order") }},
		{name: "a function that makes none", key: func(*http.Request) (string, error) { return "", nil }},
		{name: "from a header", key: semelhttp.KeyFromHeaders("X-Order"), set: header("X-Order", "42"), want: `"` + semelhttp.DeriveKey("headers", "POST", "/pay", "1", "42") + `"`},
		{name: "from a header that is missing", key: semelhttp.KeyFromHeaders("X-Order")},
		{name: "from JSON", key: semelhttp.KeyFromJSON("order.id", "n"), want: `"` + semelhttp.DeriveKey("json", "POST", "/pay", `"42`, "#1.0") + `"`},
		{name: "from JSON that is missing", key: semelhttp.KeyFromJSON("order.no")},
		{name: "from JSON that is an object", key: semelhttp.KeyFromJSON("order")},
		{name: "from JSON that is empty", key: semelhttp.KeyFromJSON("note")},
		{name: "from JSON under a number", key: semelhttp.KeyFromJSON("n.x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			const body = `{"order":{"id":"42"},"n":1.0,"note":""}`
			u := up(t, status(503), status(201))
			tr := fast(t)
			tr.Key = c.key
			r := post(t, u.URL+"/pay", body)
			if c.set != nil {
				c.set(r)
			}
			resp, err := tr.RoundTrip(r)
			if c.want == "" {
				if !errors.Is(err, semel.ErrNotDone) || len(u.seen()) != 0 {
					t.Errorf("got %v after %d requests, want an error and none", err, len(u.seen()))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			if want := []string{c.want, c.want}; !slices.Equal(u.seen(), want) || !slices.Equal(u.bodies, []string{body, body}) {
				t.Errorf("got the keys %q and the bodies %q, want %q", u.seen(), u.bodies, want)
			}
		})
	}
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = []string{value} }
}

func TestTransportLeavesOthersAlone(t *testing.T) {
	u := up(t, status(503))
	r := post(t, u.URL, "")
	r.Method = "PUT"
	resp, err := fast(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp)
	if keys := u.seen(); len(keys) != 1 || keys[0] != "" {
		t.Errorf("a PUT was sent with the keys %q, want once and without", keys)
	}
}

func TestTransportRedirectKeepsTheKey(t *testing.T) {
	for _, code := range []int{http.StatusTemporaryRedirect, http.StatusPermanentRedirect, http.StatusSeeOther} {
		to := up(t, status(503), status(201))
		from := up(t, status(code, "Location", to.URL))
		resp, err := (&http.Client{Transport: fast(t)}).Do(post(t, from.URL, "x"))
		if err != nil {
			t.Fatal(err)
		}
		read(t, resp)
		keys := slices.Concat(from.seen(), to.seen())
		if code == http.StatusSeeOther { // this one asks for a result, by GET
			if len(to.seen()) != 1 || to.seen()[0] != "" {
				t.Errorf("%d: the GET had the keys %q, want none", code, to.seen())
			}
			continue
		}
		if len(keys) != 3 || keys[0] != keys[1] || keys[0] != keys[2] {
			t.Errorf("%d: the keys were %q, want one key three times", code, keys)
		}
	}
}

// Half of all answers are lost, and each operation still runs once.
func TestTransportWithHandler(t *testing.T) {
	var runs atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "charged")
	}, semelhttp.Options{Scope: semelhttp.SharedScope()})
	var sent atomic.Int64
	tr := fast(t)
	tr.Base = losing{tr.Base, &sent}
	for range 20 {
		resp, err := tr.RoundTrip(post(t, s.URL, "x"))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, resp); got != "charged" || resp.StatusCode != 201 || resp.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("got %d %q, replayed %q", resp.StatusCode, got, resp.Header.Get("Idempotent-Replayed"))
		}
	}
	if runs.Load() != 20 || sent.Load() != 40 {
		t.Errorf("%d runs of 20 operations in %d requests, want 20 in 40", runs.Load(), sent.Load())
	}
}

// losing loses every other answer, after it was made.
type losing struct {
	http.RoundTripper
	n *atomic.Int64
}

func (l losing) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if l.n.Add(1)%2 == 1 && err == nil {
		resp.Body.Close()
		return nil, errors.New("the answer was lost")
	}
	return resp, err
}
