package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/semelhq/semel/semelhttp"
)

// template is a text with fields that one request fills in.
type template struct {
	parts  []part
	header bool // else a path with a query
}

// part is a literal, or a field with the literal "".
type part struct {
	literal, field string
	query          bool // behind the path's question mark
}

// The fields that are known only once a key is in doubt.
const (
	derivedKeyField = "derived-key"
	keyField        = "key"
)

const fieldsInWords = "{derived-key}, {key}, {body.NAME}, {query.NAME}, {path} and {path.1}"

// parseTemplate reads a text whose fields are in braces.
func parseTemplate(text string, header bool) (template, error) {
	t := template{header: header}
	query := false
	for text != "" {
		literal, rest, field := strings.Cut(text, "{")
		if strings.Contains(literal, "}") {
			return t, errors.New("a } has no { before it")
		}
		query = query || strings.Contains(literal, "?")
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !field {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return t, errors.New("a { has no } behind it")
		case !knownField(name):
			return t, fmt.Errorf("there is no field {%s}; there are %s", name, fieldsInWords)
		}
		t.parts = append(t.parts, part{field: name, query: query})
		text = after
	}
	return t, nil
}

func knownField(name string) bool {
	kind, rest, more := strings.Cut(name, ".")
	switch kind {
	case derivedKeyField, keyField:
		return !more
	case "body", "query":
		return rest != "" && !slices.Contains(strings.Split(rest, "."), "")
	case "path":
		n, err := strconv.Atoi(rest)
		return !more || err == nil && n >= 1
	}
	return false
}

// names are the fields, each once.
func (t template) names() []string {
	var out []string
	for _, p := range t.parts {
		if p.field != "" && !slices.Contains(out, p.field) {
			out = append(out, p.field)
		}
	}
	return out
}

// fill puts the values in, each escaped for its place. A value that would change
// what a path means is refused: what a client sends must not lead elsewhere.
func (t template) fill(values map[string]string) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		value, known := values[p.field]
		switch {
		case p.field == "":
			b.WriteString(p.literal)
		case !known:
			return "", fmt.Errorf("{%s} was not kept of the request", p.field)
		case t.header:
			if strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
				return "", fmt.Errorf("{%s} has characters that cannot stand in a header", p.field)
			}
			b.WriteString(value)
		case p.query:
			b.WriteString(url.QueryEscape(value))
		case p.field == "path":
			b.WriteString((&url.URL{Path: value}).EscapedPath())
		case value == "." || value == ".." || strings.ContainsAny(value, `/\`):
			return "", fmt.Errorf("{%s} is not one part of a path: it is . or .., or has a slash in it", p.field)
		default:
			b.WriteString(url.PathEscape(value))
		}
	}
	return b.String(), nil
}

// maxValue is the longest value in bytes that a field can have.
const maxValue = 512

// valuesOf finds the fields of these names in a request, but for those that are
// known later. The error says what the request lacks.
func valuesOf(names []string, r *http.Request, keyHeader string, body []byte) (map[string]string, error) {
	values := make(map[string]string)
	var tree any
	for _, name := range names {
		kind, rest, _ := strings.Cut(name, ".")
		var value string
		var err error
		switch kind {
		case derivedKeyField:
			continue
		case keyField:
			if r.Header[keyHeader] == nil {
				continue // derived from the content: the record has it
			}
			value, err = semelhttp.ParseKey(r.Header[keyHeader])
		case "query":
			value, err = queryValue(r, rest)
		case "path":
			value, err = pathValue(r.URL, rest)
		case "body":
			if tree == nil {
				tree, err = parseBody(body)
			}
			if err == nil {
				value, err = bodyValue(tree, rest)
			}
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("this route must be able to find out what became of a request, and for that it needs {%s}: %w", name, err)
		case value == "" || len(value) > maxValue:
			return nil, fmt.Errorf("this route must be able to find out what became of a request: {%s} has %d bytes, and 1 to %d are needed", name, len(value), maxValue)
		}
		values[name] = value
	}
	return values, nil
}

func queryValue(r *http.Request, name string) (string, error) {
	values := r.URL.Query()[name]
	if len(values) != 1 {
		return "", fmt.Errorf("the query has %q %d times, and once is needed", name, len(values))
	}
	return values[0], nil
}

// pathValue gives a part of a path, counted from 1, or all of it, decoded.
func pathValue(u *url.URL, number string) (string, error) {
	if number == "" {
		if !plain(u.Path) || u.RawPath != "" {
			return "", errors.New("the path has empty parts, dots, or escapes that mean more than their letter")
		}
		return u.Path, nil
	}
	n, err := strconv.Atoi(number)
	parts := strings.Split(strings.Trim(u.EscapedPath(), "/"), "/")
	if err != nil || n > len(parts) {
		return "", fmt.Errorf("the path has %d parts", len(parts))
	}
	return url.PathUnescape(parts[n-1])
}

func parseBody(body []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil || d.More() {
		return nil, errors.New("the body is not JSON")
	}
	return tree, nil
}

// bodyValue follows a path of names and, in lists, of numbers from 0.
func bodyValue(tree any, path string) (string, error) {
	for name := range strings.SplitSeq(path, ".") {
		switch node := tree.(type) {
		case map[string]any:
			tree = node[name]
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n < 0 || n >= len(node) {
				return "", errors.New("the body has no such entry")
			}
			tree = node[n]
		default:
			return "", errors.New("the body has no such field")
		}
	}
	switch value := tree.(type) {
	case string:
		return value, nil
	case json.Number:
		return value.String(), nil
	case nil:
		return "", errors.New("the body has no such field")
	}
	return "", errors.New("the field is neither a text nor a number")
}
