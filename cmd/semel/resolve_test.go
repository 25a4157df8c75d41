package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// heldIn writes a record into a store as a program would have left it. ttl is
// the rest of its lease.
func heldIn(t *testing.T, dir string, key semel.Key, state semel.State, ttl time.Duration) semel.Record {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	next := semel.Record{Digest: key.Digest(nil), State: state, Attempt: 1, TTL: ttl, Key: key, Owner: "host:1", Code: 201}
	r, err := store.CompareAndSwap(t.Context(), semel.Version{}, next)
	if err != nil {
		t.Fatal(err)
	}
	return r.Record
}

// A gateway that runs answers from what an operator has settled.
func TestResolveBesideAGateway(t *testing.T) {
	runs := 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if runs++; runs <= 2 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "run %d", runs)
	}))
	defer service.Close()
	dir := t.TempDir()
	g := startGateway(t, dir, "--upstream", service.URL)
	for _, key := range []string{"ran", "did-not"} {
		if status, body := post(t, g.url, key, "x"); status != 409 || !strings.Contains(body, "outcome-unknown") {
			t.Fatalf("%s: got %d %q", key, status, body)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "answer.json"), []byte(`{"id":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := semelRun(t, dir, "resolve", "ran", "--done", "answer.json", "--status", "201", "--who", "anna", "--why", "charge ch_5 is in the ledger")
	for _, want := range []string{"before   in doubt: it was started", "settled  anna: charge ch_5 is in the ledger", "ran  done: it ran once", "status 201", "settled as done"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("got %d and\n%s%swant %q", code, out, errs, want)
		}
	}
	for range 2 {
		if status, body := post(t, g.url, "ran", "x"); status != 201 || body != `{"id":7}` {
			t.Errorf("the retry got %d %q, want the answer that was given", status, body)
		}
	}
	code, out, errs = semelRun(t, dir, "resolve", "did-not", "--not-done", "--who", "anna", "--why", "no charge", "--json")
	var both struct{ Before, After recordJSON }
	if err := json.Unmarshal([]byte(out), &both); err != nil || code != 0 || both.Before.State != "in-doubt" || both.After.State != "released" || both.After.Owner != "anna: no charge" {
		t.Errorf("got %d, %v\n%s%s", code, err, out, errs)
	}
	for range 2 {
		if status, body := post(t, g.url, "did-not", "x"); status != 200 || body != "run 3" {
			t.Errorf("the retry got %d %q, want run 3", status, body)
		}
	}
	_, out, _ = semelRun(t, dir, "get", "did-not")
	if !strings.Contains(out, "settled as not done") || !strings.Contains(out, "anna: no charge") || !strings.Contains(out, "claimed again") {
		t.Errorf("the history does not show who settled it:\n%s", out)
	}
	if _, out, _ = semelRun(t, dir, "list", "--state", "in-doubt", "--json"); !strings.Contains(out, `"records":[]`) {
		t.Errorf("still in doubt:\n%s", out)
	}
}

func TestResolveRefuses(t *testing.T) {
	dir := t.TempDir()
	http := func(who string) string { return semel.JoinScope(who, "POST", "/orders", "key") }
	heldIn(t, dir, semel.Key{Scope: http("a"), ID: "busy"}, semel.Pending, time.Hour)
	heldIn(t, dir, semel.Key{Scope: http("a"), ID: "finished"}, semel.Done, time.Hour)
	heldIn(t, dir, semel.Key{Scope: http("a"), ID: "free"}, semel.Released, time.Hour)
	heldIn(t, dir, semel.Key{Scope: http("a"), ID: "one"}, semel.Pending, 0)
	heldIn(t, dir, semel.Key{Scope: http("a"), ID: "two"}, semel.Pending, 0)
	second := heldIn(t, dir, semel.Key{Scope: http("b"), ID: "two"}, semel.Pending, 0)
	heldIn(t, dir, semel.Key{Scope: "a|charge", ID: "plain"}, semel.Pending, 0)
	heldIn(t, dir, semel.Key{Scope: "a|/shop.Orders/Create|key", ID: "grpc"}, semel.Pending, 0)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	why := " --who anna --why known"
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, "which key? give one"},
		{"one two --not-done" + why, 2, "one key at a time, and here are 2"},
		{"one" + why, 2, "say what happened: --done FILE, or --not-done"},
		{"one --done f --not-done" + why, 2, "say what happened"},
		{"one --not-done --who anna", 2, "say how you know: --why"},
		{"one --not-done --why known", 2, "say who you are: --who NAME"},
		{"one --not-done --status 201" + why, 2, "--not-done has none"},
		{"one --done f --status 99" + why, 2, "an answer has a status from 200 to 599"},
		{"one --done f --status 204" + why, 1, "with the status 204 has no body"},
		{"one --done f --form json" + why, 2, "there are http and raw"},
		{"one --done f --form raw --content-type text/plain" + why, 2, "without a --content-type"},
		{"one --done f --remember 1h" + why, 2, "--remember 1h0m0s is shorter than --replay 24h0m0s"},
		{"one --done f --replay 1ms --remember 1s" + why, 2, "semel: --replay 1ms and --remember 1s do not do: policy"},
		{"one --not-done --who anna --why " + strings.Repeat("x", 1100), 2, "--who and --why have 1104 bytes together, and 1024 are kept"},
		{"one --done none" + why, 1, "the answer cannot be read"},
		{"one --not-done --store sqlite:none.db" + why, 1, "there is no store at"},
		{"one --not-done --store memory:" + why, 2, "is inside the gateway's process"},
		{"absent --not-done" + why, 1, "nothing is remembered of the key absent"},
		{"busy --not-done" + why, 1, "is in progress: host:1 works on it, and its lease lasts another 59m"},
		{"finished --not-done" + why, 1, "is done with the status 201, and an outcome does not change"},
		{"free --not-done" + why, 1, "is free already"},
		{"two --not-done" + why, 2, "2 scopes have the key two: give the digest"},
		{"plain --done f" + why, 2, "add --form raw"},
		{"grpc --done f" + why, 2, "looks like a gRPC method"},
		{"two --scope b --not-done" + why, 0, "settled  anna: known"},
		{second.Digest.String() + " --not-done" + why, 1, "is free already"},
		{"plain --done f --form raw" + why, 0, "plain  done: it ran once"},
		{"one --done f" + why, 0, "one  done: it ran once"},
	} {
		code, out, errs := semelRun(t, dir, append([]string{"resolve"}, strings.Fields(tc.args)...)...)
		if code != tc.code || !strings.Contains(out+errs, tc.want) {
			t.Errorf("resolve %s: got %d and\n%s%swant %d and %q", tc.args, code, out, errs, tc.code, tc.want)
		}
		if code != 0 && out != "" {
			t.Errorf("resolve %s: an error is printed to standard output:\n%s", tc.args, out)
		}
	}
	store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	held, err := store.Get(t.Context(), semel.Key{Scope: "a|charge", ID: "plain"}.Digest(nil))
	if err != nil || string(held.Record.Result) != "x" {
		t.Errorf("raw: stored %q, %v", held.Record.Result, err)
	}
}

// A key in doubt shows what its resolver would go by, and steps are not taken
// for operations.
func TestGetShowsMemoAndSteps(t *testing.T) {
	dir := t.TempDir()
	store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := semel.Policy{Name: "charge"}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	claim, _, err := guard.Begin(t.Context(), semel.Ask{
		Key: semel.Key{Scope: semel.JoinScope("a", "POST", "/orders", "key"), ID: "k"}, Memo: []byte("GET /charges/7"), Policy: &policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim.Step(t.Context(), "charge", func(context.Context) (semel.Result, error) { return semel.Result{Code: 1}, nil }); err != nil {
		t.Fatal(err)
	}
	if err := claim.Doubt(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	_, out, errs := semelRun(t, dir, "get", "k")
	for _, want := range []string{"policy    charge", "memo      GET /charges/7", "step      1 of this operation, charge", "semel resolve --done"} {
		if !strings.Contains(out, want) {
			t.Errorf("get:\n%s%swant %q", out, errs, want)
		}
	}
	if _, out, _ = semelRun(t, dir, "get", "k", "--json"); !strings.Contains(out, `"policy":"charge","memo":"R0VUIC9jaGFyZ2VzLzc="`) {
		t.Errorf("get --json:\n%s", out)
	}
	if _, out, _ = semelRun(t, dir, "list"); !strings.Contains(out, "step 1 of POST /orders") {
		t.Errorf("list:\n%s", out)
	}
	if code, _, errs := semelRun(t, dir, "resolve", "k", "--not-done", "--who", "anna", "--why", "known"); code != 0 {
		t.Errorf("resolve took a step for another operation: %s", errs)
	}
}
