package semelhttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// The first answer is lost on its way. The transport asks again under the same
// key, and the server gives the stored answer: one charge.
func ExampleTransport() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	charges := 0
	charge := func(w http.ResponseWriter, _ *http.Request) {
		charges++
		fmt.Fprintf(w, "charge %d", charges)
	}
	h, err := semelhttp.NewHandler(guard, http.HandlerFunc(charge), semelhttp.Options{Scope: semelhttp.SharedScope()})
	if err != nil {
		fmt.Println(err)
		return
	}
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if requests == 1 {
			h.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler) // executed, and the connection breaks
		}
		h.ServeHTTP(w, r)
	}))
	defer server.Close()

	client := &http.Client{Transport: &semelhttp.Transport{}}
	resp, err := client.Post(server.URL, "text/plain", strings.NewReader("100 EUR"))
	switch semelhttp.OutcomeOf(resp, err) {
	case semelhttp.OutcomeDone: // also an error status: it is the operation's answer
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%s, %d requests, %d charge\n", body, requests, charges)
	case semelhttp.OutcomeNotDone:
		fmt.Println("nothing happened; it is safe to give up:", err)
	default:
		fmt.Println("it may have happened; ask again with the same key:", err)
	}
	// Output: charge 1, 2 requests, 1 charge
}

// A key that is derived from the order's number survives a crash of the client:
// whoever sends the order again sends it under the same key.
func ExampleKeyFromJSON() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Idempotency-Key"))
	}))
	defer server.Close()
	keys := map[string]int{}
	for range 2 {
		client := &http.Client{Transport: &semelhttp.Transport{Key: semelhttp.KeyFromJSON("order.id")}}
		resp, err := client.Post(server.URL+"/charges", "application/json", strings.NewReader(`{"order":{"id":42},"amount":100}`))
		if err != nil {
			fmt.Println(err)
			return
		}
		key, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		keys[string(key)]++
	}
	fmt.Println(len(keys), "key")
	// Output: 1 key
}
