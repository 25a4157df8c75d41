package remote_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
)

// says checks that err says each of the texts.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(errText(err), text) {
			t.Errorf("got %v; want an error that says %q", err, text)
		}
	}
}

func TestNewHandlerRefuses(t *testing.T) {
	store := memory.New(memory.Options{})
	for name, c := range map[string]struct {
		store semel.Store
		o     remote.HandlerOptions
		want  string
	}{
		"no store":        {nil, remote.HandlerOptions{Tokens: []string{token}}, "needs a store"},
		"no credential":   {store, remote.HandlerOptions{}, "set Tokens, or set MutualTLS"},
		"empty token":     {store, remote.HandlerOptions{Tokens: []string{token, ""}}, "token 2 of 2 has 0 characters"},
		"short token":     {store, remote.HandlerOptions{Tokens: []string{"secret"}}, "openssl rand"},
		"token of a file": {store, remote.HandlerOptions{Tokens: []string{token + "\n"}}, "without spaces"},
		"small messages":  {store, remote.HandlerOptions{Tokens: []string{token}, MaxBytes: 100}, "from 4096"},
		"large messages":  {store, remote.HandlerOptions{Tokens: []string{token}, MaxBytes: 1 << 31}, "from 4096"},
	} {
		_, err := remote.NewHandler(c.store, c.o)
		t.Run(name, func(t *testing.T) { says(t, err, c.want) })
	}
}

func TestDialRefusesAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"":                              "must begin with https://",
		"store.example:7443":            "must begin with https://",
		"ftp://store.example":           "must begin with https://",
		"https://":                      "names no host",
		"https:///semel":                "names no host",
		"://":                           "is no URL",
		"https://u:p@store.example":     "end up in logs",
		"https://store.example/?a=b":    "must end after its path",
		"https://store.example/#a":      "must end after its path",
		"http://store.example":          "use https://",
		"http://10.1.2.3:80":            "use https://",
		"http://127.0.0.1.example":      "use https://",
		"http://localhost.example:8080": "use https://",
		"http://[2001:db8::1]/":         "use https://",
		"http://127.0.0.1:1":            "cannot use the store at http://127.0.0.1:1",
		"https://127.0.0.1:1/semel":     "refused",
	} {
		_, err := remote.Dial(t.Context(), address, remote.Options{Token: token})
		t.Run(address, func(t *testing.T) { says(t, err, want) })
	}
	_, err := remote.Dial(t.Context(), "https://store.example", remote.Options{Token: token + "\n"})
	says(t, err, "line feed")
	_, err = remote.Dial(t.Context(), "https://store.example", remote.Options{Token: token, TLS: &tls.Config{InsecureSkipVerify: true}})
	says(t, err, "set Insecure if you mean it")
	_, err = remote.Dial(t.Context(), "http://127.0.0.1:1", remote.Options{Token: token, HTTP2: true})
	says(t, err, "HTTP2 wants https://")
}

