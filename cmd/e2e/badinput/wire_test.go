package badinput

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel/semelhttp"
)

// bad counts the bad inputs, for the record.
var bad atomic.Int64

// patience bounds what should take milliseconds.
const patience = 30 * time.Second

// answer is what came back. status is 0 if nothing did.
type answer struct {
	status   int
	kind     semelhttp.ProblemKind
	body     string
	replayed bool
	after    string // Retry-After
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s, replayed %v, %.300q", a.status, a.kind, a.replayed, a.body)
}

// exchange writes the bytes to a new connection and reads one answer. After the
// last byte the connection is half closed if ends is set: for the gateway the
// request then is over, whether it is whole or not.
func exchange(address string, request []byte, ends bool) (answer, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	go func() {
		// The gateway may answer and close before it has read everything.
		_, err := conn.Write(request)
		if err == nil && ends {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	for err == nil && resp.StatusCode < 200 { // there is more to come
		resp, err = http.ReadResponse(reader, nil)
	}
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	a := answer{status: resp.StatusCode, body: string(body), replayed: resp.Header.Get("Idempotent-Replayed") == "true", after: resp.Header.Get("Retry-After")}
	if p, ok := semelhttp.ReadProblem(resp); ok {
		a.kind = p.Kind()
		if p.Status != resp.StatusCode {
			return a, fmt.Errorf("the problem's status %d is not that of the answer, %d", p.Status, resp.StatusCode)
		}
	}
	return a, nil
}

// head begins a request: request line and the headers that all have.
func head(method, path string, lines ...string) string {
	all := append([]string{method + " " + path + " HTTP/1.1", "Host: service", "Authorization: " + canary}, lines...)
	return strings.Join(all, "\r\n") + "\r\n"
}

// post is a whole and proper request, as far as the given header lines are.
func post(path, body string, lines ...string) []byte {
	return []byte(head("POST", path, append(lines, fmt.Sprintf("Content-Length: %d", len(body)))...) + "\r\n" + body)
}

// trial is one bad input.
type trial struct {
	name    string
	path    string
	request []byte
	ends    bool // the connection, after the request
	want    want
}

// want is the expected answer. A status without a kind is an answer of the HTTP
// server itself. Status 0 is any refusal by it, or a connection that it closes.
type want struct {
	status int
	kind   semelhttp.ProblemKind
	starts int
	text   string // part of the body
}

// try sends a bad input and compares.
func (g *gateway) try(t *testing.T, c trial) answer {
	t.Helper()
	if c.want.status == 0 || c.want.status >= 400 {
		bad.Add(1)
	}
	before, _ := g.upstream.count("")
	got, err := exchange(g.address, c.request, c.ends)
	after, _ := g.upstream.count("")
	switch {
	case c.want.status == 0 && err == nil && (got.status < 400 || got.status > 599):
		t.Errorf("%s: got %v, want a refusal", c.name, got)
	case c.want.status == 0:
	case err != nil:
		t.Errorf("%s: no answer that can be read: %v, want %+v", c.name, err, c.want)
	case got.status != c.want.status || got.kind != c.want.kind || !strings.Contains(got.body, c.want.text):
		t.Errorf("%s: got %v, want %+v; sent %.200q", c.name, got, c.want, c.request)
	}
	if after-before != c.want.starts {
		t.Errorf("%s: started %d times, want %d; sent %.200q", c.name, after-before, c.want.starts, c.request)
	}
	if got.kind != "" && (got.kind != semelhttp.OutcomeUnknownKind && len(got.body) > 2000 || strings.Contains(got.body, canary)) {
		t.Errorf("%s: the refusal repeats what the client sent: %.300q", c.name, got.body)
	}
	return got
}

// works sends a proper request with this key to the path and wants it to run
// once and to be replayed once: what was refused before has left nothing behind.
func (g *gateway) works(t *testing.T, name, path, key, body string, lines ...string) {
	t.Helper()
	request := post(path, body, append(lines, "Idempotency-Key: "+key)...)
	first := g.try(t, trial{name: name + ", then sent properly", path: path, request: request, want: want{status: 201, starts: 1}})
	again := g.try(t, trial{name: name + ", then sent properly twice", path: path, request: request, want: want{status: 201}})
	if first.replayed || !again.replayed || first.body != again.body {
		t.Errorf("%s: sent properly and twice: got %v and %v", name, first, again)
	}
	if _, got := g.upstream.count(path); got != body {
		t.Errorf("%s: the service got the body %.100q, want %.100q", name, got, body)
	}
}
