package pocketbase

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/cmd/internal/lossy"
	"github.com/semelhq/semel/semelhttp"
)

// gateway is `semel gateway` on a file.
type gateway struct {
	*program.Gateway
	binary string
	store  string
}

func startGateway(t *testing.T, upstream, class string) *gateway {
	t.Helper()
	binary, err := semel()
	if err != nil {
		t.Fatal(err)
	}
	store := "sqlite:" + filepath.Join(t.TempDir(), "semel.db")
	g, err := program.NewGateway(binary, "--upstream", "http://"+upstream, "--store", store,
		"--class", class, "--lease", "1s", "--wait", "2s", "--require", "--log-format", "json", "--log-level", "error")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Kill)
	return &gateway{g, binary, store}
}

// inDoubt gives what `semel list --state in-doubt` prints about the store.
func (g *gateway) inDoubt(ctx context.Context) ([]listed, error) {
	command := exec.CommandContext(ctx, g.binary, "list", "--state", "in-doubt", "--json", "--limit", "1000", "--store", g.store)
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("semel list: %w: %s", err, out)
	}
	var list struct {
		Records []struct{ Key, Scope, State string }
		Next    string
	}
	if err := json.Unmarshal(out, &list); err != nil || list.Next != "" {
		return nil, fmt.Errorf("semel list printed %.1000q: %w", out, err)
	}
	var all []listed
	for _, line := range list.Records {
		l := listed{key: line.Key}
		for _, tenant := range tenants {
			scope, err := scopeOf(tenant)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(line.Scope, scope) {
				l.tenant = tenant
			}
		}
		if line.State != "in-doubt" {
			return nil, fmt.Errorf("semel list --state in-doubt printed %+v", line)
		}
		all = append(all, l)
	}
	return all, nil
}

// scopeOf gives the name under which the gateway knows a tenant.
func scopeOf(tenant string) (string, error) {
	r := &http.Request{Header: http.Header{"Authorization": {authorization(tenant)}}}
	return semelhttp.HeaderScope("Authorization")(r)
}

// inside is the network between the gateway and the application. It is slow now
// and then, so that operations are running when the gateway is killed.
func inside() lossy.Faults {
	return lossy.Faults{RequestLost: 0.02, AnswerLost: 0.03, AnswerCut: 0.01, Delayed: 0.5, MaxDelay: 60 * time.Millisecond}
}

// kills is how often the gateway is killed.
const kills = 10

// TestRetryStorm is the claim: 200 operations, each sent 5 to 50 times, lossy
// networks before and behind a gateway that is killed ten times.
func TestRetryStorm(t *testing.T) {
	r, before, behind := weather(t, "at-most-once")
	judge(t, r, before, behind)
}

// TestRetryStormFindsDoubles is the same storm with a gateway that runs an
// operation again if it does not know: the storm does reach the moments at which
// that is wrong, and the checker sees it.
func TestRetryStormFindsDoubles(t *testing.T) {
	if r, _, _ := weather(t, "at-least-once"); r.double == 0 || r.inDoubt > 0 {
		t.Errorf("got %d doubles and %d in doubt, want some and none: the storm finds nothing", r.double, r.inDoubt)
	}
}

// weather sends the storm through a gateway of this class, and checks what came
// of it.
func weather(t *testing.T, class string) (r *report, before, behind *lossy.Proxy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	t.Logf("seed %d", *seed)
	source := rand.New(rand.NewPCG(*seed, 1))
	app := startApp(t)
	behind = network(t, app.address, *seed+1, inside())
	g := startGateway(t, behind.Addr(), class)
	before = network(t, g.Address, *seed, outside())
	s := newStorm(t, newOperations(source, 200, 50), before.Addr())

	sends := plan(source, s.ops)
	moments := make([]int64, kills) // one in each tenth of the storm
	for i := range moments {
		moments[i] = int64((float64(i) + source.Float64()) * float64(len(sends)) * 0.95 / kills)
	}
	over := make(chan struct{})
	killed := make(chan error, 1)
	go func() { killed <- g.killAt(s, moments, over) }()
	s.run(ctx, sends, 32, *seed)
	close(over)
	if err := <-killed; err != nil {
		t.Fatal("killing and starting the gateway:", err)
	}
	s.settleAll(ctx)
	if err := before.SetFaults(lossy.Faults{}); err != nil {
		t.Fatal(err)
	}
	s.settleAll(ctx) // and nothing is in the way of the last answers

	inDoubt := g.end(t, ctx)
	held, err := app.records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r = check(s.ops, s.journal.answers, held, inDoubt)
	t.Logf("%s: %d requests sent, %d of them or of their answers lost before the gateway and %d behind it, %d found it dead; killed %d times\n%s",
		class, s.sent.Load(), before.Counts().Lost(), behind.Counts().Lost(), before.Counts().Refused, kills, r)
	return r, before, behind
}

// end ends the gateway as an operator does, and gives what is in doubt, which is
// the same before and after.
func (g *gateway) end(t *testing.T, ctx context.Context) []listed {
	t.Helper()
	alive, err := g.inDoubt(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := g.Process.Terminate(time.Minute); code != 0 || err != nil {
		t.Errorf("the gateway was asked to end: exit code %d, %v; it wrote:\n%s", code, err, g.Process.Output())
	}
	ended, err := g.inDoubt(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(alive, ended) {
		t.Errorf("in doubt are %v while the gateway runs, and %v after its end", alive, ended)
	}
	return ended
}

// judge fails the test for what the report found, and for a storm that proves
// nothing.
func judge(t *testing.T, r *report, before, behind *lossy.Proxy) {
	t.Helper()
	if r.counts != (counts{}) {
		t.Errorf("repeat the plan with -seed %d; found:\n%s", *seed, strings.Join(r.findings, "\n"))
	}
	if r.inDoubt == 0 || r.done < r.operations/2 || r.mismatches < r.operations {
		t.Errorf("the storm proves too little: %d done, %d in doubt, %d other bodies refused", r.done, r.inDoubt, r.mismatches)
	}
	for _, fault := range [...]lossy.Fault{lossy.RequestLost, lossy.RequestCut, lossy.AnswerLost, lossy.AnswerCut, lossy.HangUp} {
		if before.Counts().Happened[fault] == 0 {
			t.Errorf("before the gateway, %v never happened", fault)
		}
	}
	if behind.Counts().Lost() == 0 {
		t.Error("behind the gateway nothing was lost")
	}
}

// killAt kills the gateway whenever so many requests were sent, and starts it
// again. Moments that the storm did not reach come at its end.
func (g *gateway) killAt(s *storm, moments []int64, over <-chan struct{}) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, moment := range moments {
		for waiting := true; waiting && s.sent.Load() < moment; {
			select {
			case <-tick.C:
			case <-over:
				waiting = false
			}
		}
		g.Kill()
		if err := g.Start(time.Minute); err != nil {
			return err
		}
	}
	return nil
}
