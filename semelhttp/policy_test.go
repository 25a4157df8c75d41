package semelhttp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

func newHandler(t testing.TB, next http.HandlerFunc, o semelhttp.Options) *semelhttp.Handler {
	t.Helper()
	o.Scope = semelhttp.SharedScope()
	h, err := semelhttp.NewHandler(newGuard(t, memory.New(memory.Options{})), next, o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPolicyDocument(t *testing.T) {
	none := func(http.ResponseWriter, *http.Request) {}
	for name, c := range map[string]struct {
		o    semelhttp.Options
		want string
	}{
		"the defaults": {want: `{"methods":["POST","PATCH"],"class":"at-most-once",` +
			`"key":{"header":"Idempotency-Key","without":"unguarded","format":"token-or-string","max_length":255,"uuidv7":{"past":259200,"ahead":300}},` +
			`"fingerprint":{"body":"bytes"},"retention":{"replay":86400,"remember":259200},"wait":10,"in_doubt":"operator","quota":false,` +
			`"max_body":1048576,"max_result":1048576,"not_done":[425,429],"replay_header":"Idempotent-Replayed"}`},
		"all else": {o: semelhttp.Options{
			Policy: semel.Policy{
				Name: "POST /charges", Class: semel.Fenced, Replay: time.Hour, Remember: 2 * time.Hour, Wait: 250 * time.Millisecond,
				MaxResult: 10, Quota: newAllowance(1, 0),
			},
			Methods: []string{"POST"}, RequireKey: true, KeyHeader: "x-key", FingerprintHeaders: []string{"Content-Type"}, BodyCounts: "json",
			MaxBody: 20, NotDone: []int{503}, ReplayHeader: "X-Again", StatusPath: "/status",
		}, want: `{"name":"POST /charges","methods":["POST"],"class":"fenced",` +
			`"key":{"header":"X-Key","without":"refused","format":"token-or-string","max_length":255,"uuidv7":{"past":7200,"ahead":300}},` +
			`"fingerprint":{"body":"json","headers":["Content-Type"]},"retention":{"replay":3600,"remember":7200},"wait":0.25,"in_doubt":"next-request","quota":true,` +
			`"max_body":20,"max_result":10,"not_done":[503],"replay_header":"X-Again","status_path":"/status"}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, none, c.o)
			if w := get(h.Policy(), "GET", "/?method=POST&path=/x"); w.Body.String() != c.want+"\n" || w.Code != 200 {
				t.Errorf("got %d\n%s want\n%s", w.Code, w.Body, c.want)
			}
			if w := get(h.Policy(), "GET", "/"); w.Body.String() != `{"policies":[`+c.want+"]}\n" {
				t.Errorf("the list: got %d\n%s", w.Code, w.Body)
			}
		})
	}
	form := newHandler(t, none, semelhttp.Options{DeriveKey: true, Canonical: semelhttp.Form(), Policy: semel.Policy{Class: semel.Transactional}}).Document()
	if form.Key.Without != "derived" || form.Fingerprint.Body != "canonical" || form.InDoubt != "never" {
		t.Errorf("got %+v", form)
	}
}

func TestPolicyEndpoint(t *testing.T) {
	h := newHandler(t, func(http.ResponseWriter, *http.Request) {}, semelhttp.Options{}).Policy()
	first := get(h, "GET", "/")
	tag := first.Header().Get("Etag")
	if first.Header().Get("Cache-Control") != "public, max-age=300" || first.Header().Get("Content-Type") != "application/json" || len(tag) < 10 {
		t.Errorf("the headers are %v", first.Header())
	}
	for _, c := range []struct {
		method, target, header, value string
		status                        int
	}{
		{"GET", "/", "If-None-Match", tag, 304},
		{"GET", "/", "If-None-Match", `"another"`, 200},
		{"GET", "/?method=POST&path=/", "If-None-Match", tag, 200},
		{"HEAD", "/", "", "", 200},
		{"GET", "/?method=GET&path=/", "", "", 404},
		{"GET", "/?method=POST", "", "", 400},
		{"GET", "/?path=/x", "", "", 400},
		{"GET", "/?method=POST&path=/x&path=/y", "", "", 400},
		{"GET", "/?method=POST&path=", "", "", 400},
		{"POST", "/", "", "", 405},
	} {
		w := get(h, c.method, c.target, c.header, c.value)
		if w.Code != c.status || (c.method == "HEAD" || c.status == 304) && w.Body.Len() > 0 {
			t.Errorf("%+v: got %d %s", c, w.Code, w.Body)
		}
	}
}

// A refusal links to the policy of its own request.
func TestPolicyLink(t *testing.T) {
	h := newHandler(t, func(http.ResponseWriter, *http.Request) {}, semelhttp.Options{RequireKey: true, PolicyPath: "/policy"})
	link := func(target string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", target, nil))
		return strings.Join(w.Header()["Link"], ", ")
	}
	want := `</policy?method=POST&path=%2Fa%252Fb>; rel="service-desc"`
	if got := link("/a%2Fb?token=secret"); !strings.Contains(got, want) || strings.Contains(got, "secret") {
		t.Errorf("the links are %s, want %s", got, want)
	}
	if got := link("/" + strings.Repeat("x", 4000)); !strings.Contains(got, `</policy>; rel="service-desc"`) {
		t.Errorf("a long path: the links are %.200s", got)
	}
	if w := ask(h, "k", ""); w.Code != 200 || w.Header()["Link"] != nil {
		t.Errorf("an answer: %d, the links are %s", w.Code, w.Header()["Link"])
	}
}

// Answers tell how long they can be had again, by the store's clock.
func TestRetentionHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Semel-Retention", "the handler's own")
			switch r.Header.Get("Idempotency-Key") {
			case "busy":
				w.WriteHeader(429)
			case "long":
				io.WriteString(w, strings.Repeat("x", 2000))
			}
		}, semelhttp.Options{Policy: semel.Policy{Replay: time.Hour, Remember: 3 * time.Hour, MaxResult: 1500}})
		told := func(key string, status int, want string) {
			t.Helper()
			w := ask(h, key, "")
			if got := w.Header()["Semel-Retention"]; w.Code != status || strings.Join(got, "|") != want {
				t.Errorf("%s: got %d and %q, want %d and %q", key, w.Code, got, status, want)
			}
		}
		timed := semelhttp.NewKey()
		told("k", 200, "replay=3600, remember=10800")
		told(timed, 200, "replay=3600, remember=11100") // 5 minutes more, in which it may be early
		told("k", 200, "replay=3600, remember=10800")
		time.Sleep(10*time.Minute + time.Millisecond)
		told("k", 200, "replay=2999, remember=10199")
		told(timed, 200, "replay=2999, remember=10499")
		told("other", 200, "replay=3600, remember=10800")
		time.Sleep(50 * time.Minute)
		told("k", 410, "replay=0, remember=7199")
		told("long", 200, "the handler's own") // a stream: nothing is known when its head leaves
		told("long", 410, "replay=0, remember=10800")
		told("busy", 429, "the handler's own") // not stored
		if w := ask(h, "", ""); w.Header().Get("Semel-Retention") != "the handler's own" {
			t.Errorf("unguarded: %q", w.Header())
		}
	})
}

func ExampleHandler_Policy() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	h, err := semelhttp.NewHandler(guard, http.NotFoundHandler(), semelhttp.Options{
		Scope: semelhttp.HeaderScope("Authorization"), RequireKey: true, PolicyPath: "/.well-known/semel/policy",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/semel/policy", h.Policy())
	mux.Handle("/", h)

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("POST", "/orders", nil))
	fmt.Println(w.Code, w.Header()["Link"][0])

	w = httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/semel/policy?method=POST&path=%2Forders", nil))
	var policy semelhttp.PolicyDocument
	if err := json.Unmarshal(w.Body.Bytes(), &policy); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(policy.Key.Without, policy.Class, policy.Retention.Replay, policy.Retention.Remember)
	// Output:
	// 400 </.well-known/semel/policy?method=POST&path=%2Forders>; rel="service-desc"
	// refused at-most-once 86400 259200
}
