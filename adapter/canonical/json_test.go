package canonical_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/canonical"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// form gives the canonical form of a body that is not compressed.
func form(t *testing.T, o canonical.Options, body string) (string, error) {
	t.Helper()
	return request(t, o, []byte(body))
}

func request(t *testing.T, o canonical.Options, body []byte, headers ...string) (string, error) {
	t.Helper()
	c, err := canonical.JSON(o)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/charges", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	out, err := c(r, body)
	return string(out), err
}

func TestForm(t *testing.T) {
	for _, c := range [...]struct{ body, want string }{
		{`{"b":1,"a":2}`, `{"a":2,"b":1}`},
		{" {\n\t\"a\" : [ 1 , true , null ] }\r\n", `{"a":[1,true,null]}`},
		{`"\u0061\u00e9\/\ud83d\ude00"`, `"aé/😀"`},
		{`"\u000a\u001f\b"`, `"\n\u001f\b"`},
		{`{"é":1,"e\u0301":2}`, "{\"e\u0301\":2,\"é\":1}"},
		{`{"":1}`, `{"":1}`},
		{`[]`, `[]`},
		{`0`, `0`},
		// The example of RFC 8785, section 3.2.2, but for its first number, which the RFC
		// rounds to 333333333.3333333.
		{
			`{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
			"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}`,
			`{"literals":[null,true,false],"numbers":[3.3333333333333329e8,1e+30,4.5,0.002,1e-27],` +
				`"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		},
		// Its example of the order of names, section 3.2.3.
		{
			`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",` +
				`"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`,
			`{"\r":"Carriage Return","1":"One","` + "\u0080" + `":"Control","ö":"Latin Small Letter O With Diaeresis",` +
				`"€":"Euro Sign","😀":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
		},
	} {
		got, err := form(t, canonical.Options{}, c.body)
		if err != nil || got != c.want {
			t.Errorf("%s\n got %s, %v\nwant %s", c.body, got, err, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	for _, c := range [...]struct{ body, says string }{
		{``, "the body is empty"},
		{"  \n", "the body is empty"},
		{`{"a":1`, "near byte 6"},
		{`{"a":1}x`, "near byte 7"},
		{`{"a":1}{"a":1}`, "near byte"},
		{`{"a":}`, "near byte"},
		{`{'a':1}`, "near byte"},
		{`[1,]`, "near byte"},
		{`01`, "near byte"},
		{`NaN`, "near byte"},
		{`{"a":1,"a":1}`, "duplicate"},
		{`{"a":1,"\u0061":2}`, "duplicate"},
		{`{"x":{"a":1,"a":2}}`, "duplicate"},
		{"\"\xff\"", "UTF-8"},
		{`"\ud800"`, "surrogate"},
		{`"\udc00\ud800"`, "surrogate"},
		{"\"\x01\"", "near byte"},
		{"\ufeff{}", "near byte"},
		{`1e99999999999999999999`, "exponent"},
		{deep, "depth"},
	} {
		got, err := form(t, canonical.Options{}, c.body)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q gave %.40q, %v; want an error with %q", c.body, got, err, c.says)
		}
		if errors.Is(err, semelhttp.ErrTooLarge) {
			t.Errorf("%.40q: %v; it is not too large", c.body, err)
		}
	}
}

func TestExcludedPartsAreStillChecked(t *testing.T) {
	for _, body := range []string{`{"at":{"a":1,"a":2},"x":1}`, `{"at":"` + "\xff" + `","x":1}`, `{"at":[1,,2],"x":1}`, `{"at":1,"x":1`} {
		if got, err := form(t, canonical.Options{Exclude: []string{"/at"}}, body); err == nil {
			t.Errorf("%q gave %q, want an error", body, got)
		}
	}
}

func TestFields(t *testing.T) {
	include := func(p ...string) canonical.Options { return canonical.Options{Include: p} }
	exclude := func(p ...string) canonical.Options { return canonical.Options{Exclude: p} }
	for _, c := range [...]struct {
		o          canonical.Options
		body, want string
	}{
		{exclude("/at"), `{"at":1,"x":2}`, `{"x":2}`},
		{exclude("/at"), `{"x":2}`, `{"x":2}`},
		{exclude("/at"), `{"x":{"at":1}}`, `{"x":{"at":1}}`},
		{exclude("/x/at", "/y"), `{"x":{"at":1,"b":[1]},"y":[{}],"z":0}`, `{"x":{"b":[1]},"z":0}`},
		{exclude("/lines/0"), `{"lines":[1,2,3]}`, `{"lines":[2,3]}`},
		{exclude("/lines/1/at"), `{"lines":[{"at":1},{"at":1,"n":2}]}`, `{"lines":[{"at":1},{"n":2}]}`},
		{exclude("/a~1b", "/c~0d", "/~01"), `{"a/b":1,"c~d":2,"~1":3,"/":4}`, `{"/":4}`},
		{exclude("/"), `{"":1,"a":2}`, `{"a":2}`},
		{exclude("/é"), `{"\u00e9":1,"e":2}`, `{"e":2}`},
		{exclude("/a/b/c"), `{"a":{"b":7}}`, `{"a":{"b":7}}`},
		{include("/amount"), `{"amount":1,"x":2}`, `{"amount":1}`},
		{include("/amount", "/to"), `{"x":2,"amount":1}`, `{"amount":1}`},
		{include("/amount", "/to"), `{"to":null,"amount":1}`, `{"amount":1,"to":null}`},
		{include("/a/b"), `{"a":{"b":{"c":[1]},"d":1}}`, `{"a":{"b":{"c":[1]}}}`},
		{include("/a/b", "/x"), `{"a":5,"x":1}`, `{"x":1}`},
		{include("/lines/1"), `{"lines":[1,2,3]}`, `{"lines":[2]}`},
		{include("/1"), `[1,[2],3]`, `[[2]]`},
		{include(""), `{"a":1}`, `{"a":1}`},
		{include(""), `5`, `5`},
		{canonical.Options{Include: []string{"/a"}, Exclude: []string{"/a/at"}}, `{"a":{"at":1,"b":2},"c":3}`, `{"a":{"b":2}}`},
	} {
		got, err := form(t, c.o, c.body)
		if err != nil || got != c.want {
			t.Errorf("%+v of %s\n got %s, %v\nwant %s", c.o, c.body, got, err, c.want)
		}
	}
}

// Every body without any included field would have one fingerprint: a mistyped
// pointer would make all payloads equal.
func TestNothingIncludedIsRefused(t *testing.T) {
	for _, body := range []string{`{}`, `{"amuont":1}`, `[]`, `5`, `{"amount":{}}`, `{"amount":[]}`} {
		got, err := form(t, canonical.Options{Include: []string{"/amount/cents"}}, body)
		if err == nil || !strings.Contains(err.Error(), "none of the fields") {
			t.Errorf("%s gave %s, %v; want a refusal", body, got, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range [...]struct {
		o    canonical.Options
		says string
	}{
		{canonical.Options{Include: []string{"amount"}}, "begins with a slash"},
		{canonical.Options{Exclude: []string{"a.b"}}, "exclude"},
		{canonical.Options{Include: []string{"/a~2"}}, "~0"},
		{canonical.Options{Include: []string{"/a~"}}, "~0"},
		{canonical.Options{Include: []string{"/a", "/a"}}, "twice"},
		{canonical.Options{Include: []string{"/a", "/a/b"}}, "within another"},
		{canonical.Options{Include: []string{"/a/b", "/a"}}, "holds another"},
		{canonical.Options{Include: []string{"", "/a"}}, "within another"},
		{canonical.Options{Exclude: []string{""}}, "nothing would be left"},
		{canonical.Options{Include: []string{"/a/b"}, Exclude: []string{"/a"}}, "is excluded"},
		{canonical.Options{Include: []string{"/a"}, Exclude: []string{"/a"}}, "is excluded"},
		{canonical.Options{MaxBytes: -1}, "negative"},
	} {
		if _, err := canonical.JSON(c.o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v; want an error with %q", c.o, err, c.says)
		}
	}
}

func TestContentType(t *testing.T) {
	for header, ok := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true,
		"application/merge-patch+json": true, "text/json": true,
		"application/x-www-form-urlencoded": false, "text/plain": false, "multipart/form-data": false, ";": false,
	} {
		if _, err := request(t, canonical.Options{}, []byte(`{}`), "Content-Type", header); (err == nil) != ok {
			t.Errorf("%q: %v; want it taken: %t", header, err, ok)
		}
	}
}

func zip(t *testing.T, body []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestContentEncoding(t *testing.T) {
	plain, err := form(t, canonical.Options{}, `{"b":1,"a":2}`)
	if err != nil {
		t.Fatal(err)
	}
	packed := zip(t, []byte(`{"a":2, "b":1}`))
	for _, encoding := range []string{"gzip", "GZIP", "x-gzip", " gzip "} {
		got, err := request(t, canonical.Options{}, packed, "Content-Encoding", encoding)
		if err != nil || got != plain {
			t.Errorf("%q: got %s, %v; want what the plain body gives, %s", encoding, got, err, plain)
		}
	}
	for name, headers := range map[string][]string{
		"br":         {"Content-Encoding", "br"},
		"twice":      {"Content-Encoding", "gzip, gzip"},
		"two lines":  {"Content-Encoding", "gzip", "Content-Encoding", "gzip"},
		"not packed": {"Content-Encoding", "identity"},
	} {
		if got, err := request(t, canonical.Options{}, packed, headers...); err == nil || errors.Is(err, semelhttp.ErrTooLarge) {
			t.Errorf("%s: got %s, %v; want an error that is not about size", name, got, err)
		}
	}
	for cut := range len(packed) {
		if got, err := request(t, canonical.Options{}, packed[:cut], "Content-Encoding", "gzip"); err == nil {
			t.Errorf("cut at %d: got %s, want an error", cut, got)
		}
	}
}

func TestTooLarge(t *testing.T) {
	o := canonical.Options{MaxBytes: 10}
	for _, c := range [...]struct {
		name     string
		body     []byte
		encoding string
		large    bool
	}{
		{"10 bytes", []byte(`"12345678"`), "", false},
		{"11 bytes", []byte(`"123456789"`), "", true},
		{"10 bytes, packed", zip(t, []byte(`"12345678"`)), "gzip", false},
		{"11 bytes, packed", zip(t, []byte(`"123456789"`)), "gzip", true},
		{"11 bytes in two members", append(zip(t, []byte(`"1234567`)), zip(t, []byte(`89"`))...), "gzip", true},
		{"a bomb of 64 MiB", zip(t, bytes.Repeat([]byte(" "), 64<<20)), "gzip", true},
	} {
		got, err := request(t, o, c.body, "Content-Encoding", c.encoding)
		if errors.Is(err, semelhttp.ErrTooLarge) != c.large || (err == nil) == c.large {
			t.Errorf("%s: got %s, %v; want it too large: %t", c.name, got, err, c.large)
		}
	}
}

// A bomb is not unpacked further than MaxBytes.
func TestBombIsNotUnpacked(t *testing.T) {
	bomb := zip(t, bytes.Repeat([]byte(" "), 64<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := request(t, canonical.Options{MaxBytes: 1 << 10}, bomb, "Content-Encoding", "gzip")
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, semelhttp.ErrTooLarge) || took > 8<<20 {
		t.Errorf("64 MiB of spaces took %d bytes of memory and gave %v", took, err)
	}
}

func TestBodyIsLeftAlone(t *testing.T) {
	body := []byte(`{ "b": 1.0, "a": 1 }`)
	c, err := canonical.JSON(canonical.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c(httptest.NewRequest("POST", "/", nil), body)
	if err != nil {
		t.Fatal(err)
	}
	clear(out)
	if want := `{ "b": 1.0, "a": 1 }`; string(body) != want {
		t.Errorf("the body is %s, was %s", body, want)
	}
}

// TestInHandler: what a client is told, and that the handler runs as often as
// there are payloads.
func TestInHandler(t *testing.T) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := canonical.JSON(canonical.Options{MaxBytes: 100, Exclude: []string{"/sentAt"}})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	charge := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		w.WriteHeader(http.StatusCreated)
	})
	h, err := semelhttp.NewHandler(guard, charge, semelhttp.Options{Scope: semelhttp.SharedScope(), Canonical: c})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range [...]struct {
		key, body, encoding string
		status, runs        int
	}{
		{"a", `{"amount":1,"sentAt":1}`, "", 201, 1},
		{"a", `{"sentAt":2, "amount":1.0}`, "", 201, 1},
		{"a", string(zip(t, []byte(`{"amount":1}`))), "gzip", 201, 1},
		{"a", `{"amount":2,"sentAt":1}`, "", 422, 1},
		{"b", `{"amount":1,"amount":2}`, "", 400, 1},
		{"c", string(zip(t, make([]byte, 1<<20))), "gzip", 413, 1},
		{"d", `{"amount":9007199254740993}`, "", 201, 2},
		{"d", `{"amount":9007199254740992}`, "", 422, 2},
	} {
		r := httptest.NewRequest("POST", "/charges", strings.NewReader(step.body))
		r.Header.Set("Idempotency-Key", `"`+step.key+`"`)
		r.Header.Set("Content-Type", "application/json")
		if step.encoding != "" {
			r.Header.Set("Content-Encoding", step.encoding)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != step.status || runs != step.runs {
			t.Errorf("%s %.60q: got %d after %d runs, want %d after %d; %s",
				step.key, step.body, w.Code, runs, step.status, step.runs, w.Body)
		}
	}
}