func TestTokens(t *testing.T) {
	const first, second = "the-first-token-of-two-0123456789", "the-second-token-of-two-0123456789"
	server := serveWith(t, memory.New(memory.Options{}), remote.HandlerOptions{Tokens: []string{first, second}})
	for _, right := range []string{first, second} {
		dial(t, server.URL, remote.Options{Token: right})
	}
	for _, wrong := range []string{"", "x", first[:len(first)-1], first + "x", strings.ToUpper(first), first + second} {
		_, err := remote.Dial(t.Context(), server.URL, remote.Options{Token: wrong})
		says(t, err, "status 401", "must be one of the handler's Tokens")
		if wrong != "" && strings.Contains(errText(err), wrong+" ") {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	for name, headers := range map[string][]string{
		"two headers": {"Bearer " + first, "Bearer " + first}, "basic": {"Basic " + first}, "no scheme": {first},
		"empty": {""}, "a list": {"Bearer " + first + ", Bearer " + second}, "two spaces": {"Bearer  " + first},
	} {
		for _, path := range []string{"/semel/hello", "/semel/v1/swap", "/", "/semel/v1/nothing"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header["Authorization"] = headers
			response, err := server.Client().Transport.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode != 401 || response.Header.Get("WWW-Authenticate") != "Bearer" || bytes.Contains(body, []byte("versions")) {
				t.Errorf("%s at %s: %d %s", name, path, response.StatusCode, body)
			}
		}
	}
}

func TestCertificates(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	store := memory.New(memory.Options{})
	mutual := remote.HandlerOptions{MutualTLS: true}
	both := remote.HandlerOptions{MutualTLS: true, Tokens: []string{token}}
	wanted := ca.serve(t, store, mutual, tls.RequireAndVerifyClientCert)
	given := ca.serve(t, store, mutual, tls.VerifyClientCertIfGiven)
	unverified := ca.serve(t, store, mutual, tls.RequireAnyClientCert)
	ignored := ca.serve(t, store, mutual, tls.NoClientCert)
	late := ca.serveAs(t, store, both, tls.RequireAndVerifyClientCert, ca.certificate(t, "server", expired))
	twofold := ca.serve(t, store, both, tls.RequireAndVerifyClientCert)
	plain := serveWith(t, store, mutual)
	cert, old, foreign := ca.certificate(t, "c", valid), ca.certificate(t, "c", expired), stranger.certificate(t, "c", valid)
	otherName := ca.client(t, cert)
	otherName.ServerName = "store.example"
	for name, c := range map[string]struct {
		server *httptest.Server
		token  string
		tls    *tls.Config
		want   string // "" is success
	}{
		"right":                             {wanted, "", ca.client(t, cert), ""},
		"right, if given":                   {given, "", ca.client(t, cert), ""},
		"right, with token":                 {twofold, token, ca.client(t, cert), ""},
		"certificate without token":         {twofold, "", ca.client(t, cert), "401"},
		"token without certificate":         {twofold, token, ca.client(t), "Options.TLS.Certificates"},
		"none":                              {wanted, "", ca.client(t), "Options.TLS.Certificates"},
		"none, if given":                    {given, "", ca.client(t), "403"},
		"expired":                           {wanted, "", ca.client(t, old), "Options.TLS.Certificates"},
		"of another CA":                     {wanted, "", ca.client(t, foreign), "Options.TLS.Certificates"},
		"of another CA, and nobody looks":   {unverified, "", ca.client(t, foreign), "403"},
		"the server does not ask":           {ignored, "", ca.client(t, cert), "403"},
		"no TLS at all":                     {plain, token, nil, "403"},
		"the server's CA is unknown":        {wanted, "", stranger.client(t, cert), "Options.TLS.RootCAs"},
		"the server's name is another":      {wanted, "", otherName, "store.example"},
		"the server's certificate is stale": {late, token, ca.client(t, cert), "expired"},
	} {
		for _, http2 := range []bool{false, true} {
			if http2 && c.tls == nil {
				continue
			}
			s, err := remote.Dial(t.Context(), c.server.URL, remote.Options{Token: c.token, TLS: c.tls, HTTP2: http2})
			switch {
			case c.want != "":
				t.Run(name, func(t *testing.T) { says(t, err, c.want, "cannot use the store at "+c.server.URL) })
			case err != nil:
				t.Errorf("%s: %v", name, err)
			default:
				s.Close()
			}
		}
	}
}

// TestRedirect: the token and the record go to nobody but who was dialled.
func TestRedirect(t *testing.T) {
	var strangers atomic.Int64
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strangers.Add(1) }))
	defer stranger.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		away := httptest.NewServer(http.RedirectHandler(stranger.URL+"/semel/hello", status))
		_, err := remote.Dial(t.Context(), away.URL, remote.Options{Token: token})
		says(t, err, "redirects are not followed")
		away.Close()
		far := dial(t, spoiled(t, memory.New(memory.Options{}), func(w http.ResponseWriter, r *http.Request, _ []byte) {
			http.Redirect(w, r, stranger.URL, status)
		}), remote.Options{})
		_, err = far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
		unclear(t, err)
		says(t, err, "redirects are not followed")
	}
	if n := strangers.Load(); n != 0 {
		t.Errorf("%d requests followed a redirect", n)
	}
}

