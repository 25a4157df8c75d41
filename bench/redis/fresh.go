package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

// connections is how many clients send at once, each one request at a time.
const connections = 256

// Fresh measures P6: requests with new keys, over HTTP, semelhttp over the Redis
// store against fiber with its idempotency middleware over its Redis storage.
// Both use one server, which keeps nothing on disk.
func Fresh(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	o = o.Filled()
	defer programs.StopAll()
	dir, err := os.MkdirTemp("", "semel-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := server.StartRedis(dir, server.RedisOptions{Settings: map[string]string{"appendonly": "no"}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Kill()) }()
	fmt.Fprintf(w, "\nP6  fresh over HTTP, semelhttp over Redis, fenced, against fiber's middleware over Redis; %d keep-alive connections\n", connections)

	request := load.Post("/payments", rand.Uint32())
	var next atomic.Uint64
	var sides []rounds.Side
	for _, kind := range []string{"fiber-guarded", "semel"} {
		p, err := programs.KindOver(ctx, kind, s.URL())
		if err != nil {
			return nil, err
		}
		c, err := load.Dial(p.Address, connections)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		r := request
		if kind == "semel" {
			r = request.Replayed(false)
		}
		sides = append(sides, c.Side(kind, r, load.Counting(&next), p.CPU))
	}
	log := rounds.NewLog(w, sides, 0, 0)
	if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
		return nil, err
	}
	log.Close()
	return []rounds.Result{log.Result(1, rounds.Result{
		ID: "P6", What: fmt.Sprintf("Redis fresh over HTTP, %d connections", connections), Against: "fiber v3 + Redis storage", Goal: 2.5,
	})}, nil
}
