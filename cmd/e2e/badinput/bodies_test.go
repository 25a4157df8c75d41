package badinput

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

const cap1 = 1 << 20 // bytes: the default cap of a body

// chunks writes each part as a chunk, and the last one.
func chunks(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
	}
	return b.String() + "0\r\n\r\n"
}

// framed is a request with a key whose body is framed by these lines.
func framed(path, key string, lines []string, body string) []byte {
	return []byte(head("POST", path, append(lines, "Idempotency-Key: "+key)...) + "\r\n" + body)
}

func zipped(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(body))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBodies: a body that is refused leaves its key free: sent again, properly,
// it runs once.
func TestBodies(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	chunked := []string{"Transfer-Encoding: chunked"}
	length := func(n any) []string { return []string{fmt.Sprintf("Content-Length: %v", n)} }
	unreadable := want{status: 400, kind: semelhttp.BodyUnreadable}
	tooLarge := want{status: 413, kind: semelhttp.BodyTooLarge}
	server := want{status: 400}
	runs := want{status: 201, starts: 1}
	mib := strings.Repeat("b", cap1)
	tests := []struct {
		name  string
		lines []string
		body  string
		want  want
	}{
		{"none", nil, "", runs},
		{"empty", length(0), "", runs},
		{"at the cap", length(cap1), mib, runs},
		{"at the cap, chunked", chunked, chunks(mib[:1000], mib[1000:]), runs},
		{"over the cap", length(cap1 + 1), mib + "b", tooLarge},
		{"over the cap, chunked", chunked, chunks(mib, "b"), tooLarge},
		{"over the cap, one byte at a time", chunked, strings.Repeat("1\r\nb\r\n", cap1+1) + "0\r\n\r\n", tooLarge},
		{"far over the cap", length(50 << 20), mib, tooLarge},
		{"the longest length", length("9223372036854775807"), "b", tooLarge},
		{"a longer length", length("9223372036854775808"), "b", server},
		{"a length of 30 digits", length(strings.Repeat("9", 30)), "b", server},
		{"a negative length", length(-1), "b", server},
		{"a length with a sign", length("+1"), "b", server},
		{"a hexadecimal length", length("0x1"), "b", server},
		{"an empty length", length(""), "b", server},
		{"a length with a fraction", length("1.0"), "b", server},
		{"two lengths", []string{"Content-Length: 1", "Content-Length: 2"}, "bb", server},
		{"a list of lengths", length("1, 2"), "bb", server},
		{"an unknown coding", []string{"Transfer-Encoding: gzip, chunked"}, chunks("b"), want{status: 501}},
		{"identity coding", []string{"Transfer-Encoding: identity"}, "b", want{status: 501}},
		{"chunked twice", []string{"Transfer-Encoding: chunked, chunked"}, chunks("b"), want{status: 501}},
		{"chunked on two lines", []string{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked"}, chunks("b"), want{status: 501}},
		{"cut short", length(100), "b", unreadable},
		{"cut at the last byte", length(2), "b", unreadable},
		{"cut at once", length(2), "", unreadable},
		{"chunked, cut at once", chunked, "", unreadable},
		{"chunked, cut in the size", chunked, "1", unreadable},
		{"chunked, cut in the data", chunked, "5\r\nbb", unreadable},
		{"chunked, cut after the data", chunked, "1\r\nb", unreadable},
		{"chunked, without the last chunk", chunked, "1\r\nb\r\n", unreadable},
		{"chunked, cut in the last chunk", chunked, "1\r\nb\r\n0\r\n", unreadable},
		{"chunked, a size that is too small", chunked, "1\r\nbb\r\n0\r\n\r\n", unreadable},
		{"chunked, a size that is too large", chunked, "3\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, a size that is no number", chunked, "z\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, a negative size", chunked, "-1\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, an empty size", chunked, "\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, a size with 0x", chunked, "0x1\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, a size of 17 digits", chunked, "10000000000000001\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, a size of 16 digits", chunked, "ffffffffffffffff\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, an endless size", chunked, strings.Repeat("0", 10000) + "1\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, an endless extension", chunked, "1;" + strings.Repeat("x", 10000) + "\r\nb\r\n0\r\n\r\n", unreadable},
		{"chunked, extensions without end", chunked, strings.Repeat("1;"+strings.Repeat("x", 4000)+"\r\nb\r\n", 20) + "0\r\n\r\n", unreadable},
		{"chunked, a trailer that is none", chunked, "1\r\nb\r\n0\r\nnonsense\r\n\r\n", unreadable},
	}
	for i, test := range tests {
		path, key := fmt.Sprintf("/bodies/%d", i), fmt.Sprintf("body-%d", i)
		// Half closing ends a body that is not whole; it also is how a client leaves.
		ends := test.want.starts == 0
		g.try(t, trial{test.name, path, framed(path, key, test.lines, test.body), ends, test.want})
		if test.want.starts == 0 {
			g.works(t, test.name, path, key, canary)
		}
	}
	t.Logf("%d bodies", len(tests))
}

// TestDecodedBodies: routes whose fingerprint looks into the body.
func TestDecodedBodies(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	unreadable := want{status: 400, kind: semelhttp.BodyUnreadable}
	tooLarge := want{status: 413, kind: semelhttp.BodyTooLarge}
	runs := want{status: 201, starts: 1}
	gz := "Content-Encoding: gzip"
	form, multi := "Content-Type: application/x-www-form-urlencoded", "Content-Type: multipart/form-data; boundary=b"
	sum := sha256.Sum256([]byte("body"))
	digest := func(of string) string { return "Content-Digest: sha-256=:" + of + ":" }
	right := digest(base64.StdEncoding.EncodeToString(sum[:]))
	bomb := zipped(t, `"`+strings.Repeat("b", 100<<20)+`"`)
	tests := []struct {
		name, path, body string
		lines            []string
		want             want
	}{
		{"JSON", "json", `{"a":1}`, nil, runs},
		{"JSON, zipped", "json", zipped(t, `{"a":1}`), []string{gz}, runs},
		{"a zipped bomb of 100 MiB", "json", bomb, []string{gz}, tooLarge},
		{"a bomb in a bomb", "json", zipped(t, bomb), []string{gz}, unreadable},
		{"unpacks to a byte too many", "json", zipped(t, `"`+strings.Repeat("b", cap1-1)+`"`), []string{gz}, tooLarge},
		{"no gzip", "json", `{"a":1}`, []string{gz}, unreadable},
		{"gzip, cut short", "json", zipped(t, `{"a":1}`)[:20], []string{gz}, unreadable},
		{"gzip, and more after it", "json", zipped(t, `{"a":1}`) + "more", []string{gz}, unreadable},
		{"gzip with a wrong sum", "json", zipped(t, `{"a":1}`)[:27] + "\x00\x00\x00\x00\x07\x00\x00\x00", []string{gz}, unreadable},
		{"gzip, not announced", "json", zipped(t, `{"a":1}`), nil, unreadable},
		{"gzip twice", "json", zipped(t, zipped(t, `{"a":1}`)), []string{"Content-Encoding: gzip, gzip"}, unreadable},
		{"an unknown encoding", "json", `{"a":1}`, []string{"Content-Encoding: br"}, unreadable},
		{"no JSON", "json", canary, nil, unreadable},
		{"empty", "json", "", nil, unreadable},
		{"JSON, cut short", "json", `{"a":`, nil, unreadable},
		{"JSON, and more after it", "json", `{"a":1}{"a":2}`, nil, unreadable},
		{"a name twice", "json", `{"a":1,"a":2}`, nil, unreadable},
		{"NaN", "json", `{"a":NaN}`, nil, unreadable},
		{"single quotes", "json", `{'a':1}`, nil, unreadable},
		{"a comma too many", "json", `{"a":1,}`, nil, unreadable},
		{"a NUL in a string", "json", "{\"a\":\"\x00\"}", nil, unreadable},
		{"invalid UTF-8", "json", "{\"a\":\"\xff\"}", nil, unreadable},
		{"half a surrogate pair", "json", `{"a":"\ud800"}`, nil, unreadable},
		{"an exponent without end", "json", `1e` + strings.Repeat("9", 10000), nil, unreadable},
		{"100,000 brackets", "json", strings.Repeat("[", 100000), nil, unreadable},
		{"100,000 pairs of brackets", "json", strings.Repeat("[", 100000) + strings.Repeat("]", 100000), nil, unreadable},
		{"JSON that says it is XML", "json", `{"a":1}`, []string{"Content-Type: application/xml"}, unreadable},
		{"a Content-Type that is none", "json", `{"a":1}`, []string{"Content-Type: ;;;"}, unreadable},
		{"a form", "form", "a=1&b=2", []string{form}, runs},
		{"a form without a type", "form", "a=1", nil, unreadable},
		{"a form with a bad escape", "form", "a=%zz", []string{form}, unreadable},
		{"a form with a semicolon", "form", "a=1;b=2", []string{form}, unreadable},
		{"parts", "form", "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n", []string{multi}, runs},
		{"parts, cut short", "form", "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1", []string{multi}, unreadable},
		{"parts without a boundary", "form", "--b--\r\n", []string{"Content-Type: multipart/form-data"}, unreadable},
		{"a digest", "digest", "body", []string{right}, runs},
		{"no digest", "digest", "body", nil, unreadable},
		{"another body's digest", "digest", "bodY", []string{right}, unreadable},
		{"a digest that is none", "digest", "body", []string{digest("!")}, unreadable},
		{"an unknown digest", "digest", "body", []string{"Content-Digest: md5=:hBotaJrKa9FhFEdFPCLG+A==:"}, unreadable},
		{"a right digest and a wrong one", "digest", "body", []string{right, digest("AAAA")}, unreadable},
		{"over a route's own cap", "tiny", strings.Repeat("b", 101), nil, tooLarge},
		{"at a route's own cap", "tiny", strings.Repeat("b", 100), nil, runs},
	}
	good := map[string]struct {
		body string
		line []string
	}{"json": {`{"a":1}`, nil}, "form": {"a=1", []string{form}}, "digest": {"body", []string{right}}, "tiny": {"b", nil}}
	for i, test := range tests {
		path, key := fmt.Sprintf("/%s/%d", test.path, i), fmt.Sprintf("decoded-%d", i)
		request := post(path, test.body, append(test.lines, "Idempotency-Key: "+key)...)
		g.try(t, trial{test.name, path, request, false, test.want})
		if test.want.starts == 0 {
			g.works(t, test.name, path, key, good[test.path].body, good[test.path].line...)
		}
	}
	t.Logf("%d bodies", len(tests))
}

// TestGeneratedChunks breaks a proper chunked body at one place.
func TestGeneratedChunks(t *testing.T) {
	t.Parallel()
	const n = 500
	t.Logf("seed %d, %d bodies", *seed, n)
	g := startGateway(t)
	source := rand.New(rand.NewPCG(*seed, 2))
	for i := range n {
		path, key := fmt.Sprintf("/chunks/%d", i), fmt.Sprintf("chunk-%d", i)
		var parts []string
		for range 1 + source.IntN(4) {
			parts = append(parts, strings.Repeat("b", 1+source.IntN(40)))
		}
		whole := chunks(parts...)
		broken, how := breakChunks(source, whole)
		name := fmt.Sprintf("%s: %q", how, broken)
		g.try(t, trial{name, path, framed(path, key, []string{"Transfer-Encoding: chunked"}, broken), true, want{status: 400, kind: semelhttp.BodyUnreadable}})
		if i%20 == 0 {
			g.works(t, name, path, key, canary)
		}
	}
}

// breakChunks gives a body that no reader may take for a whole one.
func breakChunks(source *rand.Rand, whole string) (broken, how string) {
	size, rest, _ := strings.Cut(whole, "\r\n")
	var number int
	_, _ = fmt.Sscanf(size, "%x", &number)
	switch source.IntN(5) {
	case 0: // its last CR LF is what ends the body, so without it there is none
		return whole[:source.IntN(len(whole)-1)], "cut"
	case 1:
		return fmt.Sprintf("%x\r\n%s", number-1, rest), "a size that is too small"
	case 2:
		return fmt.Sprintf("%x\r\n%s", number+1, rest), "a size that is too large"
	case 3:
		bad := "gxz_+-.,:/ \x00\xff"
		return string(bad[source.IntN(len(bad)-3)]) + whole, "a size that is no number"
	}
	return rest[:number] + whole, "no size"
}
