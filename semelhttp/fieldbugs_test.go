package semelhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// Each test here is named after a bug that others shipped; docs/spec/fieldbugs.md
// lists them. It fails if the bug is put back.

func TestFieldBug01_ClientLeavesBeforeTheAnswerIsSaved(t *testing.T) {
	var runs atomic.Int64
	entered, leave := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if runs.Add(1) == 1 {
			close(entered)
			<-leave
		}
		if err := r.Context().Err(); err != nil {
			t.Error("the handler's context ended with its client:", err)
		}
		io.WriteString(w, "charged")
	}, semelhttp.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "POST", s.URL, strings.NewReader("x"))
	r.Header.Set("Idempotency-Key", "k")
	r.Header.Set("X-Tenant", "acme")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := http.DefaultTransport.RoundTrip(r); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	cancel()
	<-gone
	close(leave)
	a := send(t, "POST", s.URL, "x", "Idempotency-Key", "k")
	if a.body != "charged" || a.Header.Get("Idempotent-Replayed") != "true" || runs.Load() != 1 {
		t.Errorf("got %d %q after %d runs, want a replay after 1", a.StatusCode, a.body, runs.Load())
	}
}

func TestFieldBug02_LargeOrStreamedAnswersAreStillRemembered(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"over the cap": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.Write(bytes.Repeat([]byte("x"), 3000))
		},
		"over the cap with a length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3000")
			w.WriteHeader(http.StatusAccepted)
			w.Write(bytes.Repeat([]byte("x"), 3000))
		},
		"stream": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusAccepted)
			for range 30 {
				io.WriteString(w, strings.Repeat("x", 100))
				http.NewResponseController(w).Flush()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var runs atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { runs.Add(1); handler(w, r) },
				semelhttp.Options{Policy: semel.Policy{MaxResult: 1000}})
			if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.StatusCode != 202 || len(a.body) != 3000 {
				t.Fatalf("first: got %d and %d bytes", a.StatusCode, len(a.body))
			}
			a := send(t, "POST", s.URL, "", "Idempotency-Key", "k")
			p, _ := semelhttp.ReadProblem(a.Response)
			if p.Kind() != semelhttp.ResultGone || p.Status != 410 || p.OriginalStatus != 202 {
				t.Errorf("retry: got %+v, want result-gone with the original 202", p)
			}
			if runs.Load() != 1 {
				t.Errorf("ran %d times", runs.Load())
			}
		})
	}
}

// failingStore fails every swap that ends a claim, while fail is set.
type failingStore struct {
	semel.Store
	fail atomic.Bool
}

func (s *failingStore) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if s.fail.Load() && next.State != semel.Pending {
		return semel.Reading{}, errors.New("disk full")
	}
	return s.Store.CompareAndSwap(ctx, old, next)
}

func TestFieldBug03_ResultCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failingStore{Store: memory.New(memory.Options{})}
		guard := newGuard(t, store)
		runs := 0
		h, err := semelhttp.NewHandler(guard, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			runs++
			io.WriteString(w, "charged")
		}), semelhttp.Options{Scope: semelhttp.SharedScope(), Policy: semel.Policy{Lease: time.Second, FinishWithin: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		store.fail.Store(true)
		if w := ask(h, "k", ""); w.Code != 409 || !strings.Contains(w.Body.String(), "outcome-unknown") {
			t.Errorf("first: got %d %s, want outcome-unknown", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		store.fail.Store(false)
		if w := ask(h, "k", ""); w.Code != 409 || !strings.Contains(w.Body.String(), "outcome-unknown") || runs != 1 {
			t.Errorf("retry: got %d %s after %d runs, want outcome-unknown after 1", w.Code, w.Body, runs)
		}
	})
}

func TestFieldBug05_FailureAfterTheEffect(t *testing.T) {
	for _, status := range []int{500, 502, 503, 504} {
		var effects atomic.Int64
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			effects.Add(1)
			http.Error(w, "the receipt could not be printed", status)
		}, semelhttp.Options{})
		for range 3 {
			if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.StatusCode != status {
				t.Errorf("got %d, want %d", a.StatusCode, status)
			}
		}
		if effects.Load() != 1 {
			t.Errorf("status %d: %d effects", status, effects.Load())
		}
	}
}

func TestFieldBug13_PanicIsAnOutcome(t *testing.T) {
	var runs atomic.Int64
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		runs.Add(1)
		w.Header().Set("Set-Cookie", "secret=1")
		io.WriteString(w, "half an ans")
		panic("boom")
	}, semelhttp.Options{NotDone: []int{500}, Panicked: func(*http.Request, any, []byte) {}})
	for i := range 2 {
		a := send(t, "POST", s.URL, "", "Idempotency-Key", "k")
		if a.kind() != semelhttp.HandlerFailed || a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%d: got %d %s", i, a.StatusCode, a.body)
		}
	}
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

func TestFieldBug16_AnotherClientsAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session="+r.Header.Get("X-Tenant"))
		fmt.Fprintf(w, "%s %s for %s", r.Method, r.URL.Path, r.Header.Get("X-Tenant"))
	}, semelhttp.Options{Methods: []string{"POST", "DELETE"}})
	send(t, "POST", s.URL+"/charges", "", "Idempotency-Key", "k", "X-Tenant", "alice")
	if a := send(t, "DELETE", s.URL+"/account", "", "Idempotency-Key", "k", "X-Tenant", "bob"); a.body != "DELETE /account for bob" {
		t.Errorf("bob got %q", a.body)
	}
	if a := send(t, "DELETE", s.URL+"/account", "", "Idempotency-Key", "k", "X-Tenant", "alice"); a.body != "DELETE /account for alice" {
		t.Errorf("alice's other operation got %q", a.body)
	}
	a := send(t, "POST", s.URL+"/charges", "", "Idempotency-Key", "k", "X-Tenant", "alice")
	if a.Header.Get("Idempotent-Replayed") != "true" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("the replay carries %v", a.Header)
	}
}

