package badinput

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// upstream is a service that counts what reaches it. It answers 201, or what was
// set for a path: raw bytes on the connection, which it then closes.
type upstream struct {
	listener net.Listener
	server   *http.Server
	mu       sync.Mutex
	starts   int
	paths    map[string]int    // starts by path
	bodies   map[string]string // the last one, by path
	raw      map[string]func(net.Conn)
	done     chan struct{}
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveUpstream(t, l)
}

func serveUpstream(t *testing.T, l net.Listener) *upstream {
	u := &upstream{listener: l, paths: make(map[string]int), bodies: make(map[string]string), raw: make(map[string]func(net.Conn)), done: make(chan struct{})}
	u.server = &http.Server{Handler: u}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = u.server.Serve(l)
	}()
	t.Cleanup(func() {
		close(u.done)
		_ = u.server.Close()
		<-ended
	})
	return u
}

func (u *upstream) address() string { return u.listener.Addr().String() }

// answer sets what a path answers, in place of 201.
func (u *upstream) answer(path string, raw func(net.Conn)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.raw[path] = raw
}

// count gives how many requests have reached it, and the last body of a path.
func (u *upstream) count(path string) (starts int, body string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.starts, u.bodies[path]
}

// ran gives how many requests for a path have reached it.
func (u *upstream) ran(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.paths[path]
}

// ServeHTTP counts first: a request whose body then fails has started as well.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.starts++
	u.paths[r.URL.Path]++
	number, raw := u.starts, u.raw[r.URL.Path]
	u.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	u.bodies[r.URL.Path] = string(body)
	u.mu.Unlock()
	if raw == nil {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "run %d", number)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // HTTP/1.1 connections can be taken over
	}
	defer conn.Close()
	raw(conn)
}

// says gives an answer of these bytes, followed by the end of the connection.
func says(parts ...string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, strings.Join(parts, "")) }
}

// resets ends the connection without a goodbye, after these bytes.
func resets(parts ...string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, strings.Join(parts, ""))
		_ = c.(*net.TCPConn).SetLinger(0)
	}
}

// stalls says this and then nothing until the test ends.
func (u *upstream) stalls(parts ...string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, strings.Join(parts, ""))
		<-u.done
	}
}
