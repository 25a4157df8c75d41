package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

// loaded loads a file with that text.
func loaded(t *testing.T, text string) Settings {
	t.Helper()
	path := filepath.Join(t.TempDir(), "semel.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(Sources{File: path, Lookup: nothing})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const everyAssumption = `
upstream: http://127.0.0.1:3000
drain: 20s
lifecycle: {journal: 90d}
assumptions:
  client-attempts: 5
  client-timeout: 10s
  client-backoff: 1s
  client-backoff-cap: 30s
  client-horizon: 1d
  proxy-timeout: 60s
  proxy-retries: 2
  handler-p99: 500ms
  handler-longest: 20s
  broker-redelivery: 4d
  partition: 1h
  reconciliation: 24h
  pause: 5s
  clock-skew: 1m
  keys: uuidv7
  effect: money
  longest-answer: 64KiB
  store-traits: [evicts, replica]
  store-survives: process
routes:
  - match: POST /a
    require: true
    timeout: 0
    resolve: {path: "/a/{derived-key}", not-done: [404]}
    assumptions: {effect: once, keys: any, proxy-retries: 0}
  - match: POST /b
    resolve: {path: "/b/{derived-key}", not-done: [404], not-done-after: 0s}
`

// TestEveryAssumption: each is read, and a route takes what it does not state from
// the top.
func TestEveryAssumption(t *testing.T) {
	s := loaded(t, everyAssumption)
	want := lifecycle.Assumptions{
		ClientAttempts: 5, ClientTimeout: 10 * time.Second, ClientBackoff: time.Second, ClientBackoffCap: 30 * time.Second, ClientHorizon: 24 * time.Hour,
		ProxyTimeout: time.Minute, ProxyRetries: 2, HandlerP99: 500 * time.Millisecond, HandlerLongest: 20 * time.Second, BrokerRedelivery: 96 * time.Hour,
		Partition: time.Hour, Reconciliation: 24 * time.Hour, Pause: 5 * time.Second, ClockSkew: time.Minute, TimedKeys: true, Effect: lifecycle.Money, LongestAnswer: 65536,
	}
	for _, field := range assumptionFields() {
		if !strings.Contains(everyAssumption, "\n  "+field.Name+":") {
			t.Errorf("the test lacks %s", field.Name)
		}
	}
	if reflect.ValueOf(want).NumField() != 17 {
		t.Error("there is an assumption that is not tested")
	}
	if s.Default.Assumptions != want {
		t.Errorf("got  %+v\nwant %+v", s.Default.Assumptions, want)
	}
	facts := s.Facts(lifecycle.StoreFacts{Known: true, Description: semel.Description{Survives: semel.SurvivesCrash, Traits: []semel.Trait{semel.TraitClockOff}}})
	if facts.Store.Survives != semel.SurvivesProcess || !slices.Equal(facts.Store.Traits, []semel.Trait{semel.TraitClockOff, semel.TraitEvicts, semel.TraitReplica}) || facts.Drain != 20*time.Second || facts.Journal != 90*24*time.Hour {
		t.Errorf("got %+v", facts)
	}
	own := want
	own.Effect, own.TimedKeys, own.ProxyRetries = lifecycle.Once, false, 0
	a, b, rest := facts.Policies[0], facts.Policies[1], facts.Policies[2]
	if a.Assumptions != own || a.KeyOptional || a.Silence != 0 || !a.Resolved || a.NotDoneAfter != time.Minute || a.Policy.Name != "POST /a" {
		t.Errorf("got %+v", a)
	}
	if b.Assumptions != want || !b.KeyOptional || b.Silence != time.Minute || b.NotDoneAfter >= 0 {
		t.Errorf("got %+v", b)
	}
	if rest.Policy.Name != "*" || rest.Resolved || rest.NotDoneAfter != 0 {
		t.Errorf("got %+v", rest)
	}
}

// TestSpans: what the linter advises can be written into the file.
func TestSpans(t *testing.T) {
	for d := time.Nanosecond; d < 10*365*24*time.Hour; d = d*3 + 7 {
		if got, err := parseDuration(lifecycle.Span(d).String()); got != d || err != nil {
			t.Errorf("%v: written as %v and read as %v, %v", d, lifecycle.Span(d), got, err)
		}
	}
}

// TestPlaces: a finding is told where its setting was made, be it at the top; else at
// its route.
func TestPlaces(t *testing.T) {
	s := loaded(t, everyAssumption)
	for _, c := range []struct {
		policy, field string
		line          int
	}{
		{"POST /a", "timeout", 28},
		{"POST /a", "resolve.not-done-after", 29},
		{"POST /b", "resolve.not-done-after", 32},
		{"POST /a", "assumptions.effect", 30},
		{"POST /a", "assumptions.pause", 18},
		{"POST /b", "assumptions.effect", 21},
		{"POST /b", "lease", 31},
		{"", "drain", 3},
		{"", "journal", 4},
		{"", "store", 0},
		{"*", "lease", 0},
	} {
		if line, column := s.Place(lifecycle.Finding{Policy: c.policy, Field: c.field}); line != c.line || (column == 0) != (line == 0) {
			t.Errorf("%+v: got line %d, column %d", c, line, column)
		}
	}
}

// TestRefuse: refusals are told like mistakes, and nothing else is.
func TestRefuse(t *testing.T) {
	s := loaded(t, "upstream: http://127.0.0.1:3000\nremember: 2d\nassumptions: {partition: 7d}\n")
	report := lifecycle.Lint(s.Facts(lifecycle.StoreFacts{Unreachable: "x"}))
	err := s.Refuse(&report)
	if err == nil || !strings.Contains(err.Error(), "semel.yaml:2:11: remember (2d) has to be at least 7d30s: ") || strings.Contains(err.Error(), "store") {
		t.Errorf("got %v", err)
	}
	report = lifecycle.Lint(s.Facts(lifecycle.StoreFacts{Refused: "it is read-only"}))
	if err := s.Refuse(&report); err == nil || !strings.Contains(err.Error(), "it is read-only") {
		t.Errorf("got %v", err)
	}
	s = loaded(t, "upstream: http://127.0.0.1:3000\nassumptions: {partition: 1d}\n")
	report = lifecycle.Lint(s.Facts(lifecycle.StoreFacts{}))
	if err := s.Refuse(&report); err != nil {
		t.Errorf("got %v", err)
	}
}
