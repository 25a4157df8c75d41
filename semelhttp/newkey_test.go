package semelhttp

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

func TestNewKeyIsUUIDv7(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 1000 {
		id := NewKey()
		at, ok := semel.KeyTime(id)
		if !form.MatchString(id) || !ok || time.Since(at).Abs() > time.Minute || seen[id] {
			t.Fatalf("NewKey() = %q, time %v, %v, seen before %v", id, at, ok, seen[id])
		}
		seen[id] = true
	}
}

func TestKeyClock(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var c keyClock
	last := ""
	grows := func(at time.Time) {
		t.Helper()
		id := c.next(at)
		if id[:18] <= last {
			t.Fatalf("%s at %v does not follow %s", id, at, last)
		}
		last = id[:18]
	}
	for range 10_000 { // more than there are ticks in two milliseconds
		grows(now)
	}
	grows(now.Add(-500 * time.Millisecond)) // the clock steps back a little
	grows(now.Add(time.Hour))               // it was an hour ahead …
	back, _ := semel.KeyTime(c.next(now))   // … and is set right
	if got := back.Sub(now).Abs(); got > time.Second {
		t.Errorf("after the clock was set right, a key lies %v off: servers refuse keys from the future", got)
	}
}

func TestUUIDv7OfTheRFC(t *testing.T) {
	// RFC 9562, appendix A.6: 2022-02-22 14:22:22 -05:00.
	const want = "017f22e2-79b0-7"
	if got := uuid7(0x017F22E279B0 << 12); !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
}

func TestDeriveKey(t *testing.T) {
	// Written down: clients that crashed under another version ask again under the same key.
	if got := DeriveKey("order", "42"); got != "WTdWji7rOTQL62RylafmZQVNytFYsZwiBq344_TxzTU" {
		t.Errorf("the key of order 42 is now %s", got)
	}
	seen := map[string][]string{}
	for _, fields := range [][]string{nil, {""}, {"", ""}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"c", "ab"}} {
		key := DeriveKey(fields...)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q give one key", fields, other)
		}
		seen[key] = fields
		if id, err := ParseKey([]string{key}); id != key || err != nil {
			t.Errorf("the key of %q is no bare key: %v", fields, err)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"0", "120", "-1", "9223372036854775807", "99999999999999999999", "Fri, 31 Dec 2049 23:59:59 GMT", "Fri, 01 Dec 7000 00:00:00 GMT", "soon", "", "1.5"} {
		f.Add(value)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		d, ok := parseRetryAfter(map[string][]string{"Retry-After": {value}}, now)
		if d < 0 || !ok && d != 0 {
			t.Fatalf("%q gives %v, %v", value, d, ok)
		}
		if !ok {
			return
		}
		again, ok := parseRetryAfter(map[string][]string{"Retry-After": {formatRetryAfter(d)}}, now)
		if !ok || again < d || again-max(d, time.Second) >= time.Second {
			t.Fatalf("%q gives %v, and written again %v, %v", value, d, again, ok)
		}
	})
}
