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

func ExampleNewHandler() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	charges := 0
	charge := func(w http.ResponseWriter, r *http.Request) {
		charges++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "charge %d", charges)
	}
	h, err := semelhttp.NewHandler(guard, http.HandlerFunc(charge), semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")})
	if err != nil {
		fmt.Println(err)
		return
	}
	server := httptest.NewServer(h)
	defer server.Close()
	for _, amount := range []string{"100", "100", "900"} {
		r, _ := http.NewRequest("POST", server.URL, strings.NewReader(amount))
		r.Header.Set("Authorization", "Bearer alice")
		r.Header.Set("Idempotency-Key", `"order-42"`)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, resp.Header.Get("Idempotent-Replayed"), strings.SplitN(string(body), ",", 2)[0])
	}
	// Output:
	// 201  charge 1
	// 201 true charge 1
	// 422  {"type":"https://github.com/semelhq/semel/blob/main/docs/spec/problems.md#payload-mismatch"
}
