package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel/internal/child"
)

// gateway is `semel gateway` as a process of its own, which can be killed and
// started again on the same store and the same port.
type gateway struct {
	binary   string
	upstream string
	dir      string
	flags    []string // added to the arguments
	address  string   // its door, host:port
	admin    string
	process  *child.Process
	starts   int
}

const (
	lease       = 2 * time.Second
	readyWithin = 15 * time.Second
	maxStarts   = 5 // tries per start, each on other ports
)

// store is the URL of the gateway's store.
func (g *gateway) store() string { return "sqlite:" + filepath.Join(g.dir, "semel.db") }

func (g *gateway) log() string { return filepath.Join(g.dir, "gateway.log") }

// arguments are the command line. The lease is short, so that the demo learns
// within seconds what a kill left behind; waiting is short, so that impatient
// clients see 409 in-progress at all.
func (g *gateway) arguments() []string {
	return append([]string{
		"gateway", "--upstream", g.upstream, "--listen", g.address, "--admin", g.admin, "--store", g.store(),
		"--scope", "header:Authorization", "--lease", lease.String(), "--wait", "250ms",
	}, g.flags...)
}

// command is semel with arguments, in the demo's directory and without the
// user's SEMEL_* settings, which are for a gateway of the user's own.
func (g *gateway) command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, g.binary, arguments...)
	command.Dir = g.dir
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SEMEL_") })
	return command
}

// start runs the gateway and waits until it is ready. A port that somebody else
// took meanwhile is replaced.
func (g *gateway) start(ctx context.Context) error {
	var err error
	for range maxStarts {
		if g.address == "" {
			if g.address, err = freeAddress(); err == nil {
				g.admin, err = freeAddress()
			}
			if err != nil {
				return err
			}
		}
		if err = g.run(ctx); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
		g.address = ""
	}
	return err
}

// run starts the process and waits until it says that it is ready.
func (g *gateway) run(ctx context.Context) error {
	log, err := os.OpenFile(g.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	var since int64
	if info, err := log.Stat(); err == nil {
		since = info.Size()
	}
	command := g.command(context.Background(), g.arguments()...) // it ends by kill, not with ctx
	command.Stdout, command.Stderr = log, log
	if g.process, err = child.Start(command); err != nil {
		return fmt.Errorf("the gateway did not start: %w", err)
	}
	g.starts++
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		if ready(ctx, "http://"+g.admin+"/readyz") {
			return nil
		}
		select {
		case <-g.process.Ended():
			return fmt.Errorf("the gateway ended by itself: %v\n%s", g.process.Err(), tail(g.log(), since))
		case <-ctx.Done():
			g.kill()
			return fmt.Errorf("the gateway was not ready in time: %w\n%s", context.Cause(ctx), tail(g.log(), since))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (g *gateway) kill() {
	if g.process != nil {
		g.process.Kill()
	}
}

// ready asks once.
func ready(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode == http.StatusOK
}

// freeAddress finds a loopback port below those that systems give to outgoing
// connections: a restarted gateway must find its port free, whatever the storm
// connected meanwhile.
func freeAddress() (string, error) {
	for range 200 {
		address := fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(20_000))
		if listener, err := net.Listen("tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", errors.New("no loopback port between 12000 and 32000 is free")
}

// tail gives the last lines of a file, from an offset on.
func tail(path string, since int64) string {
	data, err := os.ReadFile(path)
	if err != nil || int64(len(data)) <= since {
		return "it left no message"
	}
	lines := strings.Split(strings.TrimSpace(string(data[since:])), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
