package gateway

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/semelhttp"
)

// notStarted checks that the client was told that nothing happened.
func notStarted(t *testing.T, d *door, a answer) {
	t.Helper()
	if a.status != http.StatusBadGateway || a.kind() != semelhttp.UpstreamUnreachable || !strings.Contains(a.body, `"retryable":true`) {
		t.Errorf("got %v, want a retryable 502 upstream-unreachable\n%s", a, d.logs)
	}
	if a.header.Get(semelhttp.OutcomeHeader) != "" {
		t.Errorf("the header %s left the gateway", semelhttp.OutcomeHeader)
	}
}

func TestUpstreamDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	d := open(t, "http://"+address, nil)
	for key, body := range map[string]string{"k": "amount=1", "empty": "", "large": strings.Repeat("x", inlineBody+1)} {
		notStarted(t, d, d.ask(t, "POST", "/pay", key, body))
		a := d.ask(t, "GET", "/", "", "")
		if a.status != http.StatusBadGateway || a.kind() != semelhttp.UpstreamUnreachable {
			t.Errorf("GET: got %v, want 502 upstream-unreachable", a)
		}
	}

	// The key is free: once the upstream is there, the same request runs.
	back, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	runs := 0
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		w.WriteHeader(http.StatusCreated)
	})}
	go func() { _ = server.Serve(back) }()
	defer server.Close()
	for range 2 {
		if a := d.ask(t, "POST", "/pay", "k", "amount=1"); a.status != http.StatusCreated {
			t.Errorf("got %v, want 201", a)
		}
	}
	if runs != 1 {
		t.Errorf("%d runs, want 1", runs)
	}
}

func TestUpstreamWithoutName(t *testing.T) {
	d := open(t, "http://nobody.invalid:1", nil)
	notStarted(t, d, d.ask(t, "POST", "/pay", "k", "x"))
}

func TestUpstreamWithoutTLS(t *testing.T) {
	w := serveWire(t, func(net.Conn, int64, *http.Request) bool { return false })
	d := open(t, "https://"+w.address, nil)
	notStarted(t, d, d.ask(t, "POST", "/pay", "k", "x"))
}

// An idle connection that the upstream closed is noticed before anything is
// sent on it, so the request is sent on another and nobody notices.
func TestIdleConnectionClosed(t *testing.T) {
	for name, end := range map[string]func(net.Conn){"closed": func(c net.Conn) { _ = c.Close() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			first := make(chan net.Conn, 1)
			w := serveWire(t, func(c net.Conn, run int64, _ *http.Request) bool {
				if run == 1 {
					first <- c
				}
				say(c, created)
				return true
			})
			d := open(t, w.url, nil)
			d.ask(t, "POST", "/a", "a", "x")
			end(<-first)
			if a := d.ask(t, "POST", "/b", "b", "x"); a.status != http.StatusCreated {
				t.Errorf("got %v, want 201\n%s", a, d.logs)
			}
			if n := w.connected.Load(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// The same if it is noticed only by the write: it took nothing.
func TestIdleConnectionTakesNothing(t *testing.T) {
	w := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
		say(c, created)
		return true
	})
	d := open(t, w.url, nil)
	d.ask(t, "POST", "/a", "a", "x")
	d.sender.pool.mu.Lock()
	if len(d.sender.pool.idle) != 1 {
		t.Fatalf("%d idle connections, want 1", len(d.sender.pool.idle))
	}
	idle := d.sender.pool.idle[0]
	idle.Conn = refusing{idle.Conn}
	d.sender.pool.mu.Unlock()
	if a := d.ask(t, "POST", "/b", "b", "x"); a.status != http.StatusCreated {
		t.Errorf("got %v, want 201\n%s", a, d.logs)
	}
	if n, m := w.connected.Load(), w.runs.Load(); n != 2 || m != 2 {
		t.Errorf("%d connections and %d runs, want 2 and 2", n, m)
	}
}

// refusing is a connection whose writes fail before a byte has left.
type refusing struct{ net.Conn }

func (refusing) Write([]byte) (int, error) { return 0, net.ErrClosed }

// A connection that has been idle for long is not used again: its server may be
// about to close it.
func TestIdleConnectionTooOld(t *testing.T) {
	w := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
		say(c, created)
		return true
	})
	d := open(t, w.url, nil)
	d.ask(t, "POST", "/a", "a", "x")
	p := d.sender.pool
	p.mu.Lock()
	p.idle[0].idle = time.Now().Add(-2 * idleLimit)
	p.mu.Unlock()
	d.ask(t, "POST", "/b", "b", "x")
	if n := w.connected.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	p.mu.Lock()
	p.idle[0].idle = time.Now().Add(-2 * idleLimit)
	p.mu.Unlock()
	p.trim()
	if n := len(p.idle); n != 0 {
		t.Errorf("%d idle connections after trimming, want 0", n)
	}
}

// A server that refuses a body answers before it has read it, and that is an
// answer.
func TestAnswerBeforeBody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			say(c, "HTTP/1.1 413 Too Large\nContent-Length: 3\nConnection: close\n\nbig")
			defer c.Close() // not before the test ends: whoever waits for it, waits
		}
	}()
	d := open(t, "http://"+l.Addr().String(), func(c *Config) { c.Routes[0].Options.MaxBody = 64 << 20 })
	body := strings.Repeat("x", 32<<20)
	for range 2 {
		if a := d.ask(t, "POST", "/pay", "k", body); a.status != http.StatusRequestEntityTooLarge || a.body != "big" {
			t.Errorf("got %.200v, want the upstream's 413\n%s", a, d.logs)
		}
	}
}
