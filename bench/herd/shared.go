package herd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

const (
	processes  = 3
	sharedGoal = 100 // ms beyond the handler's time
)

// Shared measures P12 over three processes that share a PostgreSQL database.
func Shared(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	fmt.Fprintf(w, "\nP12 %d duplicates at once over as many connections to %d processes that share PostgreSQL, a handler that takes %v\n", size, processes, slowness)
	db, err := server.StartPostgres(filepath.Join(programs.Dir(), "herd"), server.PostgresOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	defer programs.StopAll()
	var herds []*herd
	for i := range processes {
		h := &herd{name: fmt.Sprintf("process %d", i+1)}
		if h.Process, err = programs.ServerOver(ctx, db.URL("postgres")); err != nil {
			return nil, err
		}
		share := size / processes
		if i < size%processes {
			share++
		}
		if h.client, err = load.Dial(h.Address, share); err != nil {
			return nil, err
		}
		defer h.client.Close()
		herds = append(herds, h)
	}
	line := rounds.Result{
		ID: "P12", What: fmt.Sprintf("herd of %d, %d processes, PostgreSQL", size, processes), Against: "the handler's " + slowness.String(),
		Unit: "ms", AtMost: true, Goal: sharedGoal,
	}
	request := load.Post("/slow", rand.Uint32())
	for round := range o.Filled().Rounds {
		beyond, err := burstAll(w, herds, request, uint64(round))
		if err != nil {
			return nil, err
		}
		line.Rounds = append(line.Rounds, float64(beyond)/1e6)
	}
	line.Reached = rounds.Median(line.Rounds)
	return []rounds.Result{line}, nil
}

// burstAll lets all processes' clients loose on one key, and gives how much
// longer than the handler the last answer took.
func burstAll(w io.Writer, herds []*herd, request *load.Request, key uint64) (time.Duration, error) {
	seen, errs := make([]*sight, len(herds)), make([]error, len(herds))
	var wg sync.WaitGroup
	for i, h := range herds {
		wg.Go(func() { seen[i], errs[i] = h.burst(request, key) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	runs, alike, beyond, body := 0, 0, time.Duration(0), seen[0].most
	var lines []string
	for _, s := range seen {
		runs, beyond = runs+s.runs, max(beyond, s.beyond)
		if s.most == body {
			alike += s.alike
		}
		lines = append(lines, s.String())
	}
	fmt.Fprintf(w, "    round %d  handler + %s, %d runs, %d answers alike\n", key+1, rounds.Short(beyond), runs, alike)
	if runs != 1 || alike != size {
		return 0, fmt.Errorf("the handler ran %d times, and %d of %d answers are alike:\n%s", runs, alike, size, strings.Join(lines, "\n"))
	}
	return beyond, nil
}
