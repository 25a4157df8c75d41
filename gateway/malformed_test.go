package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

// TestStatusBelow100: net/http reads a status such as 099 and panics when it is
// to be written. It is no answer, so nobody knows what happened.
func TestStatusBelow100(t *testing.T) {
	up := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
		say(c, "HTTP/1.1 099 What\nContent-Length: 0\n\n")
		return false
	})
	d := open(t, up.url, nil)
	for range 2 {
		if a := d.ask(t, "POST", "/", "k", "body"); a.status != 409 || a.kind() != semelhttp.OutcomeUnknownKind {
			t.Errorf("got %v, want 409 outcome-unknown", a)
		}
	}
	for _, method := range []string{"GET", "PUT"} {
		if a := d.ask(t, method, "/", "", ""); a.status != 502 {
			t.Errorf("%s: got %v, want 502", method, a)
		}
	}
	if strings.Contains(d.logs.String(), "panic") {
		t.Errorf("the gateway panicked: %s", d.logs)
	}
}

// TestPrefaceIsRefused: to net/http the first line of HTTP/2 is a request. It is
// no one's, and is not passed on as one.
func TestPrefaceIsRefused(t *testing.T) {
	up := serveWire(t, func(c net.Conn, _ int64, _ *http.Request) bool {
		say(c, "HTTP/1.1 200 OK\nContent-Length: 0\n\n")
		return true
	})
	d := open(t, up.url, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusHTTPVersionNotSupported || up.runs.Load() != 0 {
		t.Errorf("got %s, and the upstream got %d requests; want 505 and none", resp.Status, up.runs.Load())
	}
}
