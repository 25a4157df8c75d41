package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

func TestPolicyShow(t *testing.T) {
	t.Setenv("SEMEL_CONFIG", "")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	settings := write("semel.yaml", `upstream: http://user.example
secret-file: /etc/semel/secret-of-this-deployment
routes:
  - match: POST /v1/orders
    require: true
    wait: 0s
    remember: 7d
    resolve: {path: "/by/{derived-key}", headers: {Authorization: Bearer of-the-gateway}}
`)
	api := write("api.yaml", "openapi: 3.1.0 # ours\nservers: [{url: /v1}]\npaths:\n  /orders:\n    post:\n      summary: s\n    get:\n      summary: g\n")
	show := func(code int, args ...string) string {
		t.Helper()
		var out, told bytes.Buffer
		if got := run(append([]string{"policy", "show"}, args...), &out, &told); got != code {
			t.Errorf("%q: exit code %d, want %d: %s", args, got, code, told.String())
		}
		if all := out.String() + told.String(); strings.Contains(all, "of-the-gateway") || strings.Contains(all, "secret-of") || strings.Contains(all, "user.example") {
			t.Errorf("%q tells what is none of a client's business:\n%s", args, all)
		}
		return out.String() + told.String()
	}
	has := func(text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("lacks %q:\n%s", want, text)
			}
		}
	}
	text := show(0, settings)
	has(text, "POST /v1/orders\n  guarded      POST\n", "a request without one", "remembered for 7d", "told at once", "settled by asking the service", "\n*\n")
	for line := range strings.Lines(text) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}
	var one semelhttp.PolicyDocument
	if err := json.Unmarshal([]byte(show(0, settings, "--json", "--method", "POST", "--path", "/v1/orders")), &one); err != nil || one.Retention.Remember != 604800 || one.Name != "POST /v1/orders" {
		t.Errorf("got %+v, %v", one, err)
	}
	var all struct{ Policies []semelhttp.PolicyDocument }
	if err := json.Unmarshal([]byte(show(0, settings, "--json")), &all); err != nil || len(all.Policies) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	var byMatch map[string]map[string]semelhttp.PolicyDocument
	if err := json.Unmarshal([]byte(show(0, settings, "--json", "--openapi")), &byMatch); err != nil || byMatch["*"]["x-idempotency"].Retention.Remember != 259200 {
		t.Errorf("got %+v, %v", byMatch, err)
	}
	has(show(0, settings, "--openapi"), "# POST /v1/orders\nx-idempotency:\n  class: at-most-once\n", "# *\nx-idempotency:")
	has(show(0, settings, "--merge", api), "openapi: 3.1.0 # ours\n", "    post:\n      x-idempotency:\n        class: at-most-once\n", "      summary: s\n    get:\n      summary: g\n")
	has(show(0), "*\n  guarded      POST, PATCH\n") // the defaults
	has(show(2, settings, "--method", "POST"), "give both")
	has(show(2, settings, "--merge", api, "--json"), "leave out")
	has(show(1, settings, "--method", "GET", "--path", "/v1/orders"), "not guarded")
	has(show(1, settings, "--merge", settings), "no OpenAPI 3 file")
	has(show(2, write("bad.yaml", "replay: never")), "replay")
	other := write("other.yaml", "openapi: 3.1.0\npaths:\n  /x:\n    get:\n      summary: g\n")
	has(show(0, settings, "--merge", other), "none of the operations")
}
