package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/semelhttp"
)

func TestPoliciesOfRoutes(t *testing.T) {
	never := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the upstream got %s", r.URL) }))
	defer never.Close()
	shared := semelhttp.Options{Scope: semelhttp.SharedScope()}
	d := open(t, never.URL, func(c *Config) {
		strict := shared
		strict.RequireKey = true
		strict.Policy.Remember = 720 * time.Hour
		c.Routes = []Route{
			{Match: "POST /charges", Options: strict, Resolve: &Resolver{Path: "/by/{derived-key}"}},
			{Match: "/charges/*", Options: shared},
			{Match: "*", Options: shared},
		}
	})
	const at = "/.well-known/semel/policy"
	for _, c := range []struct{ method, path, want string }{
		{"POST", "/charges", "POST /charges"},
		{"POST", "/./x/../charges", "POST /charges"},
		{"POST", "/charges%2F7", "/charges/*"},
		{"PATCH", "/charges", "*"},
		{"GET", "/charges", ""},
		{"POST", "/else%zz", ""},
	} {
		a := d.ask(t, "GET", at+"?method="+c.method+"&path="+strings.ReplaceAll(c.path, "%", "%25"), "", "")
		var told semelhttp.PolicyDocument
		if err := json.Unmarshal([]byte(a.body), &told); err != nil || told.Name != c.want || (a.status == 404) != (c.want == "") {
			t.Errorf("%s %s: %v, want the route %q", c.method, c.path, a, c.want)
		}
	}
	var list struct{ Policies []semelhttp.PolicyDocument }
	a := d.ask(t, "GET", at, "", "")
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list.Policies) != 3 || a.header.Get("Etag") == "" {
		t.Fatalf("the list: %v", a)
	}
	if p := list.Policies[0]; p.InDoubt != "resolver" || p.Key.Without != "refused" || p.Retention.Remember != 2592000 || len(p.Methods) != 1 || p.StatusPath != "/.well-known/semel/status" {
		t.Errorf("the first is %+v", p)
	}
	refused := d.ask(t, "POST", "/charges", "", "100")
	if got := strings.Join(refused.header["Link"], ", "); refused.kind() != semelhttp.KeyRequired || !strings.Contains(got, "<"+at+`?method=POST&path=%2Fcharges>; rel="service-desc"`) {
		t.Errorf("a refusal: %v, links %s", refused.status, got)
	}
}

func TestPolicyPathIsTheUpstreamsOwn(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the upstream's") }))
	defer upstream.Close()
	d := open(t, upstream.URL, func(c *Config) { c.PolicyPath = "none" })
	if a := d.ask(t, "GET", "/.well-known/semel/policy", "", ""); a.body != "the upstream's" {
		t.Errorf("got %v", a)
	}
	if a := d.ask(t, "POST", "/", "a, b", ""); a.kind() != semelhttp.KeyInvalid || len(a.header["Link"]) != 1 {
		t.Errorf("a refusal links to %s", a.header["Link"])
	}
	_, err := New(Config{StatusPath: "/here", PolicyPath: "/here"})
	if err == nil || !strings.Contains(err.Error(), "paths of their own") {
		t.Errorf("both at one path: %v", err)
	}
}

// Routes share a quota that they have in common.
func TestQuotaOfRoutes(t *testing.T) {
	var runs atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, runs.Add(1)) }))
	defer upstream.Close()
	quota, err := lifecycle.NewQuota(lifecycle.QuotaOptions{NewKeys: 3, Per: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, upstream.URL, func(c *Config) {
		o := semelhttp.Options{Scope: semelhttp.HeaderScope("X-Client"), Policy: semel.Policy{Quota: quota}}
		c.Routes = []Route{{Match: "/a", Options: o}, {Match: "*", Options: o}}
	})
	for _, path := range []string{"/a", "/b", "/c", "/a", "/b", "/c"} {
		if a := d.ask(t, "POST", path, "k", "", "X-Client", "one"); a.status != 200 {
			t.Fatalf("%s: %v", path, a)
		}
	}
	a := d.ask(t, "POST", "/a", "new", "", "X-Client", "one")
	if a.status != 429 || a.kind() != semelhttp.QuotaExceeded || a.header.Get("Retry-After") == "" || a.header.Get("Semel-Retention") != "" {
		t.Errorf("over quota: %v", a)
	}
	if a := d.ask(t, "POST", "/a", "new", "", "X-Client", "two"); a.status != 200 || a.header.Get("Semel-Retention") != "replay=86400, remember=259200" {
		t.Errorf("another client: %v", a)
	}
	if runs.Load() != 4 {
		t.Errorf("%d ran, want 4", runs.Load())
	}
}
