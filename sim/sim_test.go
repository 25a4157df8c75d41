package sim

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The promise of the room: 20,000 seeds, no violation, every kind of fault often
// enough, every path reached. Short runs and the race detector take a tenth.
func TestSeedsKeepEveryInvariant(t *testing.T) {
	seeds := 20_000
	if testing.Short() || raceDetector {
		seeds = 2000
	}
	r, err := Run(t.Context(), Options{Seed: 1, Seeds: seeds})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Error(v)
	}
	for _, f := range Faults() {
		if got, want := r.Faults[f], int64(seeds/20); got < want {
			t.Errorf("%v struck %d times in %d seeds, want at least %d", f, got, seeds, want)
		}
	}
	for _, p := range Paths() {
		if got, want := r.Paths[p], int64(seeds/1000); got < want {
			t.Errorf("%v was reached %d times in %d seeds, want at least %d", p, got, seeds, want)
		}
	}
	if want := int64(seeds) * 100; r.Operations < want {
		t.Errorf("%d operations in %d seeds, want at least %d: the seeds do too little", r.Operations, seeds, want)
	}
	t.Logf("%d seeds, %d operations in %v, violations 0/%d (95 %%: at most %.5f %% of seeds)", r.Seeds, r.Operations, r.Took, r.Seeds, 300/float64(r.Seeds))
}

