package postgres

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
)

const (
	// connections is how many clients send at once.
	connections = 32
	// hot is how many keys are asked for again and again.
	hot = 1000
)

// replays measures P5: a server over PostgreSQL with a cache in its memory
// replays keys that it has seen, and keys that another process stored.
func replays(ctx context.Context, w io.Writer, programs *child.Programs, url string, o rounds.Options) ([]rounds.Result, error) {
	defer programs.StopAll()
	fmt.Fprintf(w, "\nP5  replay over HTTP from PostgreSQL behind a cache, against the bare handler; %d keep-alive connections\n", connections)
	var clients []*load.Client
	var processes []*child.Process
	for i := range 4 {
		start := func() (*child.Process, error) { return programs.ServerOver(ctx, url) }
		if i == 0 {
			start = func() (*child.Process, error) { return programs.Server(ctx, "bare") }
		}
		p, err := start()
		if err != nil {
			return nil, err
		}
		c, err := load.Dial(p.Address, connections)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		clients, processes = append(clients, c), append(processes, p)
	}
	request := load.Post("/payments", rand.Uint32())
	// The second server runs them; the third, which replays, has not seen them.
	if err := clients[1].Each(ctx, request, hot); err != nil {
		return nil, err
	}
	var next, cold atomic.Uint64
	next.Store(hot)
	sides := []rounds.Side{
		clients[0].Side("bare", request, load.Counting(&next), processes[0].CPU),
		clients[2].Side("replay, hot", request.Replayed(true), load.Cycling(hot), processes[2].CPU),
		clients[1].Side("fresh", request.Replayed(false), load.Counting(&next), processes[1].CPU),
	}
	log := rounds.NewLog(w, sides, 0, 0, 0)
	if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
		return nil, err
	}
	log.Close()
	results := []rounds.Result{
		log.Result(1, rounds.Result{ID: "P5", What: "replay from PostgreSQL, hot key", Against: "the bare handler", Goal: 0.95}),
		log.Result(2, rounds.Result{ID: "P5", What: "fresh over PostgreSQL", Against: "the bare handler, which stores nothing"}),
	}
	// Cold: keys that the fourth server has never seen, each once.
	const many = 20_000
	coldRequest := load.Post("/payments", rand.Uint32())
	if err := clients[1].Each(ctx, coldRequest, many); err != nil {
		return results, err
	}
	line := rounds.Result{ID: "P5", What: "replay from PostgreSQL, cold key, p99", Against: "the field's guide", Unit: "ms", Goal: 20, AtMost: true}
	for range o.Filled().Rounds {
		s, err := clients[3].Run(ctx, o.Filled().For/4, coldRequest.Replayed(true), load.Counting(&cold))
		if err != nil {
			return results, err
		}
		fmt.Fprintf(w, "    a cold replay: %.0f/s, p50 %s, p99 %s\n", s.Rate(), rounds.Short(s.Quantile(0.5)), rounds.Short(s.Quantile(0.99)))
		line.Rounds = append(line.Rounds, float64(s.Quantile(0.99))/1e6)
		if cold.Load() > many*9/10 {
			break
		}
	}
	line.Reached = rounds.Median(line.Rounds)
	return append(results, line), nil
}
