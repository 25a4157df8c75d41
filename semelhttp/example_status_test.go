package semelhttp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// A client whose operation came to an unknown end follows the link of the answer.
func ExampleHandler_Status() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	const path = "/.well-known/semel/status"
	charge := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeUnknown) // the bank has not answered
	}
	h, err := semelhttp.NewHandler(guard, http.HandlerFunc(charge), semelhttp.Options{
		Scope:      semelhttp.HeaderScope("Authorization"),
		StatusPath: path,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle(path, h.Status())
	mux.Handle("/", h)

	first := httptest.NewRequest("POST", "/charges", strings.NewReader("100"))
	first.Header.Set("Authorization", "Bearer alice")
	first.Header.Set("Idempotency-Key", `"order-42"`)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, first)
	link := w.Header().Get("Link")
	fmt.Println(w.Code, link)

	target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	asked := httptest.NewRequest("GET", target, nil)
	asked.Header.Set("Authorization", "Bearer alice")
	w = httptest.NewRecorder()
	mux.ServeHTTP(w, asked)
	fmt.Print(w.Code, " ", w.Body)
	// Output:
	// 409 </.well-known/semel/status?key=order-42&method=POST&path=%2Fcharges>; rel="status"
	// 200 {"state":"in-doubt","replayable":false}
}
