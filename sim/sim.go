package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what to simulate.
type Options struct {
	// Seed is the first seed. Seeds Seed, Seed+1, … are run.
	Seed uint64
	// Seeds is how many seeds are run, at least 1.
	Seeds int
	// Mutant is the name of a planted bug, of [Mutants]; "" is none.
	Mutant string
	// Workers is how many seeds run at once. What comes out does not depend on it.
	// Default: GOMAXPROCS.
	Workers int
	// Trace gets what happens, line by line, if it is set. It makes everything much
	// slower, and one worker is used.
	Trace io.Writer
	// Progress is told now and then how many seeds are through, if it is set. It is
	// called from one goroutine at a time.
	Progress func(done int)
	// StopAtFirst ends the run soon after the first violation: the report then
	// covers the seeds up to the lowest one that has a violation.
	StopAtFirst bool
}

// Violation is a promise that was broken.
type Violation struct {
	Seed uint64 `json:"seed"`
	// Invariant is its name in the list of invariants, such as S1 or LOST.
	Invariant string `json:"invariant"`
	// At is the virtual time since the seed's start.
	At   time.Duration `json:"at"`
	Text string        `json:"text"`
	// Mutant is the planted bug of the run, "" for none.
	Mutant string `json:"mutant,omitempty"`
}

// String tells what broke, and ends with the line that replays it.
func (v Violation) String() string {
	line := fmt.Sprintf("semel sim --seed %d --seeds 1", v.Seed)
	if v.Mutant != "" {
		line += " --mutant " + v.Mutant
	}
	return fmt.Sprintf("%s broken in seed %d after %v: %s\n  replay: %s   (with --trace to read what happens)", v.Invariant, v.Seed, v.At, v.Text, line)
}

// Zeros gives the names of the counts that must be zero, in the order of
// reports. A violation of another invariant is none of them.
func Zeros() []string {
	return []string{"LOST", "SWALLOWED", "DOUBLE", "FLIP", "LEAK", "STUCK", "SILENT"}
}

// Report is what a run came to. It is the same for the same options, apart
// from Took.
type Report struct {
	Seed  uint64
	Seeds int
	// Operations counts the calls that reached the store.
	Operations int64
	// Extra counts the starts that AtLeastOnce made beyond the first.
	Extra int64
	// Faults counts by [Fault] how often each kind struck.
	Faults [faultCount]int64
	// Paths counts by [Path] what the faults led to.
	Paths [pathCount]int64
	// Violations are in the order of their seeds, at most one for each seed, which
	// ends with it. Only the first 100 are kept; Violated counts all.
	Violations []Violation
	Violated   int
	// Broken counts the violations by invariant.
	Broken map[string]int
	// Hash covers every event of every seed.
	Hash uint64
	Took time.Duration
}

// Run simulates the seeds. The error is ctx's cause if ctx ended first, or
// says what is wrong with the options; violations are no error.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Seeds < 1 {
		return Report{}, fmt.Errorf("sim: %d seeds; at least 1 is needed", o.Seeds)
	}
	bug, err := find(o.Mutant)
	if err != nil {
		return Report{}, err
	}
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Trace != nil {
		o.Workers = 1
	}
	start := time.Now()
	r := run(ctx, o, bug)
	r.Took = time.Since(start)
	for i := range r.Violations {
		r.Violations[i].Mutant = o.Mutant
	}
	if r.Seeds < o.Seeds && ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, nil
}

// find gives the planted bug of a name.
func find(name string) (*planted, error) {
	if name == "" {
		return &planted{}, nil
	}
	for _, m := range Mutants() {
		if m.Name == name {
			return &m.planted, nil
		}
	}
	return nil, errors.New("sim: there is no planted bug named " + name)
}

// batch is how many seeds a worker takes at a time.
const batch = 16

// run lets workers take seeds in order and adds up what they found, in the
// order of the seeds.
func run(ctx context.Context, o Options, bug *planted) Report {
	var (
		next    atomic.Int64
		ended   atomic.Bool
		mu      sync.Mutex
		through int
		parts   = make([]Report, (o.Seeds+batch-1)/batch)
		wg      sync.WaitGroup
	)
	for range o.Workers {
		wg.Go(func() {
			var r room
			for ctx.Err() == nil && !ended.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(parts) {
					return
				}
				part := &parts[i]
				first := o.Seed + uint64(i*batch)
				for n := range min(batch, o.Seeds-i*batch) {
					if part.add(simulate(first+uint64(n), bug, o.Trace, &r)); o.StopAtFirst && part.Violated > 0 {
						ended.Store(true)
						break
					}
				}
				mu.Lock()
				through += part.Seeds
				if o.Progress != nil {
					o.Progress(through)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r := Report{Seed: o.Seed}
	for i := range parts {
		if parts[i].Seeds == 0 {
			break // ctx ended
		}
		r.join(&parts[i])
		if o.StopAtFirst && r.Violated > 0 {
			break
		}
	}
	return r
}

func (r *Report) add(o outcome) {
	one := Report{Seeds: 1, Operations: o.operations, Extra: o.extra, Faults: o.faults, Paths: o.paths, Hash: mix(o.hash)}
	if o.bad != nil {
		one.Violations, one.Violated = []Violation{*o.bad}, 1
		one.Broken = map[string]int{o.bad.Invariant: 1}
	}
	r.join(&one)
}

// join adds what later seeds came to.
func (r *Report) join(more *Report) {
	r.Seeds += more.Seeds
	r.Operations += more.Operations
	r.Extra += more.Extra
	for f, n := range more.Faults {
		r.Faults[f] += n
	}
	for p, n := range more.Paths {
		r.Paths[p] += n
	}
	r.Violated += more.Violated
	for name, n := range more.Broken {
		if r.Broken == nil {
			r.Broken = map[string]int{}
		}
		r.Broken[name] += n
	}
	if room := 100 - len(r.Violations); room > 0 {
		r.Violations = slices.Concat(r.Violations, more.Violations[:min(room, len(more.Violations))])
	}
	r.Hash += more.Hash
}

// Kill tells how a planted bug was found.
type Kill struct {
	Mutant Mutant
	// After is how many seeds it took, 0 if it survived.
	After int
	// By is the violation that gave it away.
	By Violation
}

// Hunt looks for each planted bug in at most limit seeds from seed on.
func Hunt(ctx context.Context, seed uint64, limit int, progress func(Kill)) ([]Kill, error) {
	var kills []Kill
	for _, m := range Mutants() {
		r, err := Run(ctx, Options{Seed: seed, Seeds: limit, Mutant: m.Name, StopAtFirst: true})
		if err != nil {
			return kills, err
		}
		k := Kill{Mutant: m}
		if r.Violated > 0 {
			k.By = r.Violations[0]
			k.After = int(k.By.Seed-seed) + 1
		}
		kills = append(kills, k)
		if progress != nil {
			progress(k)
		}
	}
	return kills, nil
}