// INVARIANTS are only as good as the checks: each planted bug must be found, and
// by a check that is about it.
func TestMutantsDie(t *testing.T) {
	const limit = 3000
	var names []string
	kills, err := Hunt(t.Context(), 1, limit, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kills {
		m := k.Mutant
		switch {
		case k.After == 0:
			t.Errorf("%s survived %d seeds: %s", m.Name, limit, m.Bug)
		case !slices.Contains(m.Breaks, k.By.Invariant):
			t.Errorf("%s was found by %s, want one of %v: %v", m.Name, k.By.Invariant, m.Breaks, k.By)
		}
		if slices.Contains(names, m.Name) || strings.ContainsAny(m.Name, " '\"") {
			t.Errorf("%q: names are given once, and without spaces or quotes", m.Name)
		}
		names = append(names, m.Name)
	}
	if len(kills) < 40 {
		t.Errorf("%d planted bugs, want at least 40", len(kills))
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	var rooms [2]room
	for seed := range uint64(1000) {
		// The second world follows another one in its room: nothing may be left in it.
		simulate(seed+7, &planted{}, nil, &rooms[1])
		first := simulate(seed, &planted{}, nil, &rooms[0])
		if second := simulate(seed, &planted{}, nil, &rooms[1]); first.hash != second.hash || first.faults != second.faults {
			t.Fatalf("seed %d: hash %x, then %x", seed, first.hash, second.hash)
		}
	}
}

func TestReportDoesNotDependOnWorkers(t *testing.T) {
	reports := make([]Report, 2)
	for i, workers := range []int{1, 5} {
		r, err := Run(t.Context(), Options{Seed: 3, Seeds: 200, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		r.Took = 0
		reports[i] = r
	}
	if one, five := reports[0], reports[1]; one.Hash != five.Hash || one.Operations != five.Operations || one.Faults != five.Faults {
		t.Errorf("one worker: %+v, five: %+v", one, five)
	}
}

// A failure says how to see it again, and that line shows the same.
func TestViolationIsReplayed(t *testing.T) {
	o := Options{Seed: 1, Seeds: 500, Mutant: "never-cancels", StopAtFirst: true}
	r, err := Run(t.Context(), o)
	if err != nil || len(r.Violations) != 1 {
		t.Fatalf("got %+v, %v", r.Violations, err)
	}
	v := r.Violations[0]
	if line := "semel sim --seed " + strconv.FormatUint(v.Seed, 10) + " --seeds 1 --mutant never-cancels"; !strings.Contains(v.String(), line) {
		t.Errorf("got %q, want it to contain %q", v, line)
	}
	var trace bytes.Buffer
	again, err := Run(t.Context(), Options{Seed: v.Seed, Seeds: 1, Mutant: o.Mutant, Trace: &trace})
	if err != nil || len(again.Violations) != 1 || again.Violations[0] != v {
		t.Errorf("got %+v, %v; want %+v", again.Violations, err, v)
	}
	for _, words := range []string{"starts its handler", "store: version", "attempt"} {
		if !strings.Contains(trace.String(), words) {
			t.Errorf("the trace does not contain %q", words)
		}
	}
	if strings.Contains(trace.String(), "%!") {
		t.Error("the trace has a line whose numbers do not fit its words")
	}
}

func TestEveryNoteHasWords(t *testing.T) {
	for n := range noteCount {
		if line := n.line(1, 2); line == "" || strings.Contains(line, "%!") {
			t.Errorf("note %d: %q", n, line)
		}
	}
	for _, f := range Faults() {
		if f.String() == "unknown" || f.String() == "" {
			t.Errorf("fault %d has no name", f)
		}
	}
	for _, p := range Paths() {
		if p.String() == "unknown" || p.String() == "" {
			t.Errorf("path %d has no name", p)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no seeds": {}, "negative seeds": {Seeds: -1}, "unknown mutant": {Seeds: 1, Mutant: "nobody"},
	} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if r, err := Run(ctx, Options{Seeds: 1000}); !errors.Is(err, stopped) || r.Seeds != 0 {
		t.Errorf("got %d seeds, %v; want none, and the cause", r.Seeds, err)
	}
}

// The seeds that showed a bug are run for ever: clean as they are, and failing
// if the bug is put back.
func TestKeptSeeds(t *testing.T) {
	file, err := os.Open("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kept := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if len(fields) < 4 {
			t.Fatalf("%q: want seed, mutant, invariant and a comment", lines.Text())
		}
		seed, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		kept++
		if o := simulate(seed, &planted{}, nil, new(room)); o.bad != nil {
			t.Error(*o.bad)
		}
		if fields[1] == "-" {
			continue
		}
		bug, err := find(fields[1])
		if err != nil {
			t.Fatal(err)
		}
		if o := simulate(seed, bug, nil, new(room)); o.bad == nil || o.bad.Invariant != fields[2] {
			t.Errorf("seed %d with %s: got %v, want %s broken", seed, fields[1], o.bad, fields[2])
		}
	}
	if kept == 0 {
		t.Error("no seed is kept")
	}
}

// A process' clock and its inverse belong together, however fast it runs.
func TestProcessClock(t *testing.T) {
	w := &world{queue: new(queue), planted: &planted{}}
	for _, drift := range []int64{-50_000, -1, 0, 7, 50_000} {
		p := &process{w: w, drift: drift, offset: -3 * sec}
		last := p.local(0)
		for at := int64(0); at < 20*sec; at += 999_983 {
			if now := p.local(at); now.Before(last) {
				t.Fatalf("drift %d: the clock goes back at %d", drift, at)
			} else {
				last = now
			}
		}
		w.now = 5 * sec
		for _, d := range []time.Duration{-time.Second, 0, 1, time.Millisecond, 7 * time.Second} {
			w.queue.reset()
			alarm := p.clock().Add(d)
			p.when(alarm, func() {})
			at, _ := w.queue.next()
			if early, late := p.local(at).Before(alarm), p.local(at).Sub(alarm) > time.Millisecond; early || late && d > 0 {
				t.Errorf("drift %d, in %v: rings at %v, want %v", drift, d, p.local(at), alarm)
			}
		}
	}
}

func TestQueueIsOrdered(t *testing.T) {
	d := newDice(1)
	var q queue
	var got []int64
	for range 2000 {
		at := d.below(500)
		q.push(at, event{do: func() { got = append(got, at) }})
		if d.oneIn(4) {
			q.pop()
		}
	}
	for len(q.heap) > 0 {
		q.pop().do()
	}
	if !slices.IsSorted(got) {
		t.Error("events came out of order")
	}
}
