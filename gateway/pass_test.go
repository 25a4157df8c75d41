package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// What the upstream answers is what the client gets, first and again.
func TestAnswersPass(t *testing.T) {
	cases := map[string]struct {
		method string
		reply  string
		status int
		body   string
		header map[string]string
	}{
		"length":           {"POST", created, 201, "created", map[string]string{"Content-Length": "7", "Content-Type": "text/plain"}},
		"chunks":           {"POST", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n6\n world\n0\n\n", 200, "hello world", nil},
		"until the end":    {"POST", "HTTP/1.0 200 OK\nContent-Type: text/plain\n\nold ways", 200, "old ways", nil},
		"no content":       {"POST", "HTTP/1.1 204 No Content\nETag: \"7\"\n\n", 204, "", map[string]string{"Etag": `"7"`}},
		"empty":            {"POST", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 200, "", map[string]string{"Content-Length": "0"}},
		"created":          {"POST", "HTTP/1.1 201 Created\nLocation: /pay/7\nContent-Length: 0\n\n", 201, "", map[string]string{"Location": "/pay/7"}},
		"failure":          {"POST", "HTTP/1.1 500 Oops\nContent-Length: 4\n\noops", 500, "oops", nil},
		"gzip":             {"POST", "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: " + fmt.Sprint(len(zipped("hello"))) + "\n\n" + zipped("hello"), 200, zipped("hello"), map[string]string{"Content-Encoding": "gzip"}},
		"early hints":      {"POST", "HTTP/1.1 103 Early Hints\nLink: </x>; rel=preload\n\n" + created, 201, "created", nil},
		"a patch":          {"PATCH", created, 201, "created", nil},
		"a large answer":   {"POST", "HTTP/1.1 200 OK\nContent-Length: 300000\n\n" + strings.Repeat("x", 300_000), 200, strings.Repeat("x", 300_000), nil},
		"connection: x":    {"POST", "HTTP/1.1 200 OK\nConnection: X-Hop\nX-Hop: 1\nContent-Length: 2\n\nok", 200, "ok", map[string]string{"X-Hop": ""}},
		"announces an end": {"POST", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 2\n\nok", 200, "ok", nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
				say(c, "%s", strings.ReplaceAll(tc.reply, "\n", "\r\n"))
				return !strings.HasPrefix(tc.reply, "HTTP/1.0") && !strings.Contains(tc.reply, "close")
			})
			d := open(t, w.url, nil)
			for i := range 2 {
				a := d.ask(t, tc.method, "/pay", "k", "amount=100")
				if a.status != tc.status || a.body != tc.body || a.err != nil {
					t.Fatalf("request %d: got %.300v\nwant %d %.300q\n%s", i+1, a, tc.status, tc.body, d.logs)
				}
				for name, want := range tc.header {
					if got := a.header.Get(name); got != want {
						t.Errorf("request %d: %s: got %q, want %q", i+1, name, got, want)
					}
				}
				if replayed := a.header.Get("Idempotent-Replayed") == "true"; replayed != (i == 1) {
					t.Errorf("request %d: replayed is %v", i+1, replayed)
				}
			}
			if n := w.runs.Load(); n != 1 {
				t.Errorf("%d runs, want 1", n)
			}
		})
	}
}

func TestTrailersPass(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Checksum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Checksum", "abc")
	}))
	defer service.Close()
	d := open(t, service.URL, nil)
	for i := range 2 {
		a := d.ask(t, "POST", "/", "k", "hello")
		if a.body != "hello" || a.resp.Trailer.Get("Checksum") != "abc" {
			t.Errorf("request %d: got %v with trailer %v, want hello with Checksum: abc", i+1, a, a.resp.Trailer)
		}
	}
}

func TestEarlyHintsPass(t *testing.T) {
	w := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
		say(c, "HTTP/1.1 103 Early Hints\nLink: </x>; rel=preload\n\n"+created)
		return true
	})
	d := open(t, w.url, nil)
	var hint string
	r, err := http.NewRequest("POST", d.url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hint = fmt.Sprint(code, " ", h.Get("Link"))
		return nil
	}}))
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if hint != "103 </x>; rel=preload" || resp.StatusCode != 201 {
		t.Errorf("got hint %q and status %d, want 103 with its link, then 201", hint, resp.StatusCode)
	}
}

