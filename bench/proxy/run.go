// Package proxy measures the gateway against Caddy's reverse_proxy, in front of
// the same upstream and under the same client: P10 with the memory store, P11
// with the durable one. Caddy knows nothing of keys here and stores nothing.
// Nothing imports it but the bench command; what a gateway does for your own
// service, measure in front of that service.
package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
)

// The goals of P10 and P11.
const (
	freshGoal   = 2
	replayGoal  = 5
	durableGoal = 1.0
)

const (
	connections        = 64
	durableConnections = 512
	// hot is how many keys are replayed in turn.
	hot = 1000
	// kept is how many connections to the upstream Caddy may keep. Its default of 32
	// is below the number of clients, so that it dials again and again; the gateway
	// keeps as many without being told.
	kept        = 1024
	keptDefault = 32
)

// caddyConfig is what Caddy is told. Everything else is its default: no access
// log, HTTP/1.1 to the upstream over connections that are kept.
func caddyConfig(address, upstream string, kept int) string {
	return fmt.Sprintf(`{
  "admin": {"disabled": true, "config": {"persist": false}},
  "logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
  "apps": {"http": {"servers": {"proxy": {
    "listen": ["tcp4/%s"],
    "automatic_https": {"disable": true},
    "routes": [{"handle": [{
      "handler": "reverse_proxy",
      "upstreams": [{"dial": "%s"}],
      "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": %d}}
    }]}]
  }}}}
}`, address, upstream, kept)
}

// Memory measures P10 and writes every round to w.
func Memory(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) ([]rounds.Result, error) {
	fmt.Fprintf(w, "\nP10 gateway with the memory store, against Caddy's reverse_proxy without idempotency\n"+
		"    %d keep-alive connections; the upstream answers fixed bytes without an HTTP library, so what is left is the proxy's\n", connections)
	b, err := open(ctx, programs, connections, "memory:", "memory:")
	if err != nil {
		return nil, err
	}
	defer b.close()
	request := load.Post("/payments", rand.Uint32())
	if err := b.gateways[1].client.Each(ctx, request, hot); err != nil {
		return nil, err
	}
	var next atomic.Uint64
	next.Store(hot)
	fresh := load.Counting(&next)
	asInstalled, err := b.openCaddy(ctx, connections, keptDefault)
	if err != nil {
		return nil, err
	}
	defer asInstalled.client.Close()
	sides := []rounds.Side{
		b.caddy.side("caddy", request, fresh),
		b.gateways[0].side("fresh", request.Replayed(false), fresh),
		b.gateways[1].side("replay", request.Replayed(true), load.Cycling(hot)),
		asInstalled.side("caddy default", request, fresh),
		b.upstream.side("upstream alone", request, fresh),
	}
	log, err := b.compare(ctx, w, o, sides, 2)
	if err != nil {
		return nil, err
	}
	return []rounds.Result{
		log.Result(1, rounds.Result{ID: "P10", What: "gateway, memory, fresh", Against: "Caddy reverse_proxy", Goal: freshGoal}),
		log.Result(2, rounds.Result{ID: "P10", What: "gateway, memory, replay", Against: "Caddy reverse_proxy", Goal: replayGoal}),
		log.Result(3, rounds.Result{ID: "P10", What: "Caddy with its default of 32 idle", Against: "Caddy reverse_proxy"}),
	}, nil
}

// Durable measures P11 and writes every round to w.
func Durable(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) ([]rounds.Result, error) {
	fmt.Fprintf(w, "\nP11 gateway with the SQLite store, every claim and every result durable, against Caddy's reverse_proxy, which stores nothing\n"+
		"    %d keep-alive connections; the same upstream\n", durableConnections)
	b, err := open(ctx, programs, durableConnections, "sqlite:"+filepath.Join(programs.Dir(), "semel.db"))
	if err != nil {
		return nil, err
	}
	defer b.close()
	request := load.Post("/payments", rand.Uint32())
	var next atomic.Uint64
	fresh := load.Counting(&next)
	sides := []rounds.Side{
		b.caddy.side("caddy", request, fresh),
		b.gateways[0].side("fresh", request.Replayed(false), fresh),
	}
	log, err := b.compare(ctx, w, o, sides, -1)
	if err != nil {
		return nil, err
	}
	return []rounds.Result{
		log.Result(1, rounds.Result{ID: "P11", What: "gateway, SQLite, fresh", Against: "Caddy reverse_proxy", Goal: durableGoal}),
	}, nil
}

// compare runs the rounds, all against the first side, and checks that the
// upstream ran each request once; the side that only replays not at all.
func (b *bench) compare(ctx context.Context, w io.Writer, o rounds.Options, sides []rounds.Side, replays int) (*rounds.Log, error) {
	before, err := b.ran()
	if err != nil {
		return nil, err
	}
	log := rounds.NewLog(w, sides, make([]int, len(sides))...)
	if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
		return nil, err
	}
	log.Close()
	want := before
	for i := range sides {
		if i != replays {
			want += log.Total(i).Count
		}
	}
	got, err := b.ran()
	if err == nil && got != want {
		err = fmt.Errorf("the upstream ran %d requests and not %d", got-before, want-before)
	}
	return log, err
}
