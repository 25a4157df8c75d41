// Bench measures Semel against its peers: ratios in one run, the two sides
// alternating, every round printed with the median. Absolute figures depend on
// the machine; take the ratios. It is a module of its own so that no peer
// becomes anybody's dependency; nothing imports it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/semelhq/semel/bench/growth"
	"github.com/semelhq/semel/bench/handler"
	"github.com/semelhq/semel/bench/herd"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/bench/lifetime"
	"github.com/semelhq/semel/bench/postgres"
	"github.com/semelhq/semel/bench/proxy"
	"github.com/semelhq/semel/bench/redis"
	"github.com/semelhq/semel/bench/sqlite"
)

// bench is one entry of the goals' table.
type bench struct {
	name string
	run  func(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) ([]rounds.Result, error)
}

// benches are all, in the order in which they run.
func benches(largest uint64) []bench {
	return []bench{
		{"p8", handler.Run},
		{"p9", sqlite.Run},
		{"p1", postgres.Scopes},
		{"p3", postgres.Run},
		{"p13", postgres.Steps},
		{"p6", redis.Fresh},
		{"p7", redis.Pairs},
		{"p10", proxy.Memory},
		{"p11", proxy.Durable},
		{"p12", herd.Run},
		{"p12", herd.Shared},
		{"p15-expire", lifetime.Part(lifetime.Expire).Run},
		{"p15-drop", lifetime.Part(lifetime.Drop).Run},
		{"p15-churn", lifetime.Part(lifetime.Churn).Run},
		{"p15-sqlite", lifetime.SQLite},
		{"p16-sqlite", grown(growth.SQLite, largest)},
		{"p16-postgres", grown(growth.Postgres, largest)},
	}
}

// grown is a bench that measures stores of up to largest records.
func grown(run func(context.Context, io.Writer, *child.Programs, rounds.Options, uint64) ([]rounds.Result, error), largest uint64) func(context.Context, io.Writer, *child.Programs, rounds.Options) ([]rounds.Result, error) {
	return func(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) ([]rounds.Result, error) {
		return run(ctx, w, programs, o, largest)
	}
}

func main() {
	only := flag.String("only", "", "comma-separated `names` of the benches to run, such as p8,p16-sqlite; empty runs all")
	count := flag.Int("rounds", 5, "how often each comparison is made")
	seconds := flag.Float64("seconds", 1, "how long each side is measured in each round; P9 and P12 have lengths of their own")
	largest := flag.Uint64("largest", 1_000_000, "how many records the largest store of P16 holds, in SQLite a million at most")
	asJSON := flag.Bool("json", false, "print one JSON object; the rounds go to standard error")
	flag.Parse()
	// What is started has to be ended, also if this is interrupted.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := io.Writer(os.Stdout)
	if *asJSON {
		w = os.Stderr
	}
	names := strings.FieldsFunc(strings.ToLower(*only), func(r rune) bool { return r == ',' })
	results, err := run(ctx, w, benches(*largest), names, rounds.Options{Rounds: *count, For: time.Duration(*seconds * float64(time.Second))})
	if *asJSON {
		if results == nil {
			results = []rounds.Result{}
		}
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"results": results})
	} else if len(results) > 0 {
		fmt.Fprintln(w)
		rounds.Write(w, results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs those of the benches that are named, or all; one that fails does not
// stop the others.
func run(ctx context.Context, w io.Writer, benches []bench, names []string, o rounds.Options) (results []rounds.Result, err error) {
	programs, err := child.NewPrograms()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	for _, b := range benches {
		line, _, _ := strings.Cut(b.name, "-")
		if len(names) > 0 && !slices.Contains(names, b.name) && !slices.Contains(names, line) {
			continue
		}
		of, failed := b.run(ctx, w, programs, o)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", b.name, failed))
		}
		results = append(results, of...)
	}
	return results, err
}
