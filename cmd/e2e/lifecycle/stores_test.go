package lifecycle

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/internal/server"
)

// servers are shared by the tests of this package.
var servers server.Set

// TestGrowthAndSweepOfEveryStore: both verbs do their work beside a gateway, whatever
// the store is.
func TestGrowthAndSweepOfEveryStore(t *testing.T) {
	for name, url := range map[string]func() string{
		"postgres": func() string { return servers.Postgres(t).URL("postgres") },
		"mariadb":  func() string { return servers.MariaDB(t).URL("mysql") },
		"redis":    func() string { return servers.Redis(t).URL() },
		"etcd":     func() string { return "etcd://" + servers.Etcd(t).Address() },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 0, "replay: 1s\nremember: 1s\nlifecycle: {every: 200ms}\n")
			s.store = url()
			g, err := program.NewGateway(s.binary, "--config", s.dir+"/semel.yaml", "--store", s.store, "--cache", "none")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Kill)
			if err := g.Start(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			s.gateways = append(s.gateways, g)
			for _, key := range []string{"a", "b", "c"} {
				if a := s.send(0, key); a.status != 202 {
					t.Fatalf("%+v", a)
				}
			}
			var grown struct {
				Records int64
				Bytes   *int64
				Scopes  []struct{ Scope string }
			}
			s.run(&grown, "list", "--growth", "--json")
			if grown.Records < 3 || len(grown.Scopes) == 0 || grown.Bytes == nil {
				t.Errorf("growth: %+v", grown)
			}
			if name == "redis" { // it forgets by itself, and a minute later
				out, err := exec.CommandContext(t.Context(), s.binary, "sweep", "--store", s.store).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "Nothing to do: records end by themselves") {
					t.Errorf("sweep: %v %s", err, out)
				}
				return
			}
			s.wait("the keys are forgotten", func() bool { return len(s.list("")) == 0 })
			g.Kill() // it may hold the lead for half a minute more
			var swept struct{ Drained bool }
			if s.run(&swept, "sweep", "--json", "--wait", "45s"); !swept.Drained {
				t.Error("the sweep left something")
			}
		})
	}
}

// run runs a verb on the store, and reads what it prints.
func (s *scene) run(into any, arguments ...string) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), s.binary, append(arguments, "--store", s.store)...).Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		s.t.Errorf("semel %v: %v %s", arguments, err, out)
	}
}