// TestProxyOfTheEnvironment: a proxy would see the token of a plain connection.
func TestProxyOfTheEnvironment(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	_, err := remote.Dial(t.Context(), "http://not-this-machine.invalid:80", remote.Options{Token: token, Insecure: true, Timeout: 5 * time.Second})
	says(t, err, "not-this-machine")
}

func TestGreetings(t *testing.T) {
	for name, c := range map[string]struct{ kind, body, want string }{
		"older":         {"application/json", `{"semel":"store","versions":{"min":0,"max":0},"max_bytes":99999}`, "update the far side"},
		"newer":         {"application/json", `{"semel":"store","versions":{"min":2,"max":3},"max_bytes":99999,"new":[]}`, "versions 2 to 3 of the protocol and this process 1: update this side"},
		"something":     {"application/json", `{"status":"ok"}`, "not that of a Semel store"},
		"no JSON":       {"application/json", `hello`, "does not decode"},
		"cut":           {"application/json", `{"semel":"store","ver`, "does not decode"},
		"a page":        {"text/html", `<html>`, "is there a proxy between?"},
		"small":         {"application/json", `{"semel":"store","versions":{"min":1,"max":1},"max_bytes":12}`, "4096 are needed"},
		"without end":   {"application/json", strings.Repeat(" ", 2<<20), "too large"},
		"ours and more": {"application/json", `{"semel":"store","versions":{"min":1,"max":7},"max_bytes":99999,"abilities":["list","fly"],"x":{}}`, ""},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			_, _ = io.WriteString(w, c.body)
		}))
		s, err := remote.Dial(t.Context(), server.URL, remote.Options{Token: token})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if _, lists := semel.As[semel.Lister](s); !lists {
				t.Errorf("%s: lists nothing", name)
			}
		} else {
			t.Run(name, func(t *testing.T) { says(t, err, c.want) })
		}
		server.Close()
	}
}

