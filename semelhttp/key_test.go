package semelhttp_test

import (
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

func TestParseKey(t *testing.T) {
	long := strings.Repeat("k", 255)
	for _, c := range []struct {
		name string
		line string
		want string
		err  string // a part of it, "" if it is a key
	}{
		{name: "quoted", line: `"8e03978e-40d5-43dd-bc93-6894a57f9324"`, want: "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{name: "bare UUID", line: "8e03978e-40d5-43dd-bc93-6894a57f9324", want: "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{name: "bare base64", line: "a+b/c==", want: "a+b/c=="},
		{name: "bare with colon", line: "order:42", want: "order:42"},
		{name: "bare backslash", line: `a\b`, want: `a\b`},
		{name: "its quoted form", line: `"a\\b"`, want: `a\b`},
		{name: "escaped quote", line: `"a\"b"`, want: `a"b`},
		{name: "quoted specials", line: `"a, b; c"`, want: "a, b; c"},
		{name: "a space", line: `" "`, want: " "},
		{name: "space around", line: " \t\"a\"\t ", want: "a"},
		{name: "space around, bare", line: "\t a ", want: "a"},
		{name: "255 bytes", line: long, want: long},
		{name: "255 bytes, quoted", line: `"` + long + `"`, want: long},
		{name: "255 escapes", line: `"` + strings.Repeat(`\"`, 255) + `"`, want: strings.Repeat(`"`, 255)},

		{name: "empty", line: "", err: "is empty"},
		{name: "space only", line: " \t", err: "is empty"},
		{name: "empty string", line: `""`, err: "is empty"},
		{name: "256 bytes", line: long + "k", err: "is 256 bytes long; send at most 255"},
		{name: "256 bytes, quoted", line: `"` + long + `k"`, err: "is 256 bytes long"},
		{name: "1 MiB", line: strings.Repeat("k", 1<<20), err: "is 1048576 bytes long"},
		{name: "list", line: "a, b", err: "comma at byte 1; send one key"},
		{name: "list of quoted", line: `"a", "b"`, err: "is a list; send one key"},
		{name: "parameters", line: `"a";p=1`, err: "has parameters, which are not accepted"},
		{name: "parameters after space", line: `"a" ; p`, err: "has parameters"},
		{name: "parameters, bare", line: "a;p=1", err: "semicolon at byte 1; parameters are not accepted"},
		{name: "unterminated", line: `"abc`, err: "does not end with one"},
		{name: "only a quote", line: `"`, err: "does not end with one"},
		{name: "ends in an escape", line: `"abc\`, err: "bad escape at byte 4"},
		{name: "escaped closing quote", line: `"abc\"`, err: "does not end with one"},
		{name: "bad escape", line: `"a\n"`, err: "bad escape at byte 2"},
		{name: "tail", line: `"a"b`, err: "goes on after its closing quote"},
		{name: "inner space", line: "a b", err: "space or a quote at byte 1"},
		{name: "inner quote", line: `a"b`, err: "space or a quote at byte 1"},
		{name: "unicode", line: "caf\u00e9", err: "the byte 0xC3 at byte 3"},
		{name: "unicode, quoted", line: "\"\u00e9\"", err: "the byte 0xC3 at byte 1"},
		{name: "NUL", line: "a\x00b", err: "the byte 0x00 at byte 1"},
		{name: "CR LF", line: "\"a\r\nb\"", err: "the byte 0x0D at byte 2"},
		{name: "inner tab", line: "\"a\tb\"", err: "the byte 0x09"},
		{name: "DEL", line: "a\x7f", err: "the byte 0x7F at byte 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := semelhttp.ParseKey([]string{c.line})
			switch {
			case c.err == "" && (err != nil || got != c.want):
				t.Errorf("ParseKey(%.80q) = %q, %v; want %q", c.line, got, err, c.want)
			case c.err != "" && (err == nil || got != "" || !strings.Contains(err.Error(), c.err)):
				t.Errorf("ParseKey(%.80q) = %q, error %v; want one with %q", c.line, got, err, c.err)
			}
		})
	}
	for _, lines := range [][]string{nil, {"a", "a"}} {
		if id, err := semelhttp.ParseKey(lines); err == nil || id != "" {
			t.Errorf("ParseKey(%q) = %q, %v; want an error", lines, id, err)
		}
	}
}

func TestParseKeyErrorsHoldNoKey(t *testing.T) {
	const secret = "s3cr3t-s3cr3t"
	for _, line := range []string{
		secret + " x", secret + ",", secret + ";a", `"` + secret, `"` + secret + `\x"`, `"` + secret + `";a`, `"` + secret + `",`,
		secret + "\x00", `"` + secret + `"` + secret, strings.Repeat(secret, 100),
	} {
		_, err := semelhttp.ParseKey([]string{line})
		if err == nil || strings.Contains(err.Error(), secret) || len(err.Error()) > 250 {
			t.Errorf("ParseKey(%.60q): the error is %.300v; want a short one without the key", line, err)
		}
	}
}

func TestParseKeyAllocatesNothing(t *testing.T) {
	for _, line := range []string{"8e03978e-40d5-43dd-bc93-6894a57f9324", `"8e03978e-40d5-43dd-bc93-6894a57f9324"`} {
		lines := []string{line}
		if n := testing.AllocsPerRun(100, func() { _, _ = semelhttp.ParseKey(lines) }); n != 0 {
			t.Errorf("ParseKey(%q) allocates %v times, want 0", line, n)
		}
	}
}

func TestFormatKey(t *testing.T) {
	for id, want := range map[string]string{"a": `"a"`, `a"b\c`: `"a\"b\\c"`, " , ; ": `" , ; "`} {
		if got, err := semelhttp.FormatKey(id); got != want || err != nil {
			t.Errorf("FormatKey(%q) = %q, %v; want %q", id, got, err, want)
		}
	}
	for _, id := range []string{"", strings.Repeat("k", 256), "\u00e9", "a\nb"} {
		if got, err := semelhttp.FormatKey(id); got != "" || err == nil {
			t.Errorf("FormatKey(%.60q) = %q, want an error", id, got)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, line := range []string{"a", `"a"`, `"a\"\\"`, `"a";p=1`, "a, b", `""`, "\x00", `"`, `\`, " a\t"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		id, err := semelhttp.ParseKey([]string{line})
		if err != nil {
			if id != "" {
				t.Fatalf("ParseKey(%q) = %q with the error %v", line, id, err)
			}
			return
		}
		quoted, err := semelhttp.FormatKey(id)
		if err != nil {
			t.Fatalf("ParseKey(%q) = %q, which FormatKey refuses: %v", line, id, err)
		}
		if again, err := semelhttp.ParseKey([]string{quoted}); again != id || err != nil {
			t.Fatalf("%q became %q, then %q, %v; want the same key", line, id, again, err)
		}
	})
}

func FuzzFormatKey(f *testing.F) {
	for _, id := range []string{"a", `a"b`, `a\`, "", "\u00e9", strings.Repeat("k", 255), strings.Repeat(`"`, 256)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		line, err := semelhttp.FormatKey(id)
		if err != nil {
			return
		}
		if got, err := semelhttp.ParseKey([]string{line}); got != id || err != nil {
			t.Fatalf("ParseKey(FormatKey(%q)) = %q, %v", id, got, err)
		}
	})
}
