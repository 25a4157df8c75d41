package canonical_test

import (
	"math/big"
	"strings"
	"testing"

	"github.com/semelhq/semel/adapter/canonical"
)

// TestNumbers: the numbers of RFC 8785, appendix B, and those that it rounds.
func TestNumbers(t *testing.T) {
	for _, c := range [...]struct{ number, want string }{
		{"0", "0"},
		{"-0", "0"},
		{"-0.0e5", "0"},
		{"5e-324", "5e-324"},
		{"-5e-324", "-5e-324"},
		{"1.7976931348623157e308", "1.7976931348623157e+308"},
		{"-1.7976931348623157e+308", "-1.7976931348623157e+308"},
		{"9007199254740992", "9007199254740992"},
		{"-9007199254740992", "-9007199254740992"},
		{"295147905179352830000", "295147905179352830000"},
		{"9.999999999999997e22", "9.999999999999997e+22"},
		{"1e23", "1e+23"},
		{"1.0000000000000001e23", "1.0000000000000001e+23"},
		{"999999999999999700000", "999999999999999700000"},
		{"999999999999999900000", "999999999999999900000"},
		{"1e21", "1e+21"},
		{"1000000000000000000000", "1e+21"},
		{"9.999999999999997e-7", "9.999999999999997e-7"},
		{"0.000001", "0.000001"},
		{"333333333.3333332", "333333333.3333332"},
		{"-0.0000033333333333333333", "-0.0000033333333333333333"},
		{"1424953923781206.2", "1424953923781206.2"},
		{"1.0", "1"},
		{"1E2", "100"},
		{"10e-1", "1"},
		{"0.10", "0.1"},
		// A double holds none of these.
		{"9007199254740993", "9007199254740993"},
		{"9007199254740993.0", "9007199254740993"},
		{"9007199254740993e0", "9007199254740993"},
		{"90071992547409930e-1", "9007199254740993"},
		{"18446744073709551615", "18446744073709551615"},
		{"-18446744073709551617", "-18446744073709551617"},
		{"0.1000000000000000055511151231257827", "1.000000000000000055511151231257827e-1"},
		{"123456789012345678901234567890123456789", "123456789012345678901234567890123456789"},
		{"123456789012345678901234567890123456789012345", "1.23456789012345678901234567890123456789012345e44"},
		{"1e400", "1e400"},
		{"10e399", "1e400"},
		{"-1e-400", "-1e-400"},
		{"1e1000000000", "1e1000000000"},
	} {
		got, err := form(t, canonical.Options{}, c.number)
		if err != nil || got != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.number, got, err, c.want)
		}
	}
}

// FieldBug: a canonical form that goes through doubles gives two payments one
// fingerprint.
func TestLargeIntegersAreNotFolded(t *testing.T) {
	a, err := form(t, canonical.Options{}, `{"cents":9007199254740993}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"9007199254740992", "9007199254740994", "9007199254740993.5", "-9007199254740993"} {
		b, err := form(t, canonical.Options{}, `{"cents":`+other+`}`)
		if err != nil || a == b {
			t.Errorf("9007199254740993 and %s both give %s, %v", other, b, err)
		}
	}
}

// FuzzNumber: equal numbers, exactly, have equal texts, and different ones
// different texts. The judge is math/big.
func FuzzNumber(f *testing.F) {
	for _, seed := range [][2]string{
		{"1", "1.0"},
		{"9007199254740993", "9007199254740992"},
		{"0.1", "0.1000000000000000055511151231257827"},
		{"1e400", "1e401"},
		{"1e21", "1000000000000000000000"},
		{"-0", "0"},
		{"5e-324", "4e-324"},
		{"123456789012345678901234567890e-10", "12345678901234567890.1234567890"},
		{"1e-7", "0.0000001"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, ok := exact(a)
		y, ok2 := exact(b)
		if !ok || !ok2 {
			return
		}
		ca, err := form(t, canonical.Options{}, a)
		cb, err2 := form(t, canonical.Options{}, b)
		if err != nil || err2 != nil {
			return // no JSON number
		}
		if (x.Cmp(y) == 0) != (ca == cb) {
			t.Errorf("%s and %s give %s and %s", a, b, ca, cb)
		}
		for text, value := range map[string]*big.Rat{ca: x, cb: y} {
			if z, ok := exact(text); !ok || z.Cmp(value) != 0 {
				t.Errorf("%s stands for %v, want %v", text, z, value)
			}
			if again, err := form(t, canonical.Options{}, text); err != nil || again != text {
				t.Errorf("%s becomes %s, %v", text, again, err)
			}
		}
	})
}

// exact reads a number that is small enough to compute with.
func exact(text string) (*big.Rat, bool) {
	_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if len(text) > 400 || len(strings.TrimLeft(exponent, "+-0")) > 3 || strings.ContainsAny(text, "/_xXpPoObB") {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}
