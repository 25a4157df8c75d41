// Package handler measures what semelhttp costs a net/http service: over real
// connections against the same handler without it, with fiber and its
// idempotency middleware beside them, and by calls of ServeHTTP. Nothing imports
// it but the bench command; to find what is slow, profile the benchmarks of
// package semelhttp instead.
package handler

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
)

const (
	// connections is how many clients send at once.
	connections = 64
	// hot is how many keys are replayed in turn.
	hot = 1000
)

// The goals of P8.
const (
	freshGoal  = 0.93
	replayGoal = 1.0
)

// Run measures P8 and writes every round to w.
func Run(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) ([]rounds.Result, error) {
	fmt.Fprintf(w, "\nP8  memory store behind net/http, against the bare handler; each kind a process of its own\n"+
		"    %d keep-alive connections on the loopback, one request at a time on each; the client takes its share of the processors\n", connections)
	results, err := direct(ctx, w, o)
	if err != nil {
		return nil, err
	}
	b := &bench{programs: programs, run: rand.Uint32()}
	defer b.close()
	for _, c := range []struct{ path, what string }{
		{"/payments", "a handler that reads and writes JSON"},
		{"/fixed", "a handler that answers fixed bytes"},
	} {
		more, err := b.compare(ctx, w, o, c.path, c.what)
		if err != nil {
			return results, err
		}
		results = append(results, more...)
	}
	return results, b.lookup(ctx, w, o)
}

type bench struct {
	programs *child.Programs
	run      uint32
	next     atomic.Uint64
	servers  []*server
}

// server is a process and the connections to it.
type server struct {
	*child.Process
	client *load.Client
}

// open starts one server for each kind. A side that only replays has a process
// of its own, so that what others store neither burdens nor helps it.
func (b *bench) open(ctx context.Context, kinds ...string) error {
	for _, kind := range kinds {
		p, err := b.programs.Server(ctx, kind)
		if err != nil {
			return err
		}
		c, err := load.Dial(p.Address, connections)
		if err != nil {
			return err
		}
		b.servers = append(b.servers, &server{p, c})
	}
	return nil
}

func (b *bench) close() {
	for _, s := range b.servers {
		_ = s.client.Close() // the server ends anyway
	}
	b.servers = nil
	b.programs.StopAll()
}

// compare measures all sides on one path, with new processes.
func (b *bench) compare(ctx context.Context, w io.Writer, o rounds.Options, path, what string) ([]rounds.Result, error) {
	b.close()
	if err := b.open(ctx, "bare", "semel", "semel", "fiber", "fiber-guarded", "fiber-guarded"); err != nil {
		return nil, err
	}
	b.run++
	request, s := load.Post(path, b.run), b.servers
	for _, of := range []*server{s[2], s[5]} {
		if err := of.client.Each(ctx, request, hot); err != nil {
			return nil, err
		}
	}
	b.next.Store(hot)
	side := func(name string, of *server, r *load.Request, keys load.Keys) rounds.Side {
		return of.client.Side(name, r, keys, of.CPU)
	}
	fresh := load.Counting(&b.next)
	sides := []rounds.Side{
		side("bare", s[0], request, fresh),
		side("fresh", s[1], request.Replayed(false), fresh),
		side("replay", s[2], request.Replayed(true), load.Cycling(hot)),
		side("fiber bare", s[3], request, fresh),
		side("fiber fresh", s[4], request, fresh),
		side("fiber replay", s[5], request, load.Cycling(hot)),
	}
	fmt.Fprintf(w, "    %s\n", what)
	log := rounds.NewLog(w, sides, 0, 0, 0, 3, 3, 3)
	if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
		return nil, err
	}
	log.Close()
	if err := b.ran(log); err != nil {
		return nil, err
	}
	goal := func(value float64) float64 {
		if path != "/payments" {
			return 0
		}
		return value
	}
	return []rounds.Result{
		log.Result(1, rounds.Result{ID: "P8", What: "semelhttp fresh, " + path, Against: "the bare handler", Goal: goal(freshGoal)}),
		log.Result(2, rounds.Result{ID: "P8", What: "semelhttp replay, " + path, Against: "the bare handler", Goal: goal(replayGoal)}),
		log.Result(4, rounds.Result{ID: "P8", What: "fiber's middleware fresh, " + path, Against: "fiber's bare handler"}),
		log.Result(5, rounds.Result{ID: "P8", What: "fiber's middleware replay, " + path, Against: "fiber's bare handler"}),
	}, nil
}

// ran checks that each handler ran as often as it should have.
func (b *bench) ran(log *rounds.Log) error {
	for i, s := range b.servers {
		want := log.Total(i).Count
		if i == 2 || i == 5 {
			want = hot
		}
		got, err := load.Get(s.Address, "/runs")
		if err != nil {
			return err
		}
		if got != fmt.Sprint(want) {
			return fmt.Errorf("the handler of side %d ran %s times and not %d", i+1, got, want)
		}
	}
	return nil
}

// lookup measures what one client waits for a replay when nobody else asks.
func (b *bench) lookup(ctx context.Context, w io.Writer, o rounds.Options) error {
	c, err := load.Dial(b.servers[2].Address, 1)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Run(ctx, max(o.Filled().For, time.Second), load.Post("/fixed", b.run).Replayed(true), load.Cycling(hot))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "    a replay for one client alone: p50 %s, p99 %s, p99.9 %s (goal: under 5ms)\n",
		rounds.Short(s.Quantile(0.5)), rounds.Short(s.Quantile(0.99)), rounds.Short(s.Quantile(0.999)))
	return nil
}
