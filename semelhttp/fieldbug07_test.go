package semelhttp_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// net/http re-sends a request that carries a key when a reused connection breaks,
// whether the upstream has executed it or not: two executions, and the client
// sees one success. The control shows that this upstream provokes it.
func TestFieldBug07_NetHTTPSendsAgainByItself(t *testing.T) {
	for _, c := range []struct {
		name string
		body func(r *http.Request)
	}{
		{"a body that can be read again", func(*http.Request) {}},
		{"no body", func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = nil, nil, 0 }},
		{"http.NoBody", func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = http.NoBody, nil, 0 }},
		{"an empty body that can be read again", func(r *http.Request) {
			r.Body, r.ContentLength = http.NoBody, 0
			r.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := func(t *testing.T) (*upstream, *semelhttp.Transport, *http.Request) {
				u, tr := reused(t)
				r := post(t, u.URL, "amount=100", "Idempotency-Key", "order-42")
				c.body(r)
				return u, tr, r
			}
			executed := func(u *upstream) []string { return u.seen()[1:] }
			t.Run("control", func(t *testing.T) {
				u, tr, r := begin(t)
				resp, err := tr.Base.RoundTrip(r)
				if err != nil {
					t.Fatal("the upstream does not provoke net/http:", err)
				}
				read(t, resp)
				if got := executed(u); len(got) != 2 {
					t.Errorf("net/http sent %d times, want 2: the upstream does not provoke it", len(got))
				}
			})
			t.Run("one attempt", func(t *testing.T) {
				u, tr, r := begin(t)
				tr.MaxAttempts = 1
				_, err := tr.RoundTrip(r)
				if got := executed(u); !errors.Is(err, semel.ErrInDoubt) || len(got) != 1 {
					t.Errorf("sent %d times, error %v; want once, and an unknown outcome", len(got), err)
				}
			})
			t.Run("one attempt, by http.Client", func(t *testing.T) {
				u, tr, r := begin(t)
				tr.MaxAttempts = 1
				_, err := (&http.Client{Transport: tr}).Do(r)
				if got := executed(u); !errors.Is(err, semel.ErrInDoubt) || len(got) != 1 {
					t.Errorf("sent %d times, error %v; want once, and an unknown outcome", len(got), err)
				}
			})
			t.Run("our own retry", func(t *testing.T) {
				u, tr, r := begin(t)
				tr.MaxAttempts = 2
				resp, err := tr.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				read(t, resp)
				if got := executed(u); !slices.Equal(got, []string{"order-42", "order-42"}) || u.bodies[1] != u.bodies[2] {
					t.Errorf("sent with the keys %q and the bodies %q, want both twice the same", got, u.bodies[1:])
				}
			})
		})
	}
}

// reused gives an upstream with a connection that the next request reuses. The
// upstream reads that request whole, executes it, and does not answer.
func reused(t *testing.T) (*upstream, *semelhttp.Transport) {
	u := up(t, status(200), lost, text("executed again"))
	tr := fast(t)
	resp, err := tr.Base.RoundTrip(post(t, u.URL, ""))
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp)
	return u, tr
}
