// Package herd measures P12: a thousand duplicates of one request, all at once,
// while the handler takes its time. What counts is how long the last of them
// waits beyond the handler's own time, how often the handler runs, and whether
// all get the same answer: in one process, and over three that share a database.
// Nothing imports it but the bench command.
package herd

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/load"
	"github.com/semelhq/semel/bench/internal/rounds"
)

const (
	size = 1000
	// slowness is how long the handler takes; the server's own constant.
	slowness = 200 * time.Millisecond
	goal     = 60 // ms beyond it
)

// herd is one kind of server and the connections to it.
type herd struct {
	name string
	*child.Process
	client *load.Client
	rounds []float64
}

// Run measures P12 and writes every round to w.
func Run(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) ([]rounds.Result, error) {
	fmt.Fprintf(w, "\nP12 %d duplicates at once over as many connections, a handler that takes %v\n", size, slowness)
	defer programs.StopAll()
	herds := []*herd{{name: "semelhttp"}, {name: "fiber's middleware"}, {name: "no guard (net/http)"}}
	for i, kind := range []string{"semel", "fiber-guarded", "bare"} {
		var err error
		if herds[i].Process, err = programs.Server(ctx, kind); err != nil {
			return nil, err
		}
		if herds[i].client, err = load.Dial(herds[i].Address, size); err != nil {
			return nil, err
		}
		defer herds[i].client.Close()
	}
	request := load.Post("/slow", rand.Uint32())
	for round := range o.Filled().Rounds {
		for _, h := range herds {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			saw, err := h.burst(request, uint64(round))
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(w, "    round %d  %-20s %s\n", round+1, h.name, saw)
			if h == herds[0] && (saw.runs != 1 || saw.alike != size) {
				return nil, fmt.Errorf("the handler ran %d times, and %d of %d answers are alike", saw.runs, saw.alike, size)
			}
		}
	}
	var results []rounds.Result
	for i, h := range herds {
		r := rounds.Result{
			ID: "P12", What: fmt.Sprintf("herd of %d, %s", size, h.name), Against: "the handler's " + slowness.String(),
			Unit: "ms", AtMost: true, Reached: rounds.Median(h.rounds), Rounds: h.rounds,
		}
		if i == 0 {
			r.Goal = goal
		}
		results = append(results, r)
	}
	return results, nil
}

// sight is what was seen of one herd.
type sight struct {
	runs     int
	alike    int    // the most answers with the same status and body
	most     string // what they say
	statuses map[int]int
	failed   int
	beyond   time.Duration // the handler's time
	err      error         // one of those that failed
}

// String gives one line.
func (s *sight) String() string {
	var parts []string
	for status, n := range s.statuses {
		parts = append(parts, fmt.Sprintf("%d x %d", n, status))
	}
	slices.Sort(parts)
	if s.failed > 0 {
		parts = append(parts, fmt.Sprintf("%d without an answer (%v)", s.failed, s.err))
	}
	return fmt.Sprintf("handler + %-9s %4d runs, %4d answers alike: %s", rounds.Short(s.beyond), s.runs, s.alike, strings.Join(parts, ", "))
}

func (h *herd) burst(request *load.Request, key uint64) (*sight, error) {
	before, err := h.ran()
	if err != nil {
		return nil, err
	}
	answers, took := h.client.Burst(request, key)
	after, err := h.ran()
	if err != nil {
		return nil, err
	}
	s := &sight{runs: after - before, statuses: make(map[int]int), beyond: took - slowness}
	h.rounds = append(h.rounds, float64(s.beyond)/1e6)
	bodies := make(map[string]int)
	for _, a := range answers {
		if a.Err != nil {
			s.failed, s.err = s.failed+1, a.Err
			continue
		}
		s.statuses[a.Status]++
		body := fmt.Sprint(a.Status, string(a.Body))
		bodies[body]++
		if bodies[body] > s.alike {
			s.alike, s.most = bodies[body], body
		}
	}
	return s, nil
}

// ran tells how often the handler has run.
func (h *herd) ran() (int, error) {
	text, err := load.Get(h.Address, "/runs")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}