// TestRequestsRefused asks the handler wrongly: nothing reaches the store.
func TestRequestsRefused(t *testing.T) {
	inner := &counting{Store: memory.New(memory.Options{})}
	server := serveWith(t, inner, remote.HandlerOptions{Tokens: []string{token}, MaxBytes: 8 << 10})
	const kind = "application/vnd.semel.v1"
	post := func(path string, body []byte, change func(r *http.Request)) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", kind)
		change(r)
		response, err := server.Client().Transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	header := func(name, value string) func(r *http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	none := func(*http.Request) {}
	message := func(verb byte, data ...byte) []byte {
		return sealed(append(append([]byte{'S', 'M', 'L', 1, verb}, make([]byte, 16)...), append(data, 0, 0, 0, 0)...))
	}
	get := message(1, make([]byte, 32)...)
	if code, text := post("/semel/v1/get", get, none); code != 200 {
		t.Fatalf("the right request: %d %s", code, text)
	}
	for name, c := range map[string]struct {
		path   string
		body   []byte
		change func(r *http.Request)
		want   int
	}{
		"unknown path":           {"/", nil, none, 404},
		"unknown verb":           {"/semel/v1/drop", get, none, 404},
		"another version":        {"/semel/v2/get", get, none, 404},
		"no verb":                {"/semel/v1/", get, none, 404},
		"GET":                    {"/semel/v1/get", nil, func(r *http.Request) { r.Method, r.Body = "GET", nil }, 405},
		"PUT":                    {"/semel/v1/get", get, func(r *http.Request) { r.Method = "PUT" }, 405},
		"JSON":                   {"/semel/v1/get", get, header("Content-Type", "application/json"), 415},
		"gzip":                   {"/semel/v1/get", get, header("Content-Encoding", "gzip"), 415},
		"no body":                {"/semel/v1/get", nil, none, 400},
		"rubbish":                {"/semel/v1/get", []byte("swap everything, please"), none, 400},
		"cut":                    {"/semel/v1/get", get[:len(get)-1], none, 400},
		"one byte more":          {"/semel/v1/get", append(bytes.Clone(get), 0), none, 400},
		"another verb's":         {"/semel/v1/swap", get, none, 400},
		"short digest":           {"/semel/v1/get", message(1, make([]byte, 31)...), none, 400},
		"empty swap":             {"/semel/v1/swap", message(2), none, 400},
		"swap of zeros":          {"/semel/v1/swap", message(2, make([]byte, 300)...), none, 400},
		"batch without swaps":    {"/semel/v1/many", message(3, 0, 0, 0, 9), none, 400},
		"batch without end":      {"/semel/v1/many", message(3, 255, 255, 255, 255), none, 400},
		"list of less than 0":    {"/semel/v1/list", message(5, append(append(make([]byte, 34), bytes.Repeat([]byte{255}, 8)...), make([]byte, 8)...)...), none, 400},
		"history of no journal":  {"/semel/v1/history", message(6, make([]byte, 40)...), none, 400},
		"watch of no watcher":    {"/semel/v1/watch", message(7, make([]byte, 32)...), none, 400},
		"too large":              {"/semel/v1/get", make([]byte, 9<<10), none, 413},
		"too large, unannounced": {"/semel/v1/get", make([]byte, 64<<10), func(r *http.Request) { r.ContentLength = -1 }, 413},
		"no time left":           {"/semel/v1/get", get, header("Semel-Timeout", "0"), 400},
		"less than no time":      {"/semel/v1/get", get, header("Semel-Timeout", "-5"), 400},
		"time in words":          {"/semel/v1/get", get, header("Semel-Timeout", "5s"), 400},
		"no room":                {"/semel/v1/get", get, header("Semel-Max-Bytes", "16"), 400},
	} {
		if code, text := post(c.path, c.body, c.change); code != c.want {
			t.Errorf("%s: got %d %.100s, want %d", name, code, text, c.want)
		}
	}
	if n := inner.swaps.Load(); n != 0 {
		t.Errorf("%d swaps reached the store", n)
	}
}

// TestTooLarge: what does not fit is rejected before it is sent, or unknown if
// it comes the other way; never cut.
func TestTooLarge(t *testing.T) {
	store := memory.New(memory.Options{})
	far := dial(t, serveWith(t, store, remote.HandlerOptions{Tokens: []string{token}, MaxBytes: 64 << 10}).URL, remote.Options{})
	large := claim("k", 1)
	large.Result = make([]byte, 70<<10)
	_, err := far.CompareAndSwap(t.Context(), semel.Version{}, large)
	says(t, err, "nothing was sent", "raise MaxBytes at both ends")
	if !errors.Is(err, semel.ErrRejected) {
		t.Errorf("got %v, want ErrRejected", err)
	}
	out := far.SwapMany(t.Context(), []semel.Swap{{Next: claim("a", 1)}, {Next: large}, {Next: claim("b", 1)}})
	if out[0].Err != nil || !errors.Is(out[1].Err, semel.ErrRejected) || out[2].Err != nil {
		t.Errorf("a batch with one that is too large: %v, %v, %v", out[0].Err, out[1].Err, out[2].Err)
	}
	if _, err := store.CompareAndSwap(context.Background(), semel.Version{}, large); err != nil { // somebody there
		t.Fatal(err)
	}
	_, err = far.Get(t.Context(), large.Digest)
	unclear(t, err)
	says(t, err, "raise MaxBytes at both ends")
	small := claim("k", 2)
	_, err = far.CompareAndSwap(t.Context(), semel.Version{}, small)
	unclear(t, err)
	lister, _ := semel.As[semel.Lister](far)
	if records, err := lister.List(t.Context(), semel.Filter{ID: "k"}); err == nil {
		t.Errorf("listed %d records", len(records))
	}
	odd := claim("odd", 1)
	odd.State = 9
	if _, err := far.CompareAndSwap(t.Context(), semel.Version{}, odd); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("state 9: %v", err)
	}
}
