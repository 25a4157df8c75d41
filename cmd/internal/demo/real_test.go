package demo

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// build gives the semel command, built from this tree.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs the command")
	}
	binary := filepath.Join(t.TempDir(), "semel")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/semelhq/semel/cmd/semel").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Setenv("TMPDIR", t.TempDir())
	return binary
}

// A short run against the real gateway, in processes of its own: what the storm
// of TestBypassChargesTwice does to a bare API, it does not do through it. A
// gateway that promises less is found out by the same storm: so it is the storm
// that a sound one withstands, and not the arrangement.
func TestGateways(t *testing.T) {
	binary := build(t)
	t.Setenv("SEMEL_REQUIRE", "a setting of the user's own gateway, which the demo must not see")
	for _, c := range []struct {
		name  string
		flags []string
		count func(*Report) int // what it gets wrong; nil: nothing
	}{
		{"sound", nil, nil},
		{"runs again after a crash", []string{"--class", "at-least-once"}, func(r *Report) int { return r.Double }},
		{"forgets in a crash", []string{"--store", "memory:"}, func(r *Report) int { return r.Double }},
		{"takes all customers for one", []string{"--scope", "shared"}, func(r *Report) int { return r.Leaked }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			r, err := Run(context.Background(), Options{
				Binary: binary, Seed: 1, Payments: 120, Storm: 3 * time.Second, Exit: true, Out: &out, flags: c.flags,
			})
			switch {
			case err != nil:
				t.Fatalf("%v\n%s", err, out.String())
			case c.count == nil:
				sound(t, r)
			case r.OK || c.count(r) == 0:
				t.Errorf("it was not found out: %q\n%s", r.Problems, out.String())
			}
			if t.Failed() {
				t.Log(out.String())
			}
			if left, err := filepath.Glob(filepath.Join(os.TempDir(), "semel-demo-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// sound tells whether a report is in order, and of a storm.
func sound(t *testing.T, r *Report) {
	t.Helper()
	if !r.OK {
		t.Errorf("problems: %q", r.Problems)
	}
	if r.GatewayKills != 3 || r.GatewayStarts != 4 || r.Replays < r.Keys || r.Mismatches == 0 || r.Network.Answers == 0 {
		t.Errorf("that was no storm: %+v", r)
	}
	if r.Paid+r.InDoubt != r.Keys || r.Executions != r.Paid+r.UnknownRan {
		t.Errorf("the sums are wrong: %+v", r.Counts)
	}
}
