package openapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Name is that of the extension.
const Name = "x-idempotency"

// Policy gives what to write into the operation of a request, nil for nothing. The
// path is that of the file's first server and of the operation, with its
// parameters in braces.
type Policy func(method, path string) any

// Merge gives file with the extension in each operation for which there is a
// policy, in place of one that is there already, and how many those are. It has
// looked that nothing else is different. Its errors tell what of the file it cannot
// deal with.
func Merge(file []byte, policy Policy) (merged []byte, operations int, err error) {
	if n := bytes.Count(file, []byte("\n")); n > 0 && n == bytes.Count(file, []byte("\r\n")) {
		merged, operations, err = Merge(bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n")), policy)
		return bytes.ReplaceAll(merged, []byte("\n"), []byte("\r\n")), operations, err
	}
	before, err := read(file)
	if err != nil {
		return nil, 0, err
	}
	prefix, err := before.prefix()
	if err != nil {
		return nil, 0, err
	}
	wanted := func(method, path string) any { return policy(strings.ToUpper(method), prefix+path) }
	var edits []edit
	if text := bytes.TrimLeft(file, " \t\r\n\ufeff"); len(text) > 0 && text[0] == '{' {
		edits, err = jsonEdits(file, wanted)
	} else {
		edits, err = yamlEdits(file, wanted)
	}
	if err != nil {
		return nil, 0, err
	}
	merged = apply(file, edits)
	after, err := read(merged)
	if err == nil && (after.count() < len(edits) || !reflect.DeepEqual(before.without(), after.without())) {
		err = errors.New("what came out did not say the same")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("this file is written in a way that %s cannot be put into it safely; put it there by hand (%w)", Name, err)
	}
	return merged, len(edits), nil
}

// edit replaces the bytes from begin to end.
type edit struct {
	begin, end int
	text       string
}

func apply(file []byte, edits []edit) []byte {
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Compare(a.begin, b.begin) })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(append(out, file[at:e.begin]...), e.text...)
		at = e.end
	}
	return append(out, file[at:]...)
}

// methods are the members of a path that are operations.
func isMethod(name string) bool {
	return slices.Contains([]string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}, name)
}

// content is what a file says.
type content map[string]any

func read(file []byte) (content, error) {
	var c content
	if err := yaml.Unmarshal(file, &c); err != nil {
		return nil, fmt.Errorf("this is neither YAML nor JSON: %w", err)
	}
	if version, ok := c["openapi"].(string); !ok || !strings.HasPrefix(version, "3.") {
		return nil, errors.New("this is no OpenAPI 3 file: it does not begin with openapi: 3.…")
	}
	if _, ok := c["paths"].(map[string]any); !ok {
		return nil, errors.New("this OpenAPI file has no paths")
	}
	return c, nil
}

// prefix gives the path of the first server.
func (c content) prefix() (string, error) {
	servers, _ := c["servers"].([]any)
	if len(servers) == 0 {
		return "", nil
	}
	first, _ := servers[0].(map[string]any)
	text, _ := first["url"].(string)
	if strings.Contains(text, "{") {
		return "", fmt.Errorf("the first server, %s, has variables, so the paths of its operations are not known; put a server without them first", text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("the first server, %s, is no URL: %w", text, err)
	}
	return strings.TrimRight(u.Path, "/"), nil
}

// operations calls do for each.
func (c content) operations(do func(operation map[string]any)) {
	paths, _ := c["paths"].(map[string]any)
	for _, item := range paths {
		item, _ := item.(map[string]any)
		for name, operation := range item {
			if operation, ok := operation.(map[string]any); ok && isMethod(name) {
				do(operation)
			}
		}
	}
}

func (c content) count() (n int) {
	c.operations(func(operation map[string]any) {
		if operation[Name] != nil {
			n++
		}
	})
	return n
}

// without removes the extension, which is what may differ.
func (c content) without() content {
	c.operations(func(operation map[string]any) { delete(operation, Name) })
	return c
}

// Block gives the extension as lines of YAML.
func Block(policy any) (string, error) {
	text, err := json.Marshal(map[string]any{Name: policy})
	if err != nil {
		return "", err
	}
	block, err := yaml.JSONToYAML(text)
	return string(block), err
}
