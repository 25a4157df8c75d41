package badinput

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/semelhttp"
)

// The rules of docs/spec/http.md once more, as patterns: what a header line must
// look like to be a key.
var (
	bareKey   = regexp.MustCompile(`^[!#-+\--:<-~]{1,255}$`)
	quotedKey = regexp.MustCompile(`^"((?:[ !#-\[\]-~]|\\["\\])*)"$`)
	noField   = regexp.MustCompile("[\x00-\x08\x0a-\x1f\x7f]") // RFC 9110, section 5.5
)

// wanted computes the answer for a request with these Idempotency-Key lines.
func wanted(lines []string) want {
	if slices.ContainsFunc(lines, noField.MatchString) {
		return want{status: 400}
	}
	if len(lines) == 0 {
		return want{status: 400, kind: semelhttp.KeyRequired}
	}
	value := strings.Trim(lines[0], " \t")
	if m := quotedKey.FindStringSubmatch(value); m != nil {
		value = strings.NewReplacer(`\\`, `x`, `\"`, `x`).Replace(m[1])
		value = strings.Repeat("x", len(value)) // its length is all that counts
	}
	if len(lines) > 1 || !bareKey.MatchString(value) {
		return want{status: 400, kind: semelhttp.KeyInvalid}
	}
	return want{status: 201, starts: 1}
}

// keyLines prefixes values with the header's name.
func keyLines(values ...string) []string {
	lines := slices.Clone(values)
	for i := range lines {
		lines[i] = "Idempotency-Key: " + lines[i]
	}
	return lines
}

// uuid7 is a UUIDv7 of that time.
func uuid7(at time.Time) string {
	ms := at.UnixMilli()
	return fmt.Sprintf("%08x-%04x-7000-8000-%012x", ms>>16, ms&0xffff, rand.Uint64N(1<<48))
}

