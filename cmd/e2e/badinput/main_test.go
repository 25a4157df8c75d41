// Package badinput sends the gateway what no well-behaved client, upstream or
// operator would: keys, heads and bodies that are malformed in every way that
// tables and a seeded generator think of, services that answer garbage or not at
// all, stores and settings that cannot work. Each has one expected answer, and
// nothing starts that was refused.
//
//	go test ./cmd/e2e/badinput -v -seed 7
//
// Requests are written to the socket byte by byte, since no HTTP client would
// send them. The gateway is the real command, and so are the servers behind it,
// which are killed, stopped, filled up and set wrongly. Put tests of one parser
// beside it.
package badinput

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/internal/server"
)

// seed determines what is generated.
var seed = flag.Uint64("seed", 0, "repeat the generated inputs of an earlier run; 0 draws a seed")

// scratch is removed at the end.
var scratch string

// servers are shared by the tests. Who breaks one starts it for itself.
var servers server.Set

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "6") // it exists; tests wait for timeouts, more than they compute
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	var err error
	if scratch, err = os.MkdirTemp("", "semel-badinput-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := servers.Run(m)
	if testing.Verbose() {
		fmt.Printf("%d bad inputs, each with its expected answer\n", bad.Load())
	}
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// semel builds the command, once.
var semel = sync.OnceValues(func() (string, error) { return program.Build(scratch) })

func built(t *testing.T) string {
	t.Helper()
	path, err := semel()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// gateway is a running `semel gateway` in front of a service.
type gateway struct {
	address  string
	store    string // path
	process  *program.Process
	upstream *upstream
	stopped  bool // by the test
}

// routes are settings that single tests need, told apart by path.
const routes = `
require: true
lease: 20s
wait: 5s
log-format: json
routes:
  - match: /slow/*
    timeout: 300ms
  - match: /small/*
    max-result: 1KiB
  - match: /tiny/*
    max-body: 100B
  - match: /json/*
    fingerprint: {json: true}
  - match: /form/*
    fingerprint: {form: true}
  - match: /digest/*
    fingerprint: {content-digest: true}
  - match: /optional/*
    require: false
`

// startGateway starts a gateway with the above routes.
func startGateway(t *testing.T) *gateway {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "semel.yaml")
	if err := os.WriteFile(config, []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	u := newUpstream(t)
	g := &gateway{store: filepath.Join(dir, "semel.db"), upstream: u}
	g.start(t, exec.Command(built(t), "gateway", "--config", config, "--upstream", "http://"+u.address(), "--store", "sqlite:"+g.store))
	return g
}

// start starts the command at a free address, which is added to it. At the end
// of the test it must still run, and what it logged must hold no client's data.
func (g *gateway) start(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var err error
	if g.address, err = program.Address(); err != nil {
		t.Fatal(err)
	}
	command.Args = append(command.Args, "--listen", g.address)
	if g.process, err = program.Start(command); err != nil {
		t.Fatal(err)
	}
	p := g.process
	t.Cleanup(p.Kill)
	if err := p.Serving(g.address, time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-p.Ended():
			if !g.stopped {
				t.Errorf("the gateway has ended; it wrote:\n%s", p.Output())
			}
		default:
		}
		for _, word := range [...]string{"panic", canary, "goroutine ", server.LoginPassword} {
			if i := strings.Index(p.Output(), word); i >= 0 {
				t.Errorf("the gateway wrote %q to its log: …%s", word, p.Output()[max(0, i-200):])
			}
		}
	})
}

// canary is in keys, credentials and bodies, and must not come out in logs.
const canary = "canary7f3a"
