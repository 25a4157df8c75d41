package canonical_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/semelhq/semel/adapter/canonical"
)

// FuzzForm: a canonical form is its own; it says what the text says; and of
// two texts it is equal exactly if they say the same, numbers taken exactly. The
// judge is encoding/json.
func FuzzForm(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":1,"b":[true,null,"x"]}`, `{"b":[true,null,"\u0078"],"a":1.0}`},
		{`{"cents":9007199254740993}`, `{"cents":9007199254740992}`},
		{`[1e400]`, `[1e401]`},
		{`{"a":{"b":[]}}`, `{"a":{"b":{}}}`},
		{`"\ud83d\ude00"`, "\"\U0001F600\""},
		{`{"\u0000":0}`, `{"":0}`},
		{`["a","b"]`, `["a\",\"b"]`},
		{`[[1],2]`, `[1,[2]]`},
		{`{"a":1,"a":2}`, `{"a":2}`},
		{`""`, `"\ufffd"`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		va, ca, ok := both(t, a)
		if !ok {
			return
		}
		check(t, ca, va)
		// The same value, written by another hand, has the same form.
		pretty, err := json.MarshalIndent(va, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := form(t, canonical.Options{}, string(pretty)); err != nil || got != ca {
			t.Errorf("%s gives %s, and %s gives %s, %v", a, ca, pretty, got, err)
		}
		if vb, cb, ok := both(t, b); ok && same(va, vb) != (ca == cb) {
			t.Errorf("%s and %s give %s and %s", a, b, ca, cb)
		}
	})
}

// check checks that a form is its own form and says want.
func check(t *testing.T, text string, want any) {
	t.Helper()
	again, err := form(t, canonical.Options{}, text)
	if err != nil || again != text {
		t.Errorf("%s becomes %s, %v", text, again, err)
	}
	if got, ok := decode(text); !ok || !same(got, want) {
		t.Errorf("%s says %v, want %v", text, got, want)
	}
}

// both gives the value and the form of a text, if it has both.
func both(t *testing.T, text string) (any, string, bool) {
	t.Helper()
	c, err := form(t, canonical.Options{}, text)
	if err != nil {
		return nil, "", false
	}
	v, ok := decode(text)
	return v, c, ok
}

// decode reads a text whose numbers are small enough to compute with.
func decode(text string) (any, bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, false
	}
	return v, computable(v)
}

func computable(v any) bool {
	switch v := v.(type) {
	case json.Number:
		_, ok := exact(v.String())
		return ok
	case []any:
		for _, e := range v {
			if !computable(e) {
				return false
			}
		}
	case map[string]any:
		for _, e := range v {
			if !computable(e) {
				return false
			}
		}
	}
	return true
}

// same compares values, numbers exactly.
func same(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		n, ok := b.(json.Number)
		if !ok {
			return false
		}
		x, _ := new(big.Rat).SetString(a.String())
		y, _ := new(big.Rat).SetString(n.String())
		return x.Cmp(y) == 0
	case []any:
		l, ok := b.([]any)
		if !ok || len(l) != len(a) {
			return false
		}
		for i := range a {
			if !same(a[i], l[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok || len(m) != len(a) {
			return false
		}
		for k := range a {
			if e, held := m[k]; !held || !same(a[k], e) {
				return false
			}
		}
		return true
	}
	return a == b
}

// FuzzGzip: no packed body gets past the limit, and none stops the process.
func FuzzGzip(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xaa\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := request(t, canonical.Options{MaxBytes: 64}, body, "Content-Encoding", "gzip")
		if err == nil && !json.Valid([]byte(out)) {
			t.Errorf("%x gave %q", body, out)
		}
		plain, err := request(t, canonical.Options{MaxBytes: 64}, body)
		if err == nil && (len(body) > 64 || !bytes.Equal(bytes.TrimSpace([]byte(plain)), []byte(plain))) {
			t.Errorf("%x gave %q", body, plain)
		}
	})
}
