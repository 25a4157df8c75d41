package postgres_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/semelhttp"
)

// site is a handler in a scope: it takes its transaction from the context, and
// its answer commits with the effect.
type site struct {
	*httptest.Server
	scope *postgres.Scope
	count func(name string) int64
}

func newSite(t *testing.T, o postgres.ScopeOptions, handle http.HandlerFunc) *site {
	t.Helper()
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	db := sql(t, url)
	run(t, db, "CREATE TABLE "+schema+".effects (name text NOT NULL)")
	pool := pooled(t, url, 4)
	o.Policy.Name = schema
	scope, err := postgres.NewScope(opened(t, url, "k"+schema, postgres.Options{MaxConns: 2}), pool, o)
	must(t, err)
	h, err := semelhttp.NewHandler(scope.Guard(), handle, semelhttp.Options{Scope: semelhttp.SharedScope(), Policy: scope.Policy()})
	must(t, err)
	s := &site{Server: httptest.NewServer(h), scope: scope}
	t.Cleanup(s.Close)
	s.count = func(name string) int64 {
		return number(t, db, "SELECT count(*) FROM "+schema+".effects WHERE name = $1", name)
	}
	return s
}

// newSchema makes a schema of the test's own.
func newSchema(t *testing.T) string {
	t.Helper()
	schema := "s" + strings.ToLower(fmt.Sprintf("%x", semel.Key{Scope: t.Name()}.Digest(nil))[:16])
	run(t, sql(t, servers.Postgres(t).URL("postgres")), "CREATE SCHEMA "+schema)
	return schema
}

func (s *site) post(t *testing.T, key string) (status int, body string, replayed bool) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/payments", strings.NewReader(key))
	must(t, err)
	r.Header.Set("Idempotency-Key", `"`+key+`"`)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(content), answer.Header.Get("Idempotent-Replayed") == "true"
}

func TestScopeHandler(t *testing.T) {
	var mu sync.Mutex
	runs := map[string]int{}
	var schema string
	handle := func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		name := string(content)
		mu.Lock()
		runs[name]++
		n := runs[name]
		mu.Unlock()
		tx, ok := postgres.TxFrom(r.Context())
		if !ok {
			http.Error(w, "no transaction", http.StatusTeapot)
			return
		}
		if _, err := tx.Exec(r.Context(), "INSERT INTO "+schema+".effects VALUES ($1)", name); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		switch {
		case strings.HasPrefix(name, "fails") && n == 1:
			http.Error(w, "not now", http.StatusServiceUnavailable)
		case strings.HasPrefix(name, "panics") && n == 1:
			panic("a handler panics")
		case strings.HasPrefix(name, "swallows") && n == 1:
			_, _ = tx.Exec(r.Context(), "SELECT 1/0")
			w.WriteHeader(http.StatusCreated)
		case strings.HasPrefix(name, "undone") && n < 3: // says so with a 500, as handlers do
			_, err := tx.Exec(r.Context(), "DO $$ BEGIN RAISE EXCEPTION 'undone for a test' USING ERRCODE = '40P01'; END $$")
			http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		default:
			w.Header().Set("Location", "/payments/"+name)
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, "receipt ", name)
		}
	}
	for _, optimistic := range []bool{false, true} {
		t.Run(fmt.Sprint("optimistic=", optimistic), func(t *testing.T) {
			clear(runs)
			s := newSite(t, postgres.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}}, handle)
			schema = s.scope.Policy().Name
			for _, c := range []struct {
				name  string
				first int
				runs  int
			}{{"works", 201, 1}, {"fails", 503, 2}, {"panics", 500, 2}, {"swallows", 500, 2}, {"undone", 201, 3}} {
				status, _, _ := s.post(t, c.name)
				if ok := status == c.first || c.name == "swallows" && status >= 500; !ok {
					t.Errorf("%s: the first answer is %d, want %d", c.name, status, c.first)
				}
				if n := s.count(c.name); status != 201 && n != 0 {
					t.Errorf("%s: %d effects after a %d, want none", c.name, n, status)
				}
				status, body, _ := s.post(t, c.name)
				again, bodyAgain, replayed := s.post(t, c.name)
				if status != 201 || again != 201 || body != "receipt "+c.name || bodyAgain != body || !replayed || s.count(c.name) != 1 || runs[c.name] != c.runs {
					t.Errorf("%s: %d %q, then %d %q, replayed %t; %d effects, %d runs, want %d", c.name, status, body, again, bodyAgain, replayed, s.count(c.name), runs[c.name], c.runs)
				}
			}
		})
	}
}

// A class that needs transactions is refused where there are none.
func TestTransactionalNeedsAScope(t *testing.T) {
	store := opened(t, servers.Postgres(t).URL("postgres"), "noscope", postgres.Options{MaxConns: 2})
	guard, err := semel.NewGuard(store, semel.Options{})
	must(t, err)
	p, err := semel.Policy{Class: semel.Transactional}.Filled()
	must(t, err)
	_, err = guard.Do(t.Context(), semel.Ask{Key: semel.Key{Scope: "tenant", ID: "a"}, Policy: &p}, func(context.Context) (semel.Result, error) {
		t.Error("it ran")
		return semel.Result{}, nil
	})
	if err == nil {
		t.Error("no error")
	}
}
