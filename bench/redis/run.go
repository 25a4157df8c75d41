// Package redis measures the Redis store against what one writes by hand with
// go-redis, and behind HTTP against fiber's idempotency middleware over Redis.
// Only the bench command imports it; for a figure of your own machine run that.
package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

// Pairs measures P7: claim and complete, fenced, against SET NX and SET without
// a fence, on one server that keeps nothing on disk, and on one that flushes
// each write.
func Pairs(ctx context.Context, w io.Writer, _ *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	o = o.Filled()
	dir, err := os.MkdirTemp("", "semel-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintf(w, "\nP7  Redis: claim and complete in Semel, fenced, against go-redis' SET NX and SET, unfenced; same server\n")
	for _, c := range []struct {
		name, what string
		settings   map[string]string
		callers    int
		goal       float64
	}{
		{"memory", "kept in memory", map[string]string{"appendonly": "no"}, 256, 4},
		{"memory1", "kept in memory", map[string]string{"appendonly": "no"}, 1, 0},
		{"always", "appendfsync always", nil, 256, 0},
	} {
		line, err := pairsOn(ctx, w, filepath.Join(dir, c.name), server.RedisOptions{Settings: c.settings}, c.callers, c.what, o)
		if err != nil {
			return results, err
		}
		line.Goal = c.goal
		results = append(results, line)
	}
	return results, nil
}

// pairsOn compares both on a new server.
func pairsOn(ctx context.Context, w io.Writer, dir string, options server.RedisOptions, callers int, what string, o rounds.Options) (line rounds.Result, err error) {
	s, err := server.StartRedis(dir, options)
	if err != nil {
		return line, err
	}
	defer func() { err = errors.Join(err, s.Kill()) }()
	store, err := redis.Open(ctx, s.URL(), redis.Options{})
	if err != nil {
		return line, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p := openPeer(s.Address())
	defer func() { err = errors.Join(err, p.client.Close()) }()

	fmt.Fprintf(w, "    %d callers, %s, pairs a second\n", callers, what)
	var counter pairs.Counter
	sides := []rounds.Side{counter.Side("go-redis", callers, p.pair), counter.Side("semel", callers, pairs.Of(store))}
	log := rounds.NewLog(w, sides, 0, 0)
	if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
		return line, err
	}
	log.Close()
	return log.Result(1, rounds.Result{
		ID: "P7", What: fmt.Sprintf("Redis claim + complete, %d callers, %s", callers, what), Against: "go-redis SET NX + SET, unfenced",
	}), nil
}
