// Package sfv compares semelhttp.ParseKey with github.com/dunglas/httpsfv, an
// implementation of structured fields that is not ours. It holds nothing but
// tests, because the root module may not require anything. Nobody imports it.
package sfv

import (
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"github.com/semelhq/semel/semelhttp"
)

// FuzzKey checks both directions: a header that is a structured-field string
// without parameters, of a length that a key may have, is that key; and what we
// take for a quoted key is such a string.
func FuzzKey(f *testing.F) {
	for _, line := range []string{
		`"8e03978e-40d5-43dd-bc93-6894a57f9324"`, `"a\"b\\c"`, `"a";p=1`, `"a";p`, `"a", "b"`, `""`, `" "`, ` "a" `, "\"a\"\t",
		`"a" ;p`, `"a`, `"a\`, `"a\n"`, `"a"b`, "\"\u00e9\"", "\"a\x7f\"", "\"a\x00\"", `token`, `*tok/en:x`, `42`, `1.5`, `?1`, `:YQ==:`, `%"a"`, `@1`, `(a b)`,
		`"` + strings.Repeat("k", 255) + `"`, `"` + strings.Repeat("k", 256) + `"`, `"` + strings.Repeat(`\"`, 255) + `"`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		id, ours := semelhttp.ParseKey([]string{line})
		// A header's own space is none of the value's; HTTP takes it off before.
		item, theirs := httpsfv.UnmarshalItem([]string{strings.Trim(line, " \t")})
		want, isString := item.Value.(string)
		plain := theirs == nil && isString && len(item.Params.Names()) == 0 && len(want) >= 1 && len(want) <= 255
		if plain && (ours != nil || id != want) {
			t.Errorf("%q is the string %q, and for us %q, %v", line, want, id, ours)
		}
		if ours == nil && strings.HasPrefix(strings.Trim(line, " \t"), `"`) && !plain {
			t.Errorf("%q is the key %q for us, and for httpsfv %v, %v", line, id, item.Value, theirs)
		}
		if ours != nil {
			return
		}
		quoted, err := semelhttp.FormatKey(id)
		if err != nil {
			t.Fatalf("the key of %q cannot be written: %v", line, err)
		}
		if text, err := httpsfv.Marshal(httpsfv.NewItem(id)); err != nil || text != quoted {
			t.Errorf("FormatKey(%q) = %q, and httpsfv writes %q, %v", id, quoted, text, err)
		}
	})
}
