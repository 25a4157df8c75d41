package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
)

// pattern is a parsed Route.Match.
type pattern struct {
	methods []string // nil for any
	parts   []string // of the path; "*" stands for one whole part
	open    bool     // what follows the last part is free
}

// ParseMatch reads a [Route.Match] and gives the methods that it names, nil if
// it names none. It is for those who check a configuration.
func ParseMatch(match string) (methods []string, err error) {
	p, err := parsePattern(match)
	return p.methods, err
}

func parsePattern(match string) (pattern, error) {
	var p pattern
	fields := strings.Fields(match)
	switch len(fields) {
	case 1:
	case 2:
		p.methods = strings.Split(fields[0], ",")
	default:
		return p, fmt.Errorf("%q is no match: write a path, or methods and a path, as in POST /v1/charges/*", match)
	}
	for _, m := range p.methods {
		if m == "" || strings.ToUpper(m) != m || strings.ContainsAny(m, "/*") {
			return p, fmt.Errorf("%q is no method: write methods in upper case, with commas and no space between them, as in POST,PUT", m)
		}
	}
	if slices.Contains(p.methods, http.MethodConnect) {
		return p, errors.New("CONNECT opens a tunnel, and what goes through it cannot be guarded")
	}
	route := fields[len(fields)-1]
	if route == "*" {
		route = "/*"
	}
	if !strings.HasPrefix(route, "/") {
		return p, fmt.Errorf("the path %q must begin with /, or be * for every path", route)
	}
	if strings.ContainsAny(route, "?#%") {
		return p, fmt.Errorf("the path %q is compared with decoded paths, without query: it cannot contain ?, # or %%", route)
	}
	route, p.open = strings.CutSuffix(route, "*")
	p.parts = strings.Split(route, "/")
	for i, part := range p.parts {
		if strings.Contains(part, "*") && (part != "*" || p.open && i == len(p.parts)-1) {
			return p, fmt.Errorf("the path %q has a * inside a part: a * stands for one whole part, or at the end for all that follows", fields[len(fields)-1])
		}
	}
	return p, nil
}

// matches tells whether a request with this method and cleaned path is meant.
func (p *pattern) matches(method, path string) bool {
	if p.methods != nil && !slices.Contains(p.methods, method) {
		return false
	}
	for i, part := range p.parts {
		last := i == len(p.parts)-1
		if last && p.open {
			return strings.HasPrefix(path, part)
		}
		have, rest, more := strings.Cut(path, "/")
		if part != have && (part != "*" || have == "") || more == last {
			return false
		}
		path = rest
	}
	return true
}

// mayMatch tells whether a path with fields in braces can become one that is
// matched.
func (p *pattern) mayMatch(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	if strings.Contains(path, "{path}") {
		return true
	}
	parts := strings.Split(path, "/")
	for i, part := range p.parts {
		last := i == len(p.parts)-1
		switch {
		case i >= len(parts):
			return false
		case strings.Contains(parts[i], "{"):
			if last && p.open {
				return true
			}
		case last && p.open:
			return strings.HasPrefix(parts[i], part)
		case part != "*" && part != parts[i]:
			return false
		}
	}
	return len(parts) == len(p.parts)
}

// cleaned gives the path by which routes are chosen: without empty parts and
// dots, so that /v1//charges is not another route than the one the upstream
// will take it for.
func cleaned(p string) string {
	if plain(p) {
		return p
	}
	c := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

// plain tells whether cleaning would change nothing.
func plain(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.Contains(p, "//") && !strings.Contains(p, "/.")
}
