package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

func TestMatch(t *testing.T) {
	cases := []struct {
		match, method, path string
		want                bool
	}{
		{"*", "POST", "/", true},
		{"*", "GET", "/any/thing", true},
		{"/*", "POST", "/", true},
		{"/", "POST", "/", true},
		{"/", "POST", "/x", false},
		{"/v1/charges", "POST", "/v1/charges", true},
		{"/v1/charges", "POST", "/v1/charges/", false},
		{"/v1/charges", "POST", "/v1/charges/x", false},
		{"/v1/charges", "POST", "/v1/charge", false},
		{"/v1/charges", "POST", "/v1", false},
		{"/v1/charges", "POST", "/V1/charges", false},
		{"/v1/charges/*", "POST", "/v1/charges", false},
		{"/v1/charges/*", "POST", "/v1/charges/", true},
		{"/v1/charges/*", "POST", "/v1/charges/7", true},
		{"/v1/charges/*", "POST", "/v1/charges/7/capture", true},
		{"/v1/charges*", "POST", "/v1/charges", true},
		{"/v1/charges*", "POST", "/v1/charges/7", true},
		{"/v1/charges*", "POST", "/v1/chargesheets", true},
		{"/v1/charges*", "POST", "/v1/charg", false},
		{"/v1/*/refund", "POST", "/v1/7/refund", true},
		{"/v1/*/refund", "POST", "/v1//refund", false}, // cleaned to /v1/refund
		{"/v1/*/refund", "POST", "/v1/7/8/refund", false},
		{"/v1/*/refund", "POST", "/v1/7/refund/x", false},
		{"/v1/*/refund/*", "POST", "/v1/7/refund/x/y", true},
		{"/v1/charges", "POST", "//v1//charges", true},
		{"/v1/charges", "POST", "/v1/./charges", true},
		{"/v1/charges", "POST", "/v1/x/../charges", true},
		{"/v1/charges/", "POST", "/v1//charges/", true},
		{"POST /v1/charges", "POST", "/v1/charges", true},
		{"POST /v1/charges", "PATCH", "/v1/charges", false},
		{"POST,PUT /v1/charges", "PUT", "/v1/charges", true},
	}
	for _, tc := range cases {
		p, err := parsePattern(tc.match)
		if err != nil {
			t.Errorf("%q: %v", tc.match, err)
			continue
		}
		if got := p.matches(tc.method, cleaned(tc.path)); got != tc.want {
			t.Errorf("%q matches %s %s: got %v, want %v", tc.match, tc.method, tc.path, got, tc.want)
		}
	}
}

func TestMatchRefused(t *testing.T) {
	for match, want := range map[string]string{
		"":                   "is no match",
		"POST":               "must begin with /",
		"v1/charges":         "must begin with /",
		"post /v1":           "upper case",
		"POST, PUT /v1":      "is no match",
		"POST,,PUT /v1":      "is no method",
		"POST /v1 /v2":       "is no match",
		"POST /v1?x=1":       "without query",
		"POST /v1/a%20b":     "compared with decoded paths",
		"POST /v1/ch*ges/x":  "inside a part",
		"CONNECT /":          "tunnel",
		"/v1/*x":             "inside a part",
		"GET /a/**":          "inside a part",
		"https://example/v1": "must begin with /",
	} {
		_, err := ParseMatch(match)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", match, err, want)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("POST /v1/*/refund*", "/v1/7/refund")
	f.Add("*", "//..//x")
	f.Fuzz(func(t *testing.T, match, path string) {
		p, err := parsePattern(match)
		if err != nil {
			return
		}
		clean := cleaned(path)
		if again := cleaned(clean); again != clean || !strings.HasPrefix(clean, "/") {
			t.Errorf("%q: cleaned to %q, and that to %q", path, clean, again)
		}
		p.matches("POST", clean)
		all, err := parsePattern("*")
		if err != nil || !all.matches("POST", clean) {
			t.Errorf("* does not match %q: %v", clean, err)
		}
	})
}

func TestRoutesDiffer(t *testing.T) {
	service := newEcho(t)
	d := open(t, service, func(c *Config) {
		require := semelhttp.Options{Scope: semelhttp.SharedScope(), RequireKey: true}
		c.Routes = append([]Route{{Match: "/strict/*", Options: require}, {Match: "PUT /put", Options: require}}, c.Routes...)
	})
	for _, tc := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/strict/x", 400},
		{"POST", "/./strict//x", 400},
		{"GET", "/strict/x", 200},
		{"PUT", "/strict/x", 200},
		{"POST", "/other", 200},
		{"PUT", "/put", 400},
		{"POST", "/put", 200},
		{"CONNECT", "/", 405},
	} {
		if a := d.ask(t, tc.method, tc.path, "", ""); a.status != tc.want {
			t.Errorf("%s %s: got %v, want %d", tc.method, tc.path, a, tc.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	good := func() Config {
		return Config{Upstream: &url.URL{Scheme: "http", Host: "x"}, Guard: newGuard(t), Routes: []Route{{Match: "*", Options: semelhttp.Options{Scope: semelhttp.SharedScope()}}}}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"Guard is required":           func(c *Config) { c.Guard = nil },
		"an upstream is required":     func(c *Config) { c.Upstream = nil },
		"must begin with http":        func(c *Config) { c.Upstream.Scheme = "ftp" },
		"names no host":               func(c *Config) { c.Upstream.Host = ":80" },
		"contains credentials":        func(c *Config) { c.Upstream.User = url.UserPassword("a", "geheim") },
		"must end with its path":      func(c *Config) { c.Upstream.RawQuery = "x=1" },
		"must match every request":    func(c *Config) { c.Routes[0].Match = "/v1/*" },
		"Scope is required":           func(c *Config) { c.Routes[0].Options.Scope = nil },
		"is no match":                 func(c *Config) { c.Routes = append([]Route{{Match: ""}}, c.Routes...) },
		"Drain -1s is negative":       func(c *Config) { c.Drain = -1e9 },
		"set one of them":             func(c *Config) { c.Routes[0].Options.RequireKey, c.Routes[0].Options.DeriveKey = true, true },
		"give it the match \"*\"":     func(c *Config) { c.Routes = nil },
		"cannot be replayed":          func(c *Config) { c.Routes[0].Options.KeepHeaders = []string{"Connection"} },
		"remember 1s is shorter than": func(c *Config) { c.Routes[0].Options.Policy.Remember = 1e9 },
	} {
		c := good()
		change(&c)
		_, err := New(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("the error tells a password: %v", err)
		}
	}
}

func newEcho(t *testing.T) string {
	w := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Method + " " + r.URL.Path)) })
	return serve(t, w)
}
