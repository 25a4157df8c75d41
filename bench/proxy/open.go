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
func open(ctx context.Context, programs *child.Programs, connections int, stores ...string) (*bench, error) {
	b := &bench{programs: programs}
	connect := func(p *child.Process, err error) (*server, error) {
		if err != nil {
			return nil, err
		}
		c, err := load.Dial(p.Address, connections)
		return &server{p, c}, err
	}
	var err error
	if b.upstream, err = connect(programs.Server(ctx, "upstream")); err == nil {
		b.caddy, err = connect(programs.Caddy(ctx, func(address string) string {
			return caddyConfig(address, b.upstream.Address)
		}))
	}
	for _, store := range stores {
		if err == nil {
			var s *server
			s, err = connect(programs.Gateway(ctx, b.upstream.Address, store))
			b.gateways = append(b.gateways, s)
		}
	}
	if err != nil {
		programs.StopAll()
		return nil, err
	}
	return b, nil
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
