package badinput

import (
	"fmt"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

// TestHeads: requests whose line or headers are wrong.
func TestHeads(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	refused, server := want{}, want{status: 400}
	scope := want{400, semelhttp.ScopeRequired, 0, "Authorization"}
	runs := want{status: 201, starts: 1}
	rest := "Host: service\r\nAuthorization: a\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb"
	// Each has the path /heads/N, for which N stands here.
	tests := []struct {
		name, request string
		want          want
	}{
		{"nothing", "", refused},
		{"empty lines", strings.Repeat("\r\n", 10000), refused},
		{"noise", "\x00\xff\x13\x37\r\n\r\n", refused},
		{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", refused},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused},
		{"HTTP/0.9", "POST /heads/N\r\n\r\n", refused},
		{"HTTP/9.9", "POST /heads/N HTTP/9.9\r\n" + rest, want{status: 505}},
		{"a version that is none", "POST /heads/N HTTQ/1.1\r\n" + rest, server},
		{"no version", "POST /heads/N\r\n" + rest, server},
		{"no target", "POST HTTP/1.1\r\n" + rest, server},
		{"a target with a space", "POST /heads/N /b HTTP/1.1\r\n" + rest, server},
		{"a target with a NUL", "POST /heads/N\x00 HTTP/1.1\r\n" + rest, server},
		{"a bad escape in the target", "POST /heads/N/%zz HTTP/1.1\r\n" + rest, server},
		{"a method with a slash", "PO/ST /heads/N HTTP/1.1\r\n" + rest, server},
		{"a tunnel", "CONNECT /heads/N HTTP/1.1\r\n" + rest, refused},
		{"a tunnel to a host", "CONNECT service:80 HTTP/1.1\r\n" + rest, refused},
		{"no Host", "POST /heads/N HTTP/1.1\r\nAuthorization: a\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb", server},
		{"two Hosts", "POST /heads/N HTTP/1.1\r\nHost: a\r\n" + rest, server},
		{"a Host with a space", "POST /heads/N HTTP/1.1\r\nHost: a b\r\nAuthorization: a\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n", server},
		{"a header without a colon", "POST /heads/N HTTP/1.1\r\nnonsense\r\n" + rest, server},
		{"a header without a name", "POST /heads/N HTTP/1.1\r\n: x\r\n" + rest, server},
		{"a name with a NUL", "POST /heads/N HTTP/1.1\r\nX\x00: x\r\n" + rest, server},
		{"a value with a NUL", "POST /heads/N HTTP/1.1\r\nX: \x00\r\n" + rest, server},
		{"100,000 headers", "POST /heads/N HTTP/1.1\r\n" + strings.Repeat("X: x\r\n", 100000) + rest, want{status: 431}},
		{"a head without end", "POST /heads/N HTTP/1.1\r\nX: " + strings.Repeat("x", 200000), want{status: 431}},
		{"a target of 200,000 bytes", "POST /heads/N/" + strings.Repeat("x", 200000) + " HTTP/1.1\r\n" + rest, want{status: 431}},
		{"cut in the line", "POST /he", refused},
		{"cut in the headers", "POST /heads/N HTTP/1.1\r\nHost: service\r\nAuthorization: a\r\nIdempotency-Ke", refused},
		{"cut before the empty line", "POST /heads/N HTTP/1.1\r\nHost: service\r\nAuthorization: a\r\nIdempotency-Key: k\r\n", refused},
		{"an expectation that is none", "POST /heads/N HTTP/1.1\r\nExpect: 200-ok\r\n" + rest, want{status: 417}},
		{"nobody's", "POST /heads/N HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb", scope},
		{"an empty Authorization", "POST /heads/N HTTP/1.1\r\nHost: a\r\nAuthorization:\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb", scope},
		{"two people's", "POST /heads/N HTTP/1.1\r\nAuthorization: b\r\n" + rest, scope},
		{"one person's twice", "POST /heads/N HTTP/1.1\r\nAuthorization: a\r\n" + rest, scope},
		{"sound", "POST /heads/N HTTP/1.1\r\n" + rest, runs},
		{"sound, an absolute target", "POST http://service/heads/N HTTP/1.1\r\n" + rest, runs},
		{"sound, HTTP/1.0", "POST /heads/N HTTP/1.0\r\n" + rest, runs},
		{"a path that climbs", "POST /heads/N/../../optional/x HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nContent-Length: 1\r\n\r\nb", want{status: 201, starts: 1}},
		{"a path that climbs out of it", "POST /optional/../heads/N HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nContent-Length: 1\r\n\r\nb", want{400, semelhttp.KeyRequired, 0, ""}},
		{"an escaped path that climbs out of it", "POST /optional/%2e%2e/heads/N HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nContent-Length: 1\r\n\r\nb", want{400, semelhttp.KeyRequired, 0, ""}},
		{"an escaped slash", "POST /optional%2f..%2fheads/N HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nContent-Length: 1\r\n\r\nb", want{400, semelhttp.KeyRequired, 0, ""}},
		{"no key where none is needed", "POST /optional/N HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb", runs},
		{"a bad key where none is needed", "POST /optional/N HTTP/1.1\r\nIdempotency-Key: ,\r\nHost: a\r\nContent-Length: 1\r\n\r\nb", want{400, semelhttp.KeyInvalid, 0, ""}},
	}
	for i, test := range tests {
		path := fmt.Sprintf("/heads/%d", i)
		request := strings.ReplaceAll(test.request, "/heads/N", path)
		// Half closing tells that nothing more comes; it also is how a client leaves.
		ends := test.want.starts == 0
		g.try(t, trial{test.name, path, []byte(request), ends, test.want})
	}
	g.works(t, "after all of them", "/heads/after", "k", "body")
	t.Logf("%d heads", len(tests))
}

// TestSmuggling: two requests in one. Whatever the gateway takes for the first
// one's end, the service must take for it, too.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	inner := "POST /smuggled HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nIdempotency-Key: s\r\nContent-Length: 1\r\n\r\nb"
	both := fmt.Sprintf("Content-Length: %d", 5+len(inner))
	tests := []struct {
		name  string
		lines []string
		body  string
	}{
		{"a length and chunks", []string{both, "Transfer-Encoding: chunked"}, "0\r\n\r\n" + inner},
		{"chunks and a length", []string{"Transfer-Encoding: chunked", both}, "0\r\n\r\n" + inner},
		{"a length of 0 and chunks", []string{"Content-Length: 0", "Transfer-Encoding: chunked"}, chunks(inner)},
		{"chunked with a tab", []string{both, "Transfer-Encoding:\tchunked"}, "0\r\n\r\n" + inner},
		{"chunked in capitals", []string{both, "Transfer-Encoding: CHUNKED"}, "0\r\n\r\n" + inner},
		{"chunked with a space before the colon", []string{both, "Transfer-Encoding : chunked"}, "0\r\n\r\n" + inner},
		{"chunked with a form feed", []string{both, "Transfer-Encoding: \x0cchunked"}, "0\r\n\r\n" + inner},
		{"an unknown coding", []string{both, "Transfer-Encoding: xchunked"}, "0\r\n\r\n" + inner},
	}
	for i, test := range tests {
		path := fmt.Sprintf("/smuggling/%d", i)
		before, _ := g.upstream.count("")
		got, _ := exchange(g.address, framed(path, "k", append(test.lines, "Connection: close"), test.body), true)
		after, body := g.upstream.count(path)
		if _, smuggled := g.upstream.count("/smuggled"); smuggled != "" || after-before > 1 {
			t.Fatalf("%s: the request within was taken for one of its own; answer %v", test.name, got)
		}
		// If it ran, the service has got exactly what the chunks say.
		want := ""
		if strings.HasSuffix(test.body, "0\r\n\r\n") {
			want = inner
		}
		if after > before && (got.status != 201 || body != want) {
			t.Errorf("%s: the service got %q, want %q; answer %v", test.name, body, want, got)
		}
		if after == before && got.status/100 != 4 && got.status/100 != 5 {
			t.Errorf("%s: nothing ran, and the answer is %v", test.name, got)
		}
	}
	g.works(t, "after all of them", "/smuggling/after", "k", "body")
}

// TestTenants: another tenant's key is a key like any other.
func TestTenants(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	send := func(tenant, body string) []byte {
		return []byte(fmt.Sprintf("POST /tenants HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nIdempotency-Key: shared\r\nContent-Length: %d\r\n\r\n%s", tenant, len(body), body))
	}
	runs := want{status: 201, starts: 1}
	mine := g.try(t, trial{name: "the first tenant", request: send("alice", "mine"), want: runs})
	for _, tenant := range []string{"bob", "Alice", "alice2", "Bearer alice", "alice,bob", `"alice"`, "ALICE", "alic", strings.Repeat("a", 10000)} {
		for range 2 { // the second time it is that tenant's own answer
			got := g.try(t, trial{name: "tenant " + tenant, request: send(tenant, "mine"), want: runs})
			if got.body == mine.body {
				t.Errorf("the tenant %.20q was given alice's answer %q", tenant, mine.body)
			}
			runs.starts = 0
		}
		runs.starts = 1
		g.try(t, trial{name: "tenant " + tenant, request: send(tenant, "other"), want: want{status: 422, kind: semelhttp.PayloadMismatch}})
	}
	again := g.try(t, trial{name: "the first tenant again", request: send("alice", "mine"), want: want{status: 201}})
	if again.body != mine.body || !again.replayed {
		t.Errorf("alice was given %v, want %v", again, mine)
	}
}
