package openapi

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/goccy/go-yaml"

	"github.com/semelhq/semel/semelhttp"
)

// policies are for POST below /v1, with the path in them.
func policies(method, path string) any {
	if method != "POST" || !strings.HasPrefix(path, "/v1/") {
		return nil
	}
	return semelhttp.PolicyDocument{Class: "at-most-once", ReplayHeader: path, NotDone: []int{425, 429}}
}

// without removes from a file's lines those of the extension.
func without(t *testing.T, text, old []byte) {
	t.Helper()
	lines := make(map[string]int)
	for line := range bytes.Lines(text) {
		lines[string(line)]++
	}
	for line := range bytes.Lines(old) {
		if lines[string(line)]--; lines[string(line)] < 0 {
			t.Errorf("the line %q is not there any more", line)
		}
	}
}

func TestMerge(t *testing.T) {
	for _, path := range []string{"testdata/shop.yaml", "testdata/shop.json", "testdata/small.json"} {
		t.Run(path, func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, n, err := Merge(file, policies)
			if err != nil || n != 3 {
				t.Fatalf("%d operations, %v", n, err)
			}
			if strings.HasSuffix(path, ".yaml") {
				without(t, got, file)
			}
			document, err := openapi3.NewLoader().LoadFromData(got)
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			if err := document.Validate(t.Context()); err != nil {
				t.Errorf("%v\n%s", err, got)
			}
			for template, item := range document.Paths.Map() {
				for method, operation := range item.Operations() {
					said, there := operation.Extensions[Name]
					if there != (method == "POST") {
						t.Errorf("%s %s has %v", method, template, said)
						continue
					}
					if !there {
						continue
					}
					text, err := json.Marshal(said)
					var p semelhttp.PolicyDocument
					if err != nil || json.Unmarshal(text, &p) != nil || p.ReplayHeader != "/v1"+template || len(p.NotDone) != 2 {
						t.Errorf("%s %s: got %s", method, template, text)
					}
				}
			}
			again, n, err := Merge(got, policies)
			if err != nil || n != 3 || !bytes.Equal(again, got) {
				t.Errorf("merged twice: %d, %v\n%s", n, err, again)
			}
			crlf := bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n"))
			if got, _, err := Merge(crlf, policies); err != nil || path != "testdata/small.json" && bytes.Count(got, []byte("\n")) != bytes.Count(got, []byte("\r\n")) {
				t.Errorf("with CRLF: %v\n%q", err, got)
			}
		})
	}
}

// What stands there already is replaced, wherever it stands.
func TestMergeReplaces(t *testing.T) {
	for _, file := range []string{
		"openapi: 3.0.0\npaths:\n  /v1/a:\n    post:\n      summary: s\n      x-idempotency:\n        class: old # of old\n\n        deeper:\n          - 1\n      # a comment\n      responses: {}\n",
		"openapi: 3.0.0\npaths:\n  /v1/a:\n    post:\n      x-idempotency: {class: old}\n      responses: {}\n",
		"openapi: 3.0.0\npaths:\n  /v1/a:\n    post:\n      responses: {}\n      x-idempotency:\n        class: old",
		"openapi: 3.0.0\npaths:\n  /v1/a:\n    post:\n      responses: {}\n      x-idempotency:\n        class: old\n  /v1/b:\n    get: {}\n",
		`{"openapi":"3.0.0","paths":{"/v1/a":{"post":{"x-idempotency":{"class":"old"},"responses":{}}}}}`,
		`{"openapi":"3.0.0","paths":{"/v1/a":{"post":{"responses":{}, "x-idempotency" : "old" }}}}`,
		"{\n\t\"openapi\": \"3.0.0\",\n\t\"paths\": {\n\t\t\"/v1/a\": {\n\t\t\t\"post\": {\n\t\t\t\t\"x-idempotency\": [\n\t\t\t\t\t\"old\"\n\t\t\t\t]\n\t\t\t}\n\t\t}\n\t}\n}\n",
	} {
		got, n, err := Merge([]byte(file), policies)
		if err != nil || n != 1 || bytes.Contains(got, []byte("class: old")) || bytes.Contains(got, []byte(`"old"`)) || bytes.Count(got, []byte(Name)) != 1 {
			t.Errorf("%s\ngave %d, %v\n%s", file, n, err, got)
		}
		if strings.Contains(file, "# a comment") && !bytes.Contains(got, []byte("\n      # a comment\n      responses: {}\n")) {
			t.Errorf("the comment is gone:\n%s", got)
		}
		if strings.Contains(file, "\t") && !bytes.Contains(got, []byte("\t\t\t\t\t\"class\": \"at-most-once\",\n")) {
			t.Errorf("not indented like the rest:\n%s", got)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	for want, file := range map[string]string{
		"neither YAML nor JSON":   "a: [",
		"no OpenAPI 3 file":       "swagger: '2.0'\npaths: {}\n",
		"no paths":                "openapi: 3.1.0\n",
		"has variables":           "openapi: 3.1.0\nservers: [{url: 'https://{host}/v1'}]\npaths: {}\n",
		"line 4, POST /v1/a":      "openapi: 3.1.0\npaths:\n  /v1/a:\n    post: {responses: {}}\n",
		"write it as lines":       "openapi: 3.1.0\npaths:\n  /v1/a:\n    post: {}\n",
		"line 3, POST /v1/b: it ": "openapi: 3.1.0\npaths:\n  /v1/b: {post: {responses: {}}}\n",
	} {
		if got, _, err := Merge([]byte(file), policies); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q\n%s", file, err, want, got)
		}
	}
}

// Whatever comes out says what went in, and the extension besides.
func FuzzMerge(f *testing.F) {
	for _, path := range []string{"testdata/shop.yaml", "testdata/shop.json", "testdata/small.json"} {
		file, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
	}
	f.Add([]byte("openapi: 3.0.0\npaths: &a\n  ? /v1/a\n  : post:\n      x: |\n        x-idempotency: 1\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, _, err := Merge(file, policies)
		if err != nil {
			return
		}
		var was, is map[string]any
		if yaml.Unmarshal(file, &was) != nil || yaml.Unmarshal(got, &is) != nil {
			t.Fatalf("%q became unreadable: %q", file, got)
		}
	})
}
