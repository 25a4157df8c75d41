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

// A short run against the real gateway, in processes of its own: what the storm
// of TestBypassChargesTwice does to a bare API, it does not do through it.
func TestRealGateway(t *testing.T) {
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
	t.Setenv("SEMEL_REQUIRE", "a setting of the user's own gateway, which the demo must not see")
	var out bytes.Buffer
	r, err := Run(context.Background(), Options{Binary: binary, Seed: 1, Payments: 120, Storm: 4 * time.Second, Exit: true, Out: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !r.OK {
		t.Errorf("problems: %q\n%s", r.Problems, out.String())
	}
	if r.GatewayKills != 3 || r.GatewayStarts != 4 || r.Replays < r.Keys || r.Mismatches == 0 || r.Network.Answers == 0 {
		t.Errorf("that was no storm: %+v", r)
	}
	if r.Paid+r.InDoubt != r.Keys || r.Executions != r.Paid+r.UnknownRan {
		t.Errorf("the sums are wrong: %+v", r.Counts)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "semel-demo-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
