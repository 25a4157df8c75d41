package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// logs is a writer that can be read meanwhile.
type logs struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// door is a gateway under test, served on a port of its own.
type door struct {
	*Gateway
	url  string
	logs *logs
}

// open serves a gateway in front of upstream. change may be nil.
func open(t testing.TB, upstream string, change func(*Config)) *door {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{logs: new(logs)}
	level := slog.LevelDebug
	if _, measuring := t.(*testing.B); measuring {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(d.logs, &slog.HandlerOptions{Level: level}))
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{Observe: Observe(log)})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Upstream: u, Guard: guard, Logger: log, Routes: []Route{{Match: "*", Options: semelhttp.Options{Scope: semelhttp.SharedScope()}}}}
	if change != nil {
		change(&c)
	}
	if d.Gateway, err = New(c); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d)
	d.url = server.URL
	t.Cleanup(func() {
		server.Close()
		d.sender.pool.close()
		for _, transport := range d.safe {
			transport.CloseIdleConnections()
		}
	})
	return d
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
	resp   *http.Response
}

func (a answer) String() string { return fmt.Sprintf("%d %v %q %v", a.status, a.header, a.body, a.err) }

// kind is the problem's kind, if the answer is one.
func (a answer) kind() semelhttp.ProblemKind {
	resp := &http.Response{Header: a.header, StatusCode: a.status, Body: io.NopCloser(strings.NewReader(a.body))}
	p, ok := semelhttp.ReadProblem(resp)
	if !ok {
		return ""
	}
	return p.Kind()
}

// ask sends one request on a connection of its own, so that nothing but the
// gateway can send it again.
func (d *door) ask(t *testing.T, method, path, key, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := client.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, d.logs)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(all), err, resp}
}

// wire is an upstream that does with its connections what it likes.
type wire struct {
	url       string
	address   string
	runs      atomic.Int64 // requests that were read whole
	connected atomic.Int64
}

// serveWire answers each request that was read whole with reply, which gets
// the number of the request and says whether the connection goes on.
func serveWire(t *testing.T, reply func(c net.Conn, run int64, r *http.Request) bool) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), url: "http://" + l.Addr().String()}
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.connected.Add(1)
			serving.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				w.converse(c, reply)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		stop()
		serving.Wait()
	})
	return w
}

func (w *wire) converse(c net.Conn, reply func(net.Conn, int64, *http.Request) bool) {
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if !reply(c, w.runs.Add(1), r) {
			return
		}
	}
}

// say writes an answer as it stands.
func say(c net.Conn, format string, args ...any) {
	_, _ = fmt.Fprintf(c, strings.ReplaceAll(format, "\n", "\r\n"), args...)
}

const created = "HTTP/1.1 201 Created\nContent-Type: text/plain\nContent-Length: 7\n\ncreated"

// reset closes a connection so that its peer sees a reset.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// unknown checks that the client was told that nobody knows, that asking again
// tells the same, and that the upstream ran it once.
func unknown(t *testing.T, d *door, w *wire, before int64, method, body string) {
	t.Helper()
	for i := range 3 {
		a := d.ask(t, method, "/pay", "k", body)
		if a.status != http.StatusConflict || a.kind() != semelhttp.OutcomeUnknownKind {
			t.Errorf("request %d: got %v, want 409 outcome-unknown", i+1, a)
		}
		if a.header.Get(semelhttp.OutcomeHeader) != "" {
			t.Errorf("request %d: the header %s left the gateway", i+1, semelhttp.OutcomeHeader)
		}
	}
	if n := w.runs.Load() - before; n != 1 {
		t.Errorf("the upstream ran it %d times, want once\n%s", n, d.logs)
	}
}

func TestFieldBug07_ReusedConnectionBreaks(t *testing.T) {
	bodies := map[string]string{
		"with a body": "amount=100", "without a body": "", "with a body that is written apart": strings.Repeat("x", inlineBody+1),
	}
	for name, body := range bodies {
		for _, ending := range []string{"closed", "reset"} {
			t.Run(name+", "+ending, func(t *testing.T) {
				w := serveWire(t, func(c net.Conn, run int64, _ *http.Request) bool {
					if run == 1 {
						say(c, created)
						return true
					}
					if ending == "reset" {
						reset(c)
					}
					return false
				})
				d := open(t, w.url, nil)
				if a := d.ask(t, "POST", "/warm", "w", "x"); a.status != 201 {
					t.Fatalf("got %v, want 201", a)
				}
				unknown(t, d, w, 1, "POST", body)
				if n := w.connected.Load(); n != 1 {
					t.Errorf("%d connections, want 1: the second request was to be sent on the first's connection, and nothing after it", n)
				}
			})
		}
	}
}

// A method that is not guarded may have an effect as well, and has the header
// that makes net/http send it again.
func TestFieldBug07_UnguardedMethod(t *testing.T) {
	w := serveWire(t, func(c net.Conn, run int64, _ *http.Request) bool {
		if run == 1 {
			say(c, created)
		}
		return run == 1
	})
	d := open(t, w.url, nil)
	d.ask(t, "DELETE", "/warm", "w", "")
	a := d.ask(t, "DELETE", "/thing", "k", "")
	if a.status != http.StatusBadGateway || a.header.Get(semelhttp.OutcomeHeader) != semelhttp.OutcomeUnknown {
		t.Errorf("got %v, want 502 and %s: unknown", a, semelhttp.OutcomeHeader)
	}
	if n := w.runs.Load(); n != 2 {
		t.Errorf("the upstream ran %d requests, want 2", n)
	}
}

func TestOutcomeUnknown(t *testing.T) {
	cases := map[string]func(c net.Conn){
		"closed without an answer":    func(net.Conn) {},
		"reset without an answer":     reset,
		"closed within the head":      func(c net.Conn) { say(c, "HTTP/1.1 201 Created\nContent-Le") },
		"garbage":                     func(c net.Conn) { say(c, "\x00\x01\x02 what?\n\n") },
		"another protocol":            func(c net.Conn) { say(c, "220 mail.example.com ESMTP\n") },
		"a head without end":          func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nX: %s", strings.Repeat("x", 2<<20)) },
		"many interim answers":        func(c net.Conn) { say(c, "%s", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1<<16)) },
		"contradicting lengths":       func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 4\n\nabcd") },
		"truncated body":              func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nContent-Length: 100\n\nonly this") },
		"truncated body, reset":       func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nContent-Length: 100\n\nonly this"); reset(c) },
		"truncated chunks":            func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n") },
		"garbage for a chunk":         func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\nhello\n") },
		"switched protocols":          func(c net.Conn) { say(c, "HTTP/1.1 101 Switching Protocols\nUpgrade: x\nConnection: Upgrade\n\n") },
		"silent":                      func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"silent within the body":      func(c net.Conn) { say(c, "HTTP/1.1 200 OK\nContent-Length: 9\n\nhalf"); _, _ = c.Read(make([]byte, 1)) },
		"the upstream says that much": func(c net.Conn) { say(c, "HTTP/1.1 500 Oops\nSemel-Outcome: unknown\nContent-Length: 0\n\n") },
	}
	for name, reply := range cases {
		t.Run(name, func(t *testing.T) {
			w := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
				reply(c)
				return false
			})
			d := open(t, w.url, func(c *Config) { c.Routes[0].Silence = 100 * time.Millisecond })
			unknown(t, d, w, 0, "POST", "amount=100")
		})
	}
}
