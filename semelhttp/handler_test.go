package semelhttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

func newGuard(t testing.TB, store semel.Store) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// serve starts a server whose handler is guarded; scopes come from X-Tenant.
func serve(t testing.TB, next http.HandlerFunc, o semelhttp.Options) *httptest.Server {
	t.Helper()
	if o.Scope == nil {
		o.Scope = semelhttp.HeaderScope("X-Tenant")
	}
	h, err := semelhttp.NewHandler(newGuard(t, memory.New(memory.Options{})), next, o)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

func (a answer) kind() semelhttp.ProblemKind {
	if p, ok := semelhttp.ReadProblem(a.Response); ok {
		return p.Kind()
	}
	return ""
}

// send sends one request; headers are pairs.
func send(t testing.TB, method, url, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Tenant", "acme")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
		if headers[i] == "X-Tenant" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(read)))
	return answer{resp, string(read)}
}

// ask sends a POST to a handler without a network; an empty key is not sent.
func ask(h http.Handler, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestReplaysTheFirstAnswer(t *testing.T) {
	var runs atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Location", "/charges/7")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "charge %d of %s", runs.Add(1), b)
	}, semelhttp.Options{})
	for i, key := range []string{`"k1"`, `k1`, ` "k1" `} {
		a := send(t, "POST", s.URL+"/charges", "100", "Idempotency-Key", key)
		if a.StatusCode != 201 || a.body != "charge 1 of 100" || a.Header.Get("Location") != "/charges/7" {
			t.Errorf("%d: got %d %q %q", i, a.StatusCode, a.body, a.Header.Get("Location"))
		}
		if got, want := a.Header.Get("Idempotent-Replayed"), i > 0; (got == "true") != want {
			t.Errorf("%d: Idempotent-Replayed is %q, want replayed %v", i, got, want)
		}
	}
	if a := send(t, "POST", s.URL+"/charges", "900", "Idempotency-Key", "k1"); a.kind() != semelhttp.PayloadMismatch || strings.Contains(a.body, "charge 1") {
		t.Errorf("another body: got %d %s", a.StatusCode, a.body)
	}
	if a := send(t, "POST", s.URL+"/charges", "100", "Idempotency-Key", "k1", "X-Tenant", "other"); a.body != "charge 2 of 100" {
		t.Errorf("another tenant: got %d %q", a.StatusCode, a.body)
	}
}
