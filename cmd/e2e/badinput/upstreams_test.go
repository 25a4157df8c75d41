package badinput

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/semelhttp"
)

// TestUpstreams: services that do not answer as they should, once they have been
// sent the request. Nobody then knows whether they acted, so it is said, and
// said again, and nothing is sent a second time.
func TestUpstreams(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	ok := "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name, route string
		answer      func(net.Conn)
	}{
		{"closes at once", "u", says()},
		{"resets", "u", resets()},
		{"resets after a part of its head", "u", resets("HTTP/1.1 2")},
		{"resets in its body", "u", resets(ok, "Content-Length: 10\r\n\r\nshort")},
		{"garbage", "u", says("\x00\x01\x02 garbage\r\n\r\n")},
		{"an endless line", "u", says(strings.Repeat("x", 2<<20))},
		{"another protocol", "u", says("220 mail.example.org ESMTP\r\n")},
		{"a TLS alert", "u", says("\x15\x03\x01\x00\x02\x02\x16")},
		{"a head without end", "u", says(ok, "X: x\r\n")},
		{"too many headers", "u", says(ok, strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 2000), "\r\n")},
		{"a header without a colon", "u", says(ok, "nonsense\r\n\r\n")},
		{"a status that is no number", "u", says("HTTP/1.1 OK OK\r\n\r\n")},
		{"a status of two digits", "u", says("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n")},
		{"a status of four digits", "u", says("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n")},
		{"a status below 100", "u", says("HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n")},
		{"a negative status", "u", says("HTTP/1.1 -20 What\r\nContent-Length: 0\r\n\r\n")},
		{"interim answers only", "u", says(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5))},
		{"interim answers without end", "u", says(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100000))},
		{"a switch that nobody asked for", "u", says("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")},
		{"a body that is cut short", "u", says(ok, "Content-Length: 100\r\n\r\nshort")},
		{"two lengths", "u", says(ok, "Content-Length: 1\r\nContent-Length: 2\r\n\r\nbb")},
		{"a negative length", "u", says(ok, "Content-Length: -1\r\n\r\nb")},
		{"a length of 30 digits", "u", says(ok, "Content-Length: ", strings.Repeat("9", 30), "\r\n\r\nb")},
		{"chunks that are cut short", "u", says(ok, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")},
		{"a chunk that is no chunk", "u", says(ok, "Transfer-Encoding: chunked\r\n\r\nz\r\nhello\r\n0\r\n\r\n")},
		{"an unknown coding", "u", says(ok, "Transfer-Encoding: gzip\r\n\r\nhello")},
		{"says nothing for too long", "slow", g.upstream.stalls()},
		{"says half a head and stops", "slow", g.upstream.stalls(ok, "X: ")},
		{"says half a body and stops", "slow", g.upstream.stalls(ok, "Content-Length: 10\r\n\r\nhalf")},
	}
	unknown := want{status: 409, kind: semelhttp.OutcomeUnknownKind, starts: 1}
	for i, test := range tests {
		path := fmt.Sprintf("/%s/%d", test.route, i)
		g.upstream.answer(path, test.answer)
		request := post(path, canary, "Idempotency-Key: k")
		first := g.try(t, trial{test.name, path, request, false, unknown})
		g.upstream.answer(path, nil) // it is well again, which changes nothing for this key
		again := g.try(t, trial{test.name + ", asked again", path, request, false, want{status: 409, kind: semelhttp.OutcomeUnknownKind}})
		if first.body != again.body {
			t.Errorf("%s: answered %v and then %v", test.name, first, again)
		}
		g.try(t, trial{test.name + ", another body", path, post(path, "other", "Idempotency-Key: k"), false, want{status: 422, kind: semelhttp.PayloadMismatch}})
	}
	g.works(t, "after all of them", "/u/after", "k", "body")
	t.Logf("%d services", len(tests))
}

