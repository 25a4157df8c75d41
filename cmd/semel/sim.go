package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel/cmd/internal/serving"
	"github.com/semelhq/semel/sim"
)

type simOptions struct {
	seeds   int
	seed    uint64
	mutant  string
	json    bool
	trace   bool
	mutants bool
}

// huntLimit is how many seeds a planted bug may survive.
const huntLimit = 3000

func simCommand() *cobra.Command {
	o := simOptions{seeds: 20_000, seed: 1}
	c := &cobra.Command{
		Use:   "sim [flags]",
		Short: "simulate crashes, losses and races, and check what must hold",
		Long: `Run the code that decides who executes through simulated time: processes that
crash, stand still and come back, clocks that are wrong, a network that loses,
delays, doubles and reorders, stores that fail over, clients that leave and
retry, handlers that panic. A ledger that nothing else reads checks every step.

A seed is one small deployment. The same seed gives the same events everywhere,
so a failure is replayed by the line that it prints. At the end of each seed the
faults stop, and nothing may be left hanging.`,
		Example: `  semel sim                                   20,000 seeds
  semel sim --seed 123 --seeds 1 --trace      read what happens in one of them
  semel sim --mutants                         do the checks notice planted bugs?`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			// Millions of short-lived events, little that stays: collect less often.
			defer debug.SetGCPercent(debug.SetGCPercent(800))
			if o.mutants {
				return o.hunt(ctx, c.OutOrStdout(), c.ErrOrStderr())
			}
			return o.run(ctx, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.IntVar(&o.seeds, "seeds", o.seeds, "simulate `N` seeds")
	f.Uint64Var(&o.seed, "seed", o.seed, "the first seed is `S`, the next S+1, and so on")
	f.BoolVar(&o.mutants, "mutants", false, fmt.Sprintf("plant one bug after the other and tell after how many seeds it is found, at most %d", huntLimit))
	f.StringVar(&o.mutant, "mutant", "", "plant the bug of this `NAME`, as --mutants lists them")
	f.BoolVar(&o.trace, "trace", false, "print what happens, line by line; takes one seed")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

func (o *simOptions) check() error {
	switch {
	case o.seeds < 1:
		return usageError{fmt.Errorf("--seeds %d: at least 1 is needed", o.seeds)}
	case o.trace && o.seeds > 1:
		return usageError{fmt.Errorf("--trace with %d seeds: a trace is of one seed; add --seeds 1", o.seeds)}
	case o.trace && (o.json || o.mutants):
		return usageError{fmt.Errorf("--trace goes with neither --json nor --mutants")}
	case o.mutant != "" && o.mutants:
		return usageError{fmt.Errorf("--mutants plants every bug by itself; leave --mutant away")}
	case o.mutant == "":
		return nil
	}
	for _, m := range sim.Mutants() {
		if m.Name == o.mutant {
			return nil
		}
	}
	return usageError{fmt.Errorf("--mutant %s: there is no such planted bug; `semel sim --mutants` lists them", printable(o.mutant))}
}

// run simulates the seeds and tells what came of them.
func (o *simOptions) run(ctx context.Context, out, errOut io.Writer) error {
	options := sim.Options{Seed: o.seed, Seeds: o.seeds, Mutant: o.mutant}
	if o.trace {
		options.Trace = out
	}
	show, clear := simProgress(errOut, "seeds", o.seeds)
	if !o.trace {
		options.Progress = show
	}
	r, err := sim.Run(ctx, options)
	clear()
	if err != nil {
		return fmt.Errorf("the simulation ended after %d of %d seeds: %w", r.Seeds, o.seeds, err)
	}
	if o.json {
		err = json.NewEncoder(out).Encode(newSimReport(r))
	} else {
		p := newPaper(out)
		if !o.trace {
			printSimCounts(p, r)
		}
		printSimEnd(p, r)
	}
	if err == nil && r.Violated > 0 {
		err = errTold
	}
	return err
}

// simReport is the report for programs.
type simReport struct {
	Seeds      int              `json:"seeds"`
	Seed       uint64           `json:"seed"`
	Operations int64            `json:"operations"`
	Violations int              `json:"violations"`
	Broken     map[string]int   `json:"broken"`
	Faults     map[string]int64 `json:"faults"`
	Paths      map[string]int64 `json:"paths"`
	Hash       string           `json:"hash"`
	Seconds    float64          `json:"seconds"`
	Found      []sim.Violation  `json:"found,omitempty"`
	Mutants    []simKill        `json:"mutants,omitempty"`
}

type simKill struct {
	Name        string `json:"name"`
	Bug         string `json:"bug"`
	KilledAfter int    `json:"killed_after"`
	Invariant   string `json:"invariant,omitempty"`
}

func newSimReport(r sim.Report) simReport {
	s := simReport{
		Seeds: r.Seeds, Seed: r.Seed, Operations: r.Operations, Violations: r.Violated, Hash: fmt.Sprintf("%016x", r.Hash),
		Seconds: r.Took.Seconds(), Found: r.Violations, Faults: map[string]int64{}, Paths: map[string]int64{}, Broken: map[string]int{},
	}
	for _, name := range sim.Zeros() {
		s.Broken[name] = 0
	}
	maps.Copy(s.Broken, r.Broken)
	for _, f := range sim.Faults() {
		s.Faults[f.String()] = r.Faults[f]
	}
	for _, p := range sim.Paths() {
		s.Paths[p.String()] = r.Paths[p]
	}
	return s
}

// printSimCounts tells people how much went wrong on purpose.
func printSimCounts(p paper, r sim.Report) {
	fmt.Fprintln(p, p.bold("What went wrong, on purpose")+p.faint("   times"))
	cells := make([]string, 0, len(r.Faults))
	for _, f := range sim.Faults() {
		cells = append(cells, fmt.Sprintf("%-18s %9s", f, thousands(r.Faults[f])))
	}
	printColumns(p, cells)
	fmt.Fprintln(p, "\n"+p.bold("Where that led"))
	cells = cells[:0]
	for _, path := range sim.Paths() {
		cells = append(cells, fmt.Sprintf("%-18s %9s", path, thousands(r.Paths[path])))
	}
	printColumns(p, cells)
}

// printSimEnd tells people what came of it.
func printSimEnd(p paper, r sim.Report) {
	fmt.Fprintln(p)
	last := r.Seed + uint64(r.Seeds) - 1
	fmt.Fprintf(p, "seeds        %s   (%d to %d)\n", thousands(int64(r.Seeds)), r.Seed, last)
	fmt.Fprintf(p, "operations   %s of the store in %.1f s, %s a minute\n", thousands(r.Operations), r.Took.Seconds(),
		thousands(int64(float64(r.Operations)/r.Took.Minutes())))
	fmt.Fprintf(p, "hash         %016x over all events; the same seeds give the same\n", r.Hash)
	fmt.Fprint(p, "counts      ")
	for _, name := range sim.Zeros() {
		fmt.Fprintf(p, " %s %d", strings.ToLower(name), r.Broken[name])
	}
	fmt.Fprintln(p)
	if r.Violated == 0 {
		fmt.Fprintf(p, "violations   %s", p.bold("0"))
		if r.Seeds >= 100 {
			fmt.Fprintf(p, "/%d   (95 %%: in at most %.3g %% of all seeds)", r.Seeds, 300/float64(r.Seeds))
		}
		fmt.Fprintln(p)
		return
	}
	fmt.Fprintf(p, "violations   %s\n", p.bold(strconv.Itoa(r.Violated)))
	for i, v := range r.Violations {
		if i == 10 {
			fmt.Fprintf(p, "  and %d more\n", r.Violated-i)
			break
		}
		fmt.Fprintf(p, "%v\n", v)
	}
}

// printColumns prints cells of equal width, two in a line.
func printColumns(w io.Writer, cells []string) {
	half := (len(cells) + 1) / 2
	for i := range half {
		line := "  " + cells[i]
		if i+half < len(cells) {
			line += "     " + cells[i+half]
		}
		fmt.Fprintln(w, line)
	}
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// hunt plants one bug after the other.
func (o *simOptions) hunt(ctx context.Context, out, errOut io.Writer) error {
	limit := min(o.seeds, huntLimit)
	all := len(sim.Mutants())
	show, clear := simProgress(errOut, "planted bugs", all)
	done := 0
	kills, err := sim.Hunt(ctx, o.seed, limit, func(sim.Kill) { done++; show(done) })
	clear()
	if err != nil {
		return fmt.Errorf("the hunt ended after %d of %d planted bugs: %w", len(kills), all, err)
	}
	s := simReport{Seeds: limit, Seed: o.seed, Faults: map[string]int64{}, Paths: map[string]int64{}, Broken: map[string]int{}}
	alive := 0
	var rows [][]string
	for _, k := range kills {
		after := strconv.Itoa(k.After)
		if k.After == 0 {
			alive++
			after = "survives"
		}
		rows = append(rows, []string{k.Mutant.Name, after, k.By.Invariant, k.Mutant.Bug})
		s.Mutants = append(s.Mutants, simKill{k.Mutant.Name, k.Mutant.Bug, k.After, k.By.Invariant})
	}
	if o.json {
		err = json.NewEncoder(out).Encode(s)
	} else {
		p := newPaper(out)
		p.table([]string{"PLANTED BUG", "FOUND AFTER", "BY", "WHAT IT IS"}, rows, func(_ int, _ []string, text string) string { return text })
		fmt.Fprintf(p, "\n%d planted, %d found within %d seeds, %s. (n) is line n of the list of field bugs.\n", all, all-alive, limit, p.bold(fmt.Sprintf("%d survive", alive)))
	}
	if err == nil && alive > 0 {
		err = errTold
	}
	return err
}

// simProgress gives a function that rewrites one line of a terminal, and one
// that wipes it. Where there is no terminal nothing is written.
func simProgress(w io.Writer, what string, all int) (show func(done int), clear func()) {
	if !serving.IsTerminal(w) {
		return func(int) {}, func() {}
	}
	start := time.Now()
	var last atomic.Int64
	show = func(done int) {
		now := int64(time.Since(start) / (100 * time.Millisecond))
		if last.Swap(now) == now && done < all {
			return
		}
		fmt.Fprintf(w, "\r\x1b[K%s of %s %s, %s", thousands(int64(done)), thousands(int64(all)), what, span(time.Since(start)))
	}
	return show, func() { fmt.Fprint(w, "\r\x1b[K") }
}
