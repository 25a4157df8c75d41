package canonical

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxExponent bounds a number's exponent, so that it can be computed with.
const maxExponent = 1_000_000_000

// maxPlain is the longest integer, in digits, that is written without an
// exponent if a double cannot hold it.
const maxPlain = 40

// decimal is 0.digits × 10^point, exactly. Its digits neither begin nor end with
// a zero; zero has none.
type decimal struct {
	negative bool
	digits   string
	point    int64
}

// number gives the canonical text of a JSON number. It denotes the same value,
// exactly, and equal values have equal texts: if a double's shortest form is the
// number, that form as RFC 8785 writes it, else all its digits.
func number(text []byte) (jsontext.Value, error) {
	d, err := parse(string(text))
	if err != nil {
		return nil, err
	}
	if d.digits == "" {
		return jsontext.Value("0"), nil
	}
	if double, err := strconv.ParseFloat(string(text), 64); err == nil && !math.IsInf(double, 0) {
		shortest, err := parse(strconv.FormatFloat(double, 'e', -1, 64))
		if err == nil && shortest == d {
			return float(double)
		}
	}
	return d.text(), nil
}

// float writes a double as RFC 8785 does.
func float(double float64) (jsontext.Value, error) {
	var out bytes.Buffer
	err := jsontext.NewEncoder(&out).WriteToken(jsontext.Float(double))
	return bytes.TrimSpace(out.Bytes()), err
}

// parse reads a JSON number, which the decoder has found to be one.
func parse(text string) (decimal, error) {
	var d decimal
	text, d.negative = strings.CutPrefix(text, "-")
	mantissa, exponent := text, ""
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa, exponent = text[:i], text[i+1:]
		n, err := strconv.ParseInt(exponent, 10, 64)
		if err != nil || n > maxExponent || n < -maxExponent {
			return d, fmt.Errorf("the exponent of a number, %.20q, is too large", exponent)
		}
		d.point = n
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	d.point += int64(len(whole)) - int64(len(whole)+len(fraction)-len(digits))
	d.digits = strings.TrimRight(digits, "0")
	if d.digits == "" {
		return decimal{}, nil // -0 and 0e5 are zero
	}
	return d, nil
}

// text writes all digits: an integer of up to maxPlain digits plainly, anything
// else with one digit before the point and an exponent.
func (d decimal) text() jsontext.Value {
	var b []byte
	if d.negative {
		b = append(b, '-')
	}
	n := int64(len(d.digits))
	if d.point >= n && d.point <= maxPlain {
		b = append(b, d.digits...)
		return append(b, strings.Repeat("0", int(d.point-n))...)
	}
	b = append(b, d.digits[0])
	if n > 1 {
		b = append(append(b, '.'), d.digits[1:]...)
	}
	return strconv.AppendInt(append(b, 'e'), d.point-1, 10)
}
