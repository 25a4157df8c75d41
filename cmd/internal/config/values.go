package config

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/semelhq/semel"
)

// ParseDuration reads a time as settings have it, which is not 0.
func ParseDuration(text string) (time.Duration, error) { return above(text) }

// parseDuration reads 250ms, 30s, 5m, 24h, 7d, and several of them in a row.
func parseDuration(text string) (time.Duration, error) {
	days, rest, has := strings.Cut(text, "d")
	var d time.Duration
	if has {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, badDuration(text)
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		rest = text
	}
	if has && rest == "" {
		return d, nil
	}
	if text == "0" {
		return 0, nil
	}
	more, err := time.ParseDuration(rest)
	switch {
	case err != nil && strings.Trim(text, "0123456789.") == "" && text != "":
		return 0, fmt.Errorf("%q has no unit; write %[1]ss, %[1]sm, %[1]sh or %[1]sd", text)
	case err != nil:
		return 0, badDuration(text)
	case more < 0:
		return 0, fmt.Errorf("%q is negative", text)
	}
	return d + more, nil
}

func badDuration(text string) error {
	return fmt.Errorf("%q is no duration; write it as 250ms, 30s, 24h or 7d", text)
}

// FormatDuration gives d as it is written in settings.
func FormatDuration(d time.Duration) string { return formatDuration(d) }

// formatDuration gives whole days as such, and no zero parts.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// ParseBytes reads 65536, 64KiB, 1MiB, 10MB.
func ParseBytes(text string) (int64, error) {
	units := [...]struct {
		name string
		size int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 1 || n > (1<<40)/u.size {
			break
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q is no size above 0; write it in bytes, or as 64KiB or 1MiB", text)
}

func formatBytes(n int64) string {
	for _, u := range [...]struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no whole number above 0", text)
	}
	return n, nil
}

// parseClass refuses the one class that a gateway cannot keep.
func parseClass(text string) (semel.Class, error) {
	c, err := semel.ParseClass(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no guarantee class; there are at-most-once, at-least-once and fenced", text)
	case c == semel.Transactional:
		return 0, errors.New("a gateway cannot be transactional: it does not share a database transaction with the upstream; take at-most-once, or fenced if the upstream itself refuses a key that it has seen")
	}
	return c, nil
}

// ParseScope reads header:NAME[,NAME] or shared.
func ParseScope(text string) (Scope, error) {
	if text == "shared" {
		return Scope{Shared: true}, nil
	}
	list, ok := strings.CutPrefix(text, "header:")
	if !ok {
		return Scope{}, fmt.Errorf("%q is no scope; write header:NAME (several names with commas) to tell clients apart by request headers, or shared if there is only one client", text)
	}
	var s Scope
	for name := range strings.SplitSeq(list, ",") {
		name, err := parseHeader(strings.TrimSpace(name))
		if err != nil {
			return Scope{}, err
		}
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Idempotency-Key":
			return Scope{}, fmt.Errorf("%s does not tell one client from another; take a header that does, such as Authorization", name)
		}
		s.Headers = append(s.Headers, name)
	}
	return s, nil
}

func parseHeader(name string) (string, error) {
	bad := name == "" || strings.IndexFunc(name, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) >= 0
	if bad {
		return "", fmt.Errorf("%q is no header name", name)
	}
	return textproto.CanonicalMIMEHeaderKey(name), nil
}

func parseStatus(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 400 || n > 599 {
		return 0, fmt.Errorf("%q is no status from 400 to 599: only those can mean that nothing happened", text)
	}
	return n, nil
}

func parseAnyStatus(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 200 || n > 599 {
		return 0, fmt.Errorf("%q is no status that an answer can have; write 200 to 599", text)
	}
	return n, nil
}

// asIs takes any text but none.
func asIs(text string) (string, error) {
	if text == "" {
		return "", errors.New("it is empty")
	}
	return text, nil
}

// parseOwnPath reads a path that the gateway answers itself.
func parseOwnPath(text string) (string, error) {
	if text != "none" && (!strings.HasPrefix(text, "/") || strings.ContainsAny(text, "?#%<>\" ") || text == "/") {
		return "", fmt.Errorf("%q is no path that the gateway could answer itself; write it as /.well-known/semel/status, or none", text)
	}
	return text, nil
}
