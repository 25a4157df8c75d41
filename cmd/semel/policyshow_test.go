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

// shown runs `semel policy show`, looks at its exit code, and gives all that it
// wrote. None of it is a secret of the settings.
func shown(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out, told bytes.Buffer
	if got := run(append([]string{"policy", "show"}, args...), &out, &told); got != code {
		t.Errorf("%q: exit code %d, want %d: %s", args, got, code, told.String())
	}
	all := out.String() + told.String()
	if strings.Contains(all, "of-the-gateway") || strings.Contains(all, "secret-of") || strings.Contains(all, "user.example") {
		t.Errorf("%q tells what is none of a client's business:\n%s", args, all)
	}
	return all
}

func has(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const shownSettings = `upstream: http://user.example
secret-file: /etc/semel/secret-of-this-deployment
routes:
  - match: POST /v1/orders
    require: true
    wait: 0s
    remember: 7d
    resolve: {path: "/by/{derived-key}", headers: {Authorization: Bearer of-the-gateway}}
`

func TestPolicyShow(t *testing.T) {
	t.Setenv("SEMEL_CONFIG", "")
	settings := write(t, "semel.yaml", shownSettings)
	text := shown(t, 0, settings)
	has(t, text, "POST /v1/orders\n  guarded      POST\n", "a request without one", "remembered for 7d", "told at once", "settled by asking the service", "\n*\n")
	for line := range strings.Lines(text) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}
	var one semelhttp.PolicyDocument
	if err := json.Unmarshal([]byte(shown(t, 0, settings, "--json", "--method", "POST", "--path", "/v1/orders")), &one); err != nil || one.Retention.Remember != 604800 || one.Name != "POST /v1/orders" {
		t.Errorf("got %+v, %v", one, err)
	}
	var all struct{ Policies []semelhttp.PolicyDocument }
	if err := json.Unmarshal([]byte(shown(t, 0, settings, "--json")), &all); err != nil || len(all.Policies) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	has(t, shown(t, 0), "*\n  guarded      POST, PATCH\n") // the defaults
	has(t, shown(t, 2, settings, "--method", "POST"), "give both")
	has(t, shown(t, 1, settings, "--method", "GET", "--path", "/v1/orders"), "not guarded")
	has(t, shown(t, 2, write(t, "bad.yaml", "replay: never")), "replay")
}

func TestPolicyShowForOpenAPI(t *testing.T) {
	t.Setenv("SEMEL_CONFIG", "")
	settings := write(t, "semel.yaml", shownSettings)
	var byMatch map[string]map[string]semelhttp.PolicyDocument
	if err := json.Unmarshal([]byte(shown(t, 0, settings, "--json", "--openapi")), &byMatch); err != nil || byMatch["*"]["x-idempotency"].Retention.Remember != 259200 {
		t.Errorf("got %+v, %v", byMatch, err)
	}
	has(t, shown(t, 0, settings, "--openapi"), "# POST /v1/orders\nx-idempotency:\n  class: at-most-once\n", "# *\nx-idempotency:")
	api := write(t, "api.yaml", "openapi: 3.1.0 # ours\nservers: [{url: /v1}]\npaths:\n  /orders:\n    post:\n      summary: s\n    get:\n      summary: g\n")
	merged := shown(t, 0, settings, "--merge", api)
	has(t, merged, "openapi: 3.1.0 # ours\n", "    post:\n      x-idempotency:\n        class: at-most-once\n", "      summary: s\n    get:\n      summary: g\n", "without: refused")
	has(t, shown(t, 2, settings, "--merge", api, "--json"), "leave out")
	has(t, shown(t, 1, settings, "--merge", settings), "no OpenAPI 3 file")
	other := write(t, "other.yaml", "openapi: 3.1.0\npaths:\n  /x:\n    get:\n      summary: g\n")
	has(t, shown(t, 0, settings, "--merge", other), "none of the operations")
}
