package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// A route's own numbers win over its tier, that over the top's numbers, those over
// the top's tier.
func TestTiers(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		name, text, tier string // tier is a flag
		replay, remember time.Duration
	}{
		{"none", "", "", day, 3 * day},
		{"of the top", "tier: financial", "", 7 * day, 30 * day},
		{"a flag wins over the file", "tier: financial", "inventory", 15 * time.Minute, time.Hour},
		{"the top's numbers win over its tier", "tier: financial\nreplay: 1h", "", time.Hour, 30 * day},
		{"one gives way to the other", "tier: inventory\nreplay: 2h", "", 2 * time.Hour, 2 * time.Hour},
		{"of a route", "replay: 1h\nremember: 2h\nroutes: [{match: /x, tier: financial}]", "", 7 * day, 30 * day},
		{"a route's numbers win over its tier", "routes: [{match: /x, tier: financial, remember: 60d}]", "", 7 * day, 60 * day},
		{"a route's numbers win over the top's tier", "tier: financial\nroutes: [{match: /x, replay: 2h}]", "", 2 * time.Hour, 30 * day},
		{"a route takes what the top came to", "tier: telemetry\nreplay: 2h\nroutes: [{match: /x}]", "", 2 * time.Hour, day},
	} {
		path := filepath.Join(t.TempDir(), "semel.yaml")
		if err := os.WriteFile(path, []byte("upstream: http://127.0.0.1:3000\n"+test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := map[string]string{}
		if test.tier != "" {
			flags["tier"] = test.tier
		}
		s, err := Load(Sources{File: path, Lookup: nothing, Flags: flags})
		if err == nil {
			_, err = s.Gateway()
		}
		r := append(s.Routes, s.Default)[0]
		if err != nil || r.Replay != test.replay || r.Remember != test.remember {
			t.Errorf("%s: replay %v, remember %v, want %v and %v (%v)", test.name, r.Replay, r.Remember, test.replay, test.remember, err)
		}
	}
}

// What depends on the store and on the machine is refused when both are there, with
// the line of the file.
func TestSetLifecycle(t *testing.T) {
	dir := t.TempDir()
	load := func(text string) *Settings {
		t.Helper()
		path := filepath.Join(t.TempDir(), "semel.yaml")
		if err := os.WriteFile(path, []byte("upstream: http://127.0.0.1:3000\nlifecycle:\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Load(Sources{File: path, Lookup: nothing})
		if err != nil {
			t.Fatal(err)
		}
		return &s
	}
	store := memory.New(memory.Options{})
	for _, test := range []struct {
		name, text, want string
		store            semel.Store
	}{
		{"no journal by days", "  every: 1s\n  journal: 90d\n", "semel.yaml:4:12: lifecycle: this store keeps no journal by days, so none of it can be dropped: leave journal away", struct{ semel.Store }{store}},
		{"no directory", "  journal: 90d\n  archive: " + filepath.Join(dir, "none") + "\n", "semel.yaml:4:12: lifecycle: the archive's directory: ", daily{Store: store}},
		{"all of it", "  journal: 90d\n  archive: " + dir + "\n  share: 0.5\n", "", daily{Store: store}},
		{"nothing to do", "  growth: none\n", "", struct{ semel.Store }{store}},
	} {
		s := load(test.text)
		c, err := s.Gateway()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		guard, err := semel.NewGuard(test.store, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		switch err := s.SetLifecycle(&c, guard); {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		case test.name == "all of it" && (c.Lifecycle.Archive == nil || c.Lifecycle.Share != 0.5 || c.Lifecycle.Journal != 90*24*time.Hour):
			t.Errorf("%s: %+v", test.name, c.Lifecycle)
		}
	}
}
