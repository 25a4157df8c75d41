package config

import (
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/lifecycle"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

func nothing(string) (string, bool) { return "", false }

// TestTranscripts compares what is said of each file in testdata with the
// transcript beside it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got := "valid\n"
			s, err := Load(Sources{File: path, Lookup: nothing})
			if s.Upstream == "" {
				s.Upstream = "http://127.0.0.1:3000"
			}
			if err == nil {
				_, err = s.Gateway()
			}
			if err != nil {
				got = err.Error() + "\n"
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestEverySetting(t *testing.T) {
	s, err := Load(Sources{File: "testdata/good.yaml", Lookup: nothing})
	if err != nil {
		t.Fatal(err)
	}
	s.file = nil
	for _, r := range []*Route{&s.Default, &s.Routes[0], &s.Routes[1], &s.Routes[2]} {
		r.at = nil
	}
	scope := Scope{Headers: []string{"Authorization", "X-Tenant"}}
	rest := Route{
		Match: "*", Scope: scope, Lease: 10 * time.Second, Wait: 10 * time.Second, Replay: 24 * time.Hour, Remember: 7 * 24 * time.Hour,
		Timeout: time.Minute, MaxBody: 1 << 20, MaxResult: 1 << 20, MaxInFlight: 10_000, NotDone: []int{425, 429},
	}
	charges, forms := rest, rest
	charges.Match, charges.Class, charges.Require, charges.Lease, charges.Wait = "POST /v1/charges/*", semel.Fenced, true, time.Minute, 0
	charges.Replay, charges.Timeout, charges.MaxBody, charges.MaxResult, charges.MaxInFlight = 48*time.Hour, 0, 64<<10, 10_000_000, 50
	charges.KeepHeaders, charges.NotDone = []string{"X-Request-Id", "Set-Cookie"}, []int{503}
	charges.Fingerprint = Fingerprint{JSON: true, Include: []string{"/amount", "/currency"}, Headers: []string{"Content-Type"}}
	forms.Match, forms.DeriveKey, forms.FailOpen, forms.Scope, forms.NotDone = "/forms*", true, true, Scope{Shared: true}, []int{}
	telemetry := lifecycle.Telemetry
	forms.tier, forms.Replay, forms.Remember = &telemetry, time.Hour, 24*time.Hour
	forms.Fingerprint = Fingerprint{Form: true, ContentDigest: true}
	payouts := rest
	payouts.Match = "POST /v1/payouts"
	payouts.Resolve = &gateway.Resolver{
		Method: "HEAD", Path: "/v1/payouts/{derived-key}?for={body.order.id}",
		Header: http.Header{"Authorization": {"Bearer of the resolver"}, "X-Key": {"{key}"}}, Done: []int{200, 202}, NotDone: []int{404, 410},
		NotDoneAfter: 2 * time.Minute, Status: 201, Timeout: 3 * time.Second, Every: 5 * time.Second, KeyHeader: "X-Payout-Key",
	}
	want := Settings{
		Upstream: "http://127.0.0.1:3000/base", Listen: "127.0.0.1:8080", Admin: "127.0.0.1:7070", Store: "sqlite:/var/lib/semel/semel.db",
		Cache:      "memory:16MiB,redis://cache:6379",
		SecretFile: "/etc/semel/secret", Drain: time.Minute, UpstreamHost: "inner.example", TrustForwarded: true, LogLevel: "debug", LogFormat: "json", StatusPath: "/status", PolicyPath: "/policy",
		Lifecycle: Lifecycle{Every: 30 * time.Second, Lease: 10 * time.Second, Share: 0.05, Journal: 90 * 24 * time.Hour, Archive: "/var/lib/semel/journal", Growth: 10 * time.Minute},
		Default:   rest, Routes: []Route{charges, forms, payouts}, Source: "testdata/good.yaml",
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got\n%+v\nwant\n%+v", s, want)
	}
	for _, f := range Fields() { // a setting that is added is added to the file as well
		text, err := os.ReadFile("testdata/good.yaml")
		if err != nil || !strings.Contains(string(text), f.Name+":") {
			t.Errorf("testdata/good.yaml lacks %s (%v)", f.Name, err)
		}
	}
}

func TestSourcesWin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "semel.yaml")
	text := "lease: 1s\nwait: 1s\nreplay: 1h\nroutes:\n  - match: /x\n    lease: 9s\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{"SEMEL_LEASE": "2s", "SEMEL_WAIT": "2s", "SEMEL_TRUST_FORWARDED": "true"}
	s, err := Load(Sources{
		File:   path,
		Lookup: func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		Flags:  map[string]string{"lease": "3s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := s.Default
	if d.Lease != 3*time.Second || d.Wait != 2*time.Second || d.Replay != time.Hour || d.Remember != 72*time.Hour || !s.TrustForwarded {
		t.Errorf("got lease %v, wait %v, replay %v, remember %v: want the flag's, the variable's, the file's and the default", d.Lease, d.Wait, d.Replay, d.Remember)
	}
	if r := s.Routes[0]; r.Lease != 9*time.Second || r.Wait != 2*time.Second {
		t.Errorf("got lease %v and wait %v for the route, want its own and the variable's", r.Lease, r.Wait)
	}
}

func TestValues(t *testing.T) {
	durations := map[string]time.Duration{
		"0": 0, "0s": 0, "250ms": 250 * time.Millisecond, "30s": 30 * time.Second, "1h30m": 90 * time.Minute,
		"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "": -1, "10": -1, "-1s": -1, "d": -1, "1.5d": -1, "7days": -1, "1w": -1, "99999d": -1,
	}
	for text, want := range durations {
		got, err := parseDuration(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("duration %q: got %v, %v, want %v", text, got, err, want)
		}
		if err == nil && got > 0 {
			if again, err := parseDuration(formatDuration(got)); again != got || err != nil {
				t.Errorf("duration %q: written as %s and read as %v, %v", text, formatDuration(got), again, err)
			}
		}
	}
	sizes := map[string]int64{
		"1": 1, "65536": 65536, "64KiB": 65536, "1 MiB": 1 << 20, "10MB": 10_000_000, "1GiB": 1 << 30, "12B": 12,
		"": -1, "0": -1, "-1": -1, "1TB": -1, "KiB": -1, "9999999999GiB": -1, "1.5MiB": -1,
	}
	for text, want := range sizes {
		got, err := ParseBytes(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("size %q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "header:", "header:a b", "header:Authorization,", "header:Host", "Header:X", "shared:x", "header:ä"} {
		if s, err := ParseScope(text); err == nil {
			t.Errorf("scope %q: got %v, want an error", text, s)
		}
	}
}

// A request without the header is told how to go on, whoever started the
// gateway.
func TestScopeTellsTheWayOut(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	_, err := Scope{Headers: []string{"X-Tenant"}}.function()(r)
	if err == nil || !strings.Contains(err.Error(), "X-Tenant") || !strings.Contains(err.Error(), "--scope shared") {
		t.Errorf("got %v, want the header's name and --scope shared", err)
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	path := filepath.Join(f.TempDir(), "semel.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Load(Sources{File: path, Lookup: nothing})
		if err == nil {
			_, err = s.Gateway()
		}
		var told *file
		if errors.As(err, &told) && told.Error() == "" {
			t.Errorf("%q is refused without a word", text)
		}
	})
}
