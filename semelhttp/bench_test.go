package semelhttp_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// sink is a ResponseWriter without a connection.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkHandler measures what the guard adds to a handler, without a network.
func BenchmarkHandler(b *testing.B) {
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"ch_1"}`)
	})
	guarded, err := semelhttp.NewHandler(newGuard(b, memory.New(memory.Options{})), bare, semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		h    http.Handler
		key  func(i int) string
	}{
		{"bare", bare, func(i int) string { return strconv.Itoa(i) }},
		{"fresh", guarded, func(i int) string { return strconv.Itoa(i) }},
		{"replay", guarded, func(int) string { return "same" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			w := &sink{http.Header{}}
			body := strings.NewReader("")
			r, _ := http.NewRequest("POST", "/charges", nil)
			r.Body = io.NopCloser(body)
			r.ContentLength = 14
			r.Header.Set("Authorization", "Bearer alice")
			for i := range b.N {
				body.Reset(`{"amount":100}`)
				clear(w.h)
				r.Header["Idempotency-Key"] = []string{c.key(i)}
				c.h.ServeHTTP(w, r)
			}
		})
	}
}