// An event stream reaches the client while it is still written.
func TestEventStreamPasses(t *testing.T) {
	more := make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		fmt.Fprint(w, "data: two\n\n")
	}))
	defer service.Close()
	d := open(t, service.URL, nil)
	r, err := http.NewRequest("POST", d.url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	if line, err := in.ReadString('\n'); line != "data: one\n" {
		t.Fatalf("got %q, %v before the stream ended, want its first event", line, err)
	}
	close(more)
	if rest, err := io.ReadAll(in); string(rest) != "\ndata: two\n\n" || err != nil {
		t.Errorf("got %q, %v, want the rest", rest, err)
	}
	if a := d.ask(t, "POST", "/", "k", "x"); a.status != http.StatusGone || a.kind() != semelhttp.ResultGone {
		t.Errorf("the retry got %v, want 410 result-gone", a)
	}
}

// What is not guarded passes as it is, with and without a body.
func TestUnguardedPasses(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q length %d, %d bytes, %v", r.Method, r.URL, r.Header.Get("X-Sent"), r.ContentLength, len(body), err)
	}))
	defer service.Close()
	d := open(t, service.URL+"/base", nil)
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "POST", "PROPFIND"} {
		want := method + ` /base/a%2Fb?x=1;y "yes" length 0, 0 bytes, <nil>`
		if a := d.ask(t, method, "/a%2Fb?x=1;y", "", "", "X-Sent", "yes"); a.body != want {
			t.Errorf("got %v, want %s", a, want)
		}
	}
	large := strings.Repeat("x", 3<<20)
	if a := d.ask(t, "PUT", "/", "", large); !strings.HasSuffix(a.body, fmt.Sprintf("length %d, %[1]d bytes, <nil>", len(large))) {
		t.Errorf("a large PUT: got %v", a)
	}
	if a := d.ask(t, "HEAD", "/", "", ""); a.status != 200 || a.body != "" || a.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: got %v", a)
	}
	r, err := http.NewRequest("POST", d.url, io.MultiReader(strings.NewReader(large))) // of unknown length
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !strings.HasSuffix(string(body), fmt.Sprintf("length -1, %d bytes, <nil>", len(large))) {
		t.Errorf("a chunked POST: got %s", body)
	}
}

// Protocols are switched, and the connection then belongs to both ends.
func TestUpgradePasses(t *testing.T) {
	w := serveWire(t, func(c net.Conn, _ int64, r *http.Request) bool {
		if r.Header.Get("Upgrade") != "echo" {
			say(c, "HTTP/1.1 400 Bad Request\nContent-Length: 0\n\n")
			return false
		}
		say(c, "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: echo\n\n")
		_, _ = io.Copy(c, c)
		return false
	})
	d := open(t, w.url, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(c, "GET /socket HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: echo\n\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v, want 101", resp, err)
	}
	say(c, "hello\n")
	if line, err := in.ReadString('\n'); line != "hello\r\n" {
		t.Errorf("got %q, %v, want the echo", line, err)
	}
}

func TestForwardedHeaders(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %q proto %q", r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
	}))
	defer service.Close()
	forged := []string{"X-Forwarded-For", "9.9.9.9", "X-Forwarded-Proto", "https"}

	d := open(t, service.URL, nil)
	host := strings.TrimPrefix(d.url, "http://")
	if a, want := d.ask(t, "POST", "/", "k", "x", forged...), host+` for "127.0.0.1" proto "http"`; a.body != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
	d = open(t, service.URL, func(c *Config) { c.TrustForwarded, c.UpstreamHost = true, "inner.example" })
	if a, want := d.ask(t, "POST", "/", "k", "x", forged...), `inner.example for "9.9.9.9, 127.0.0.1" proto "https"`; a.body != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
}