func TestKeys(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	invalid := want{status: 400, kind: semelhttp.KeyInvalid}
	saying := func(text string) want { return want{400, semelhttp.KeyInvalid, 0, text} }
	server := want{status: 400}
	runs := want{status: 201, starts: 1}
	long := func(n int) string { return strings.Repeat("k", n) }
	tests := []struct {
		name  string
		lines []string // raw header lines
		want  want
	}{
		{"none", nil, want{400, semelhttp.KeyRequired, 0, "Idempotency-Key"}},
		{"empty", keyLines(""), saying("is empty")},
		{"spaces", keyLines(" \t "), saying("is empty")},
		{"quoted empty", keyLines(`""`), saying("is empty")},
		{"one quote", keyLines(`"`), saying("does not end with one")},
		{"255 bytes", keyLines(long(255)), runs},
		{"255 bytes quoted", keyLines(`"` + long(255) + `"`), runs},
		{"255 bytes of escapes", keyLines(`"` + strings.Repeat(`\"`, 255) + `"`), runs},
		{"256 bytes", keyLines(long(256)), saying("256 bytes long; send at most 255")},
		{"256 bytes quoted", keyLines(`"` + long(256) + `"`), invalid},
		{"256 bytes of escapes", keyLines(`"` + strings.Repeat(`\\`, 256) + `"`), invalid},
		{"10 KiB", keyLines(long(10 << 10)), saying("send at most 255")},
		{"60 KiB", keyLines(long(60 << 10)), saying("send at most 255")},
		{"1 MiB", keyLines(long(1 << 20)), want{status: 431}},
		{"NUL", keyLines("a\x00b"), server},
		{"NUL in quotes", keyLines("\"a\x00b\""), server},
		{"NUL alone", keyLines("\x00"), server},
		{"bell", keyLines("a\x07b"), server},
		{"DEL", keyLines("a\x7fb"), server},
		{"escape sequence", keyLines("\x1b[31mred"), server},
		{"bare CR", keyLines("a\rb"), server},
		{"CR LF and no header", keyLines("a\r\nb"), server},
		{"LF and no header", keyLines("a\nb"), server},
		{"CR LF and another key", keyLines("a\r\nIdempotency-Key: b"), saying("comes 2 times")},
		{"LF and another key", keyLines("a\nIdempotency-Key: b"), saying("comes 2 times")},
		{"folded line", keyLines("a\r\n b"), invalid},
		{"CR LF, percent-encoded", keyLines("a%0d%0aSet-Cookie:x"), runs},
		{"escaped LF in quotes", keyLines(`"a\nb"`), saying("bad escape")},
		{"tab inside", keyLines("a\tb"), saying("0x09")},
		{"space inside", keyLines("a b"), saying("double quotes")},
		{"space inside quotes", keyLines(`"a b"`), runs},
		{"UTF-8", keyLines("ключ"), saying("0xD0")},
		{"UTF-8 in quotes", keyLines(`"ключ"`), saying("0xD0")},
		{"Latin-1", keyLines("cl\xe9"), saying("0xE9")},
		{"emoji", keyLines("💸"), invalid},
		{"right-to-left mark", keyLines("a\u202eb"), invalid},
		{"invalid UTF-8", keyLines("\xff\xfe"), invalid},
		{"quote at the end", keyLines(`a"`), saying("double quotes")},
		{"quote in the middle", keyLines(`a"b`), invalid},
		{"open quote", keyLines(`"abc`), saying("close the quote")},
		{"text after the quote", keyLines(`"a"b`), saying("goes on after")},
		{"escape at the end", keyLines(`"a\`), saying("bad escape")},
		{"escaped end", keyLines(`"a\"`), saying("close the quote")},
		{"single quotes", keyLines(`'a'`), runs},
		{"backslash", keyLines(`a\b`), runs},
		{"two lines", keyLines("a", "b"), saying("comes 2 times")},
		{"two equal lines", keyLines("a", "a"), saying("comes 2 times")},
		{"two lines, one empty", keyLines("", "a"), saying("comes 2 times")},
		{"100 lines", keyLines(strings.Split(strings.Repeat("a,", 99)+"a", ",")...), saying("comes 100 times")},
		{"two lines, other case", []string{"idempotency-key: a", "IDEMPOTENCY-KEY: b"}, saying("comes 2 times")},
		{"lower case", []string{"idempotency-key: a"}, runs},
		{"space before the colon", []string{"Idempotency-Key : a"}, server},
		{"a line that continues the one before", []string{" Idempotency-Key: a"}, want{400, semelhttp.KeyRequired, 0, ""}},
		{"underscore", []string{"Idempotency_Key: a"}, want{400, semelhttp.KeyRequired, 0, ""}},
		{"list", keyLines("a,b"), saying("not a list")},
		{"list of quoted", keyLines(`"a", "b"`), saying("is a list")},
		{"trailing comma", keyLines(`"a",`), saying("is a list")},
		{"comma in quotes", keyLines(`"a,b"`), runs},
		{"parameter", keyLines(`"a";v=1`), saying("parameters")},
		{"parameter of a bare key", keyLines("a;v=1"), saying("parameters are not accepted")},
		{"bare semicolon", keyLines(`"a" ;`), saying("parameters")},
		{"binary", keyLines(":YWJj:"), runs},
		{"inner list", keyLines(`("a")`), invalid},
		{"JSON", keyLines(`{"key": "a"}`), invalid},
		{"SQL", keyLines(`'; DROP TABLE record; --`), invalid},
		{"SQL in quotes", keyLines(`"'; DROP TABLE record; --"`), runs},
		{"a path", keyLines(`../../etc/passwd`), runs},
		{"a format string", keyLines(`%s%n%x`), runs},
		{"a template", keyLines(`${jndi:ldap://x}`), runs},
		{"an old UUIDv7", keyLines(uuid7(time.Now().AddDate(-1, 0, 0))), want{410, semelhttp.KeyExpired, 0, ""}},
		{"a UUIDv7 of tomorrow", keyLines(uuid7(time.Now().AddDate(0, 0, 1))), want{400, semelhttp.KeyEarly, 0, ""}},
		{"a UUIDv7 of now", keyLines(uuid7(time.Now())), runs},
		{"UUIDv7, all bits", keyLines("ffffffff-ffff-7fff-bfff-ffffffffffff"), want{400, semelhttp.KeyEarly, 0, ""}},
		{"UUIDv7, no bits", keyLines("00000000-0000-7000-8000-000000000000"), want{410, semelhttp.KeyExpired, 0, ""}},
	}
	for i, test := range tests {
		path := fmt.Sprintf("/keys/%d", i)
		g.try(t, trial{name: test.name, path: path, request: post(path, canary, test.lines...), want: test.want})
	}
	g.works(t, "after all of them", "/keys/after", "k", "body")
	t.Logf("%d keys", len(tests))
}

// TestGeneratedKeys computes what is right for keys that nobody wrote.
func TestGeneratedKeys(t *testing.T) {
	t.Parallel()
	const n = 1500
	t.Logf("seed %d, %d keys", *seed, n)
	g := startGateway(t)
	source := rand.New(rand.NewPCG(*seed, 1))
	valid := 0
	for i := range n {
		path := fmt.Sprintf("/generated/%d", i)
		values := someValues(source)
		w := wanted(values)
		valid += w.starts
		g.try(t, trial{name: fmt.Sprintf("generated %q", values), path: path, request: post(path, canary, keyLines(values...)...), want: w})
	}
	if valid == 0 || valid > n*2/3 {
		t.Errorf("%d of %d generated keys are valid: the generator does not do what it is for", valid, n)
	}
	g.works(t, "after all of them", "/generated/after", "k", "body")
}

// someValues gives the values of some Idempotency-Key lines, most often of one.
func someValues(source *rand.Rand) []string {
	lines := [...]int{0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3}[source.IntN(20)]
	values := make([]string, lines)
	for i := range values {
		values[i] = someValue(source)
	}
	return values
}

// someValue leans towards what is almost a key.
func someValue(source *rand.Rand) string {
	length := source.IntN(12)
	if source.IntN(4) == 0 {
		length = 248 + source.IntN(12)
	}
	quoted := source.IntN(2) == 0
	// Most values are broken at one place at most.
	spoiled := -1
	if source.IntN(3) > 0 && length > 0 {
		spoiled = source.IntN(length)
	}
	var b strings.Builder
	for i := range length {
		switch {
		case i == spoiled:
			special := "\"\\,; \t'=:()\x00\x01\x0b\x1f\x7f\x80\xc3\xff"
			b.WriteByte(special[source.IntN(len(special))])
		case quoted && source.IntN(20) == 0:
			b.WriteString([...]string{`\\`, `\"`, ` `, `,`, `;`}[source.IntN(5)])
		default:
			b.WriteByte("abcXYZ0189-_.~!#$%&*+/<>?@[]^`{|}"[source.IntN(33)])
		}
	}
	value := b.String()
	if quoted {
		value = `"` + value + `"`
		if source.IntN(10) == 0 {
			value += [...]string{`;a`, `,`, `,"b"`, `x`, ` `, "\t", `"`, `;a=1`}[source.IntN(8)]
		}
		if source.IntN(15) == 0 {
			value = value[:len(value)-1]
		}
	}
	return value
}
