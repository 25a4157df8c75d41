package proxy

import (
	"context"
	"strconv"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
)

// bench is the processes of one comparison.
type bench struct {
	programs *child.Programs
	upstream *server
	caddy    *server
	gateways []*server // one for each store
}

// server is a process and the connections to it.
type server struct {
	*child.Process
	client *load.Client
}

func (s *server) side(name string, r *load.Request, keys load.Keys) rounds.Side {
	return s.client.Side(name, r, keys, s.CPU)
}

// open starts an upstream, and in front of it Caddy and a gateway for each
// store. Each gateway is a process of its own, so that what one stores neither
// burdens nor helps another.
func open(ctx context.Context, programs *child.Programs, connections int, stores ...string) (b *bench, err error) {
	b = &bench{programs: programs}
	defer func() {
		if err != nil {
			programs.StopAll()
		}
	}()
	p, err := programs.Server(ctx, "upstream")
	if err != nil {
		return nil, err
	}
	if b.upstream, err = connect(p, connections); err != nil {
		return nil, err
	}
	if b.caddy, err = b.openCaddy(ctx, connections, kept); err != nil {
		return nil, err
	}
	for _, store := range stores {
		if p, err = programs.Gateway(ctx, b.upstream.Address, store); err != nil {
			return nil, err
		}
		s, err := connect(p, connections)
		if err != nil {
			return nil, err
		}
		b.gateways = append(b.gateways, s)
	}
	return b, nil
}

// openCaddy starts a Caddy that keeps so many idle connections to the upstream.
func (b *bench) openCaddy(ctx context.Context, connections, kept int) (*server, error) {
	p, err := b.programs.Caddy(ctx, func(address string) string { return caddyConfig(address, b.upstream.Address, kept) })
	if err != nil {
		return nil, err
	}
	return connect(p, connections)
}

func connect(p *child.Process, connections int) (*server, error) {
	c, err := load.Dial(p.Address, connections)
	if err != nil {
		return nil, err
	}
	return &server{p, c}, nil
}

func (b *bench) close() {
	for _, s := range append(b.gateways, b.caddy, b.upstream) {
		_ = s.client.Close() // the server ends anyway
	}
	b.programs.StopAll()
}

// ran tells how many requests the upstream ran.
func (b *bench) ran() (int, error) {
	text, err := load.Get(b.upstream.Address, "/runs")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}
