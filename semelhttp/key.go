package semelhttp

import (
	"errors"
	"fmt"
	"strings"
)

// maxKeyBytes is the longest key, after quotes and escapes are removed.
const maxKeyBytes = 255

// ParseKey reads the key out of all lines of an Idempotency-Key header, as
// r.Header.Values gives them.
//
// The header is a structured-field string (RFC 9651, section 3.3.3, as
// draft-ietf-httpapi-idempotency-key-header-07 demands): "8e03978e", in quotes.
// A bare value, as most clients send it, is the same key as its quoted form: a
// UUID, base64, order:42. Bare values consist of visible ASCII without quotes,
// commas and semicolons; quoted ones may hold these and spaces. A key has 1 to
// 255 bytes. Space around the value does not count.
//
// Two lines, a list and parameters are refused, never guessed at: to pick one of
// two keys is to pick one of two operations. Errors say what to send instead and
// never contain the key, so they may go to clients and logs.
func ParseKey(lines []string) (string, error) {
	switch {
	case len(lines) == 0:
		return "", errors.New("there is no idempotency key; send one of 1 to 255 characters, such as a UUID")
	case len(lines) > 1:
		return "", fmt.Errorf("the idempotency key comes %d times; send the header once", len(lines))
	}
	value := strings.Trim(lines[0], " \t")
	if len(value) > 2*maxKeyBytes+2 { // longer than any key with each byte escaped
		return "", tooLong(len(value))
	}
	if value == "" {
		return "", errEmptyKey
	}
	if value[0] == '"' {
		return parseQuoted(value[1:])
	}
	return parseBare(value)
}

// FormatKey gives the header value for a key: the structured-field string, in
// quotes. [ParseKey] gives the key back. The error tells why id cannot be a key.
func FormatKey(id string) (string, error) {
	if id == "" {
		return "", errEmptyKey
	}
	if len(id) > maxKeyBytes {
		return "", tooLong(len(id))
	}
	b := make([]byte, 0, len(id)+2)
	b = append(b, '"')
	for i := range len(id) {
		if c := id[i]; !printable(c) {
			return "", badByte(c, i)
		} else if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, id[i])
	}
	return string(append(b, '"')), nil
}

var errEmptyKey = errors.New("the idempotency key is empty; send 1 to 255 characters, such as a UUID")

func parseBare(value string) (string, error) {
	for i := range len(value) {
		switch c := value[i]; {
		case !printable(c):
			return "", badByte(c, i)
		case c == ',':
			return "", fmt.Errorf("the idempotency key has a comma at byte %d; send one key, not a list, or put a key that contains a comma in double quotes", i)
		case c == ';':
			return "", fmt.Errorf("the idempotency key has a semicolon at byte %d; parameters are not accepted, and a key that contains a semicolon goes in double quotes", i)
		case c == ' ' || c == '"':
			return "", fmt.Errorf("the idempotency key has a space or a quote at byte %d; put such a key in double quotes, with \\\" for a quote in it", i)
		}
	}
	if len(value) > maxKeyBytes {
		return "", tooLong(len(value))
	}
	return value, nil
}

// parseQuoted reads what follows the opening quote.
func parseQuoted(value string) (string, error) {
	var unescaped []byte // nil until the first escape, so that plain keys cost no memory
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case !printable(c):
			return "", badByte(c, i+1)
		case c == '"':
			if err := parseTail(value[i+1:]); err != nil {
				return "", err
			}
			if unescaped != nil {
				return checkLength(string(unescaped))
			}
			return checkLength(value[:i])
		case c == '\\':
			if unescaped == nil {
				unescaped = append(make([]byte, 0, len(value)), value[:i]...)
			}
			i++
			if i == len(value) || value[i] != '"' && value[i] != '\\' {
				return "", fmt.Errorf("the idempotency key has a bad escape at byte %d; in a quoted key a backslash stands only before a double quote or a backslash", i)
			}
			c = value[i]
		}
		if unescaped != nil {
			unescaped = append(unescaped, c)
		}
	}
	return "", errors.New("the idempotency key begins with a double quote and does not end with one; close the quote, or leave both out")
}

// parseTail refuses whatever follows the closing quote.
func parseTail(tail string) error {
	tail = strings.TrimLeft(tail, " \t")
	switch {
	case tail == "":
		return nil
	case tail[0] == ',':
		return errors.New("the idempotency key is a list; send one key")
	case tail[0] == ';':
		return errors.New("the idempotency key has parameters, which are not accepted; send the quoted string alone")
	}
	return errors.New("the idempotency key goes on after its closing quote; write a quote that belongs to the key as \\\"")
}

func checkLength(id string) (string, error) {
	if id == "" {
		return "", errEmptyKey
	}
	if len(id) > maxKeyBytes {
		return "", tooLong(len(id))
	}
	return id, nil
}

// printable tells whether a structured-field string can hold c.
func printable(c byte) bool { return ' ' <= c && c <= '~' }

func tooLong(n int) error {
	return fmt.Errorf("the idempotency key is %d bytes long; send at most %d, such as a UUID or a hash", n, maxKeyBytes)
}

// badByte names a byte that no key can hold. It is one byte of the key, and not
// one that anybody's secret is made of.
func badByte(c byte, at int) error {
	return fmt.Errorf("the idempotency key has the byte 0x%02X at byte %d; keys consist of printable ASCII: encode other text, as base64 or hexadecimal", c, at)
}
