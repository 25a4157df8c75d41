package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// A service that knows nothing of idempotency keys, behind a gateway.
func Example() {
	orders := 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		orders++
		fmt.Fprintf(w, "order %d", orders)
	}))
	defer service.Close()

	upstream, err := url.Parse(service.URL)
	if err != nil {
		panic(err)
	}
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		panic(err)
	}
	g, err := gateway.New(gateway.Config{
		Upstream: upstream,
		Guard:    guard,
		Routes:   []gateway.Route{{Match: "*", Options: semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")}}},
	})
	if err != nil {
		panic(err)
	}
	door := httptest.NewServer(g)
	defer door.Close()

	for range 3 {
		r, err := http.NewRequest(http.MethodPost, door.URL+"/orders", strings.NewReader("one coffee"))
		if err != nil {
			panic(err)
		}
		r.Header.Set("Authorization", "Bearer me")
		r.Header.Set("Idempotency-Key", `"8e03978e"`)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fmt.Printf("%s, replayed: %q\n", body, resp.Header.Get("Idempotent-Replayed"))
	}
	// Output:
	// order 1, replayed: ""
	// order 1, replayed: "true"
	// order 1, replayed: "true"
}