// TestOddUpstreams: services that answer strangely, and answer. The answer is
// kept like any other.
func TestOddUpstreams(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	second := "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	tests := []struct {
		name, route string
		answer      func(net.Conn)
		status      int
		body        string
	}{
		{"ends its body by closing", "u", says("HTTP/1.1 200 OK\r\n\r\nuntil the end"), 200, "until the end"},
		{"speaks HTTP/1.0", "u", says("HTTP/1.0 200 OK\r\n\r\nold"), 200, "old"},
		{"an error", "u", says("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops"), 500, "oops"},
		{"an error of a gateway", "u", says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops"), 502, "oops"},
		{"a status that nobody knows", "u", says("HTTP/1.1 299 What\r\nContent-Length: 4\r\n\r\nwhat"), 299, "what"},
		{"a status of 999", "u", says("HTTP/1.1 999 What\r\nContent-Length: 4\r\n\r\nwhat"), 999, "what"},
		{"no reason", "u", says("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"), 200, "ok"},
		{"interim answers first", "u", says("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), 200, "ok"},
		{"a body where there is none", "u", says("HTTP/1.1 204 No Content\r\n\r\nbody"), 204, ""},
		{"more than its length", "u", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", second), 200, "ok"},
		{"an answer to the next request", "u", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", strings.Repeat(second, 100)), 200, "ok"},
		{"a length and chunks", "u", says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", chunks("ok")), 200, "ok"},
		{"says that it is zipped", "u", says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno"), 200, "no"},
		{"resets after its answer", "u", resets("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), 200, "ok"},
	}
	for i, test := range tests {
		path := fmt.Sprintf("/%s/odd/%d", test.route, i)
		closed := make(chan struct{})
		g.upstream.answer(path, func(c net.Conn) {
			test.answer(c)
			_ = c.Close()
			close(closed)
		})
		request := post(path, canary, "Idempotency-Key: k")
		first := g.try(t, trial{test.name, path, request, false, want{status: test.status, starts: 1}})
		<-closed // else the next request could be sent into a connection that is being closed
		again := g.try(t, trial{test.name + ", asked again", path, request, false, want{status: test.status}})
		if first.replayed || !again.replayed || first.body != test.body || again.body != test.body {
			t.Errorf("%s: got %v and %v, want the body %q", test.name, first, again, test.body)
		}
		g.works(t, "after a service that has "+test.name, path+"/after", "k", "body")
	}

	// What is too long to keep is passed on, and remembered as done.
	long := strings.Repeat("l", 5000)
	g.upstream.answer("/small/long", says("HTTP/1.1 201 Created\r\nContent-Length: 5000\r\n\r\n", long))
	request := post("/small/long", canary, "Idempotency-Key: k")
	first := g.try(t, trial{"an answer that is too long to keep", "/small/long", request, false, want{status: 201, starts: 1}})
	if first.body != long {
		t.Errorf("an answer that is too long to keep: got %d bytes of it, want %d", len(first.body), len(long))
	}
	g.try(t, trial{"an answer that is too long to keep, asked again", "/small/long", request, false, want{410, semelhttp.ResultGone, 0, `"original_status":201`}})
}

// TestUpstreamIsDown: as long as nothing was sent the key is free, and once the
// service is there the operation runs, once.
func TestUpstreamIsDown(t *testing.T) {
	t.Parallel()
	address, err := program.Address()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{upstream: newUpstream(t)} // to count with
	g.start(t, exec.Command(built(t), "gateway", "--upstream", "http://"+address, "--require", "--store", "sqlite:"+filepath.Join(t.TempDir(), "semel.db")))
	down := want{status: 502, kind: semelhttp.UpstreamUnreachable}
	for _, key := range []string{"a", "b", "a", "b", "a"} {
		g.try(t, trial{name: "the upstream is down", request: post("/down", "body", "Idempotency-Key: "+key), want: down})
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g.upstream = serveUpstream(t, l)
	g.works(t, "the upstream is back", "/down", "a", "body")
	// The key is free for its operation. Another body is another operation.
	g.try(t, trial{name: "the upstream is back, another body", request: post("/down", "other", "Idempotency-Key: b"), want: want{status: 422, kind: semelhttp.PayloadMismatch}})
	g.works(t, "the upstream is back", "/down", "b", "body")
}
