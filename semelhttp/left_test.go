package semelhttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// TestBrokenOffIsNoSuccess: the context of a request ends when its client closes
// its half of the connection, and such a client still reads. If nothing ran it
// must not be told 200, which is what net/http says for a handler that is silent.
func TestBrokenOffIsNoSuccess(t *testing.T) {
	runs := 0
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runs++ })
	h, err := semelhttp.NewHandler(newGuard(t, memory.New(memory.Options{})), next, semelhttp.Options{Scope: semelhttp.SharedScope()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("body"))
	r.Header.Set("Idempotency-Key", "k")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if p, ok := semelhttp.ReadProblem(w.Result()); runs != 0 || w.Code != http.StatusServiceUnavailable || !ok || !p.Retryable {
		t.Errorf("got %d %q and %d runs, want a 503 that may be retried, and none", w.Code, w.Body, runs)
	}
}

// TestLateWriterReachesNobody: a goroutine that a handler left behind writes
// while other requests are answered.
func TestLateWriterReachesNobody(t *testing.T) {
	var late sync.WaitGroup
	stop := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/leaves-one-behind" {
			late.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _ = io.WriteString(w, "SECRET")
					}
				}
			})
			return
		}
		_, _ = io.WriteString(w, "mine")
	}, semelhttp.Options{})
	send(t, "POST", s.URL+"/leaves-one-behind", "", "Idempotency-Key", "k")
	for i := range 200 {
		if a := send(t, "POST", s.URL+"/", "", "Idempotency-Key", fmt.Sprint("k", i)); a.body != "mine" {
			t.Fatalf("got %d %.40q", a.StatusCode, a.body)
		}
	}
	close(stop)
	late.Wait()
}