func TestFieldBug17_AnotherBodyUnderTheSameKey(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	var runs atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		close(entered)
		<-leave
		io.WriteString(w, "secret answer")
	}, semelhttp.Options{})
	var first sync.WaitGroup
	first.Go(func() { send(t, "POST", s.URL, "100", "Idempotency-Key", "k") })
	<-entered
	for _, when := range []string{"in flight", "finished"} {
		for _, path := range []string{"", "/?currency=USD"} {
			a := send(t, "POST", s.URL+path, "999", "Idempotency-Key", "k")
			if path == "" && (a.kind() != semelhttp.PayloadMismatch || a.StatusCode != 422) || strings.Contains(a.body, "secret") {
				t.Errorf("%s, %q: got %d %s", when, path, a.StatusCode, a.body)
			}
			if when == "in flight" {
				break
			}
		}
		if when == "in flight" {
			close(leave)
			first.Wait()
		}
	}
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

func TestFieldBug18_StatusHeadersAndStreamsSurviveTheReplay(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Location", "/charges/7")
		h.Set("ETag", `"v1"`)
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Type", "application/json")
		h.Add("Link", "<a>; rel=a")
		h.Add("Link", "<b>; rel=b")
		h.Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte("\x1f\x8bnot really"))
		h.Set("X-Sum", "42")
		h.Set("X-Late", "too late")
	}, semelhttp.Options{})
	first := send(t, "POST", s.URL, "", "Idempotency-Key", "k", "Accept-Encoding", "gzip")
	again := send(t, "POST", s.URL, "", "Idempotency-Key", "k", "Accept-Encoding", "gzip")
	if again.Header.Get("Idempotent-Replayed") != "true" {
		t.Fatal("not a replay")
	}
	for _, a := range []answer{first, again} {
		if a.StatusCode != 201 || a.body != "\x1f\x8bnot really" || a.Trailer.Get("X-Sum") != "42" || a.Header.Get("X-Late") != "" {
			t.Errorf("got %d %q, trailer %v, header %v", a.StatusCode, a.body, a.Trailer, a.Header)
		}
		for _, name := range []string{"Location", "Etag", "Content-Encoding", "Content-Type", "Link"} {
			if fmt.Sprint(a.Header[name]) != fmt.Sprint(first.Header[name]) || len(a.Header[name]) == 0 {
				t.Errorf("%s: got %q", name, a.Header[name])
			}
		}
	}
}

func TestFieldBug19_TransientIsNotPinnedAndFinalIsKept(t *testing.T) {
	for _, c := range []struct {
		status int
		header string
		kept   bool
	}{
		{409, "", true},
		{404, "", true},
		{500, "", true},
		{429, "", false},
		{503, "", false},
		{500, semelhttp.OutcomeNotDone, false},
		{200, semelhttp.OutcomeNotDone, false},
	} {
		var runs atomic.Int64
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.header != "" {
				w.Header().Set(semelhttp.OutcomeHeader, c.header)
			}
			w.WriteHeader(c.status)
			fmt.Fprint(w, runs.Add(1))
		}, semelhttp.Options{NotDone: []int{429, 503}})
		first := send(t, "POST", s.URL, "", "Idempotency-Key", "k")
		again := send(t, "POST", s.URL, "", "Idempotency-Key", "k")
		if first.StatusCode != c.status || first.body != "1" || first.Header.Get(semelhttp.OutcomeHeader) != "" {
			t.Errorf("%+v: first got %d %q %v", c, first.StatusCode, first.body, first.Header)
		}
		if kept := runs.Load() == 1; kept != c.kept || again.StatusCode != c.status {
			t.Errorf("%+v: retry got %d after %d runs", c, again.StatusCode, runs.Load())
		}
	}
}

func TestFieldBug22_SentKeyEqualsADerivedOne(t *testing.T) {
	var runs atomic.Int64
	store := memory.New(memory.Options{})
	h, err := semelhttp.NewHandler(newGuard(t, store), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, runs.Add(1))
	}), semelhttp.Options{Scope: semelhttp.SharedScope(), DeriveKey: true})
	if err != nil {
		t.Fatal(err)
	}
	run := func(key string) string { return ask(h, key, "content").Body.String() }
	if a, b := run(""), run(""); a != "1" || b != "1" {
		t.Fatalf("equal content without a key: got %s and %s, want one run", a, b)
	}
	records, err := store.List(t.Context(), semel.Filter{Scope: "shared|POST|/|content"})
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if got := run(records[0].Key.ID); got != "2" {
		t.Errorf("a client that sends the derived key itself got run %s, want its own", got)
	}
}

func TestFieldBug23_NobodysScope(t *testing.T) {
	guard := newGuard(t, memory.New(memory.Options{}))
	if _, err := semelhttp.NewHandler(guard, http.NotFoundHandler(), semelhttp.Options{}); err == nil || !strings.Contains(err.Error(), "Scope is required") {
		t.Errorf("without a scope: got %v", err)
	}
	runs := 0
	h, err := semelhttp.NewHandler(guard, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runs++ }),
		semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")})
	if err != nil {
		t.Fatal(err)
	}
	for _, lines := range [][]string{nil, {""}, {"a", "b"}} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Idempotency-Key", "k")
		r.Header["Authorization"] = lines
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), "scope-required") || runs != 0 {
			t.Errorf("%q: got %d %s, %d runs", lines, w.Code, w.Body, runs)
		}
	}
}
