package sqlite_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/semelhttp"
)

// TestScopeHandler: a handler takes its transaction from the context. A 500 undoes
// everything, also what it wrote before; any other answer is committed with it.
func TestScopeHandler(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	runs := 0
	h, err := semelhttp.NewHandler(s.scope.Guard(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		tx, ok := sqlite.TxFrom(r.Context())
		if !ok {
			t.Error("there is no transaction in the request's context")
			return
		}
		if _, err := tx.ExecContext(r.Context(), "INSERT INTO orders (what) VALUES ('tea')"); err != nil {
			t.Error(err)
		}
		if runs == 1 {
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "order ", runs)
	}), semelhttp.Options{Policy: s.scope.Policy(), Scope: semelhttp.SharedScope()})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		status, orders int
		body           string
	}{{500, 0, "out of order\n"}, {201, 1, "order 2"}, {201, 1, "order 2"}} {
		r := httptest.NewRequest(http.MethodPost, "/orders", http.NoBody)
		r.Header.Set("Idempotency-Key", `"9c1f"`)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want.status || w.Body.String() != want.body || s.orders(t) != want.orders {
			t.Errorf("request %d: %d %q and %d orders, want %+v", i, w.Code, w.Body, s.orders(t), want)
		}
	}
	if runs != 2 {
		t.Errorf("%d runs, want 2", runs)
	}
}
