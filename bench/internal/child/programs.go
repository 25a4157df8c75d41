package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Programs builds each program once, into a directory that Close removes, and
// remembers what it started. Its directory is the bench module's own.
type Programs struct {
	dir     string // for what is built, and for files of what runs
	built   map[string]string
	running []*Process
}

// NewPrograms makes the directory.
func NewPrograms() (*Programs, error) {
	dir, err := os.MkdirTemp("", "semel-bench-")
	return &Programs{dir: dir, built: make(map[string]string)}, err
}

// Dir is where a program that is started may keep its files.
func (p *Programs) Dir() string { return p.dir }

// Close ends what still runs and removes the directory.
func (p *Programs) Close() error {
	p.StopAll()
	return os.RemoveAll(p.dir)
}

// StopAll ends every process that was started, in the opposite order.
func (p *Programs) StopAll() {
	for len(p.running) > 0 {
		last := len(p.running) - 1
		p.running[last].Stop()
		p.running = p.running[:last]
	}
}

// build compiles the main package in source and gives the path of the program.
func (p *Programs) build(ctx context.Context, source string) (string, error) {
	if path := p.built[source]; path != "" {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildWithin)
	defer cancel()
	path := filepath.Join(p.dir, filepath.Base(source))
	c := exec.CommandContext(ctx, "go", "build", "-o", path, ".")
	c.Dir, c.Env = source, append(os.Environ(), "GOWORK=off") // this module is in no workspace
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w\n%s", source, err, out)
	}
	p.built[source] = path
	return path, nil
}

// buildWithin bounds one build: from an empty cache, Caddy takes minutes.
const buildWithin = 15 * time.Minute

func (p *Programs) start(ctx context.Context, source, address string, env []string, arguments ...string) (*Process, error) {
	path, err := p.build(ctx, source)
	if err != nil {
		return nil, err
	}
	started, err := Start(ctx, address, path, env, arguments...)
	if err == nil {
		p.running = append(p.running, started)
	}
	return started, err
}

// Server starts a kind of the program in the directory server.
func (p *Programs) Server(ctx context.Context, kind string) (*Process, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	return p.start(ctx, "server", address, nil, "-kind", kind, "-listen", address)
}

// ServerOver starts the program's kind semel over the store at a URL.
func (p *Programs) ServerOver(ctx context.Context, store string) (*Process, error) {
	return p.KindOver(ctx, "semel", store)
}

// KindOver starts a kind of the program over the store at a URL.
func (p *Programs) KindOver(ctx context.Context, kind, store string) (*Process, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	return p.start(ctx, "server", address, nil, "-kind", kind, "-listen", address, "-store", store)
}

// Gateway starts `semel gateway` as it is built from this checkout, in front of
// the upstream, with its defaults but for the store.
func (p *Programs) Gateway(ctx context.Context, upstream, store string) (*Process, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	return p.start(ctx, filepath.Join("..", "cmd", "semel"), address, nil,
		"gateway", "--upstream", "http://"+upstream, "--listen", address, "--store", store)
}

// Caddy starts Caddy with a configuration in JSON, which is made from the
// address to listen on.
func (p *Programs) Caddy(ctx context.Context, config func(address string) string) (*Process, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.dir, "caddy.json")
	err = errors.Join(err, os.WriteFile(file, []byte(config(address)), 0o600))
	if err != nil {
		return nil, err
	}
	// What Caddy keeps between runs goes where it is removed.
	env := []string{"XDG_DATA_HOME=" + p.dir, "XDG_CONFIG_HOME=" + p.dir}
	return p.start(ctx, "caddy", address, env, "run", "--config", file)
}
