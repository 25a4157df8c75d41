package handler

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// The goals for one call.
const (
	allocationsGoal = 8
	timeGoal        = 3 // µs
)

// calls is how often ServeHTTP is called for each figure of a round.
const calls = 20_000

// sink is a ResponseWriter without a connection.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// created reads the body and answers fixed bytes.
func created(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, `{"id":"pay_1"}`)
}

// cost is what one call takes.
type cost struct{ micros, allocations float64 }

// direct measures what the guard adds to one call of ServeHTTP, by itself.
func direct(ctx context.Context, w io.Writer, o rounds.Options) ([]rounds.Result, error) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		return nil, err
	}
	bare := http.HandlerFunc(created)
	guarded, err := semelhttp.NewHandler(guard, bare, semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")})
	if err != nil {
		return nil, err
	}
	results := []rounds.Result{
		{ID: "P8", What: "one call more, fresh", Unit: "µs", Goal: timeGoal, AtMost: true},
		{ID: "P8", What: "one call more, fresh", Unit: "allocs", Goal: allocationsGoal, AtMost: true},
		{ID: "P8", What: "one call more, replay", Unit: "µs", Goal: timeGoal, AtMost: true},
		{ID: "P8", What: "one call more, replay", Unit: "allocs", Goal: allocationsGoal, AtMost: true},
	}
	fmt.Fprintf(w, "    %d calls of ServeHTTP, one after the other, without a network\n", calls)
	for round := range o.Filled().Rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := call(bare, fmt.Sprintf("bare-%d-", round), false)
		fresh := call(guarded, fmt.Sprintf("fresh-%d-", round), false)
		replay := call(guarded, "replay", true)
		fmt.Fprintf(w, "    round %d  bare %.2fµs %.1f allocs   fresh %.2fµs %.1f allocs   replay %.2fµs %.1f allocs\n",
			round+1, b.micros, b.allocations, fresh.micros, fresh.allocations, replay.micros, replay.allocations)
		for i, more := range []float64{
			fresh.micros - b.micros, fresh.allocations - b.allocations,
			replay.micros - b.micros, replay.allocations - b.allocations,
		} {
			results[i].Rounds = append(results[i].Rounds, more)
		}
	}
	for i := range results {
		results[i].Against, results[i].Reached = "the bare handler's call", rounds.Median(results[i].Rounds)
	}
	return results, nil
}

// call calls h, each time with another key unless same is set.
func call(h http.Handler, prefix string, same bool) cost {
	keys := make([][]string, calls)
	for i := range keys {
		keys[i] = []string{fmt.Sprintf("%s%d", prefix, i)}
		if same {
			keys[i] = []string{prefix}
		}
	}
	out := &sink{http.Header{}}
	body := strings.NewReader("")
	r, err := http.NewRequest(http.MethodPost, "/payments", nil)
	if err != nil {
		panic(err) // a constant request
	}
	r.Body, r.ContentLength = io.NopCloser(body), int64(len(orderBody))
	r.Header.Set("Authorization", "Bearer alice")
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i := range keys {
		body.Reset(orderBody)
		clear(out.header)
		r.Header["Idempotency-Key"] = keys[i]
		h.ServeHTTP(out, r)
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return cost{
		micros:      float64(took.Nanoseconds()) / 1e3 / calls,
		allocations: float64(after.Mallocs-before.Mallocs) / calls,
	}
}

const orderBody = `{"amount":100}`
