package demo

import (
	"testing"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// A report is not in order if the run was no test of anything.
func TestJudge(t *testing.T) {
	sound := Report{
		Counts: storm.Counts{Keys: 10, Executions: 10}, GatewayKills: 3, Network: networkLost{Answers: 5},
	}
	for name, change := range map[string]func(*Report){
		"":             func(*Report) {},
		"no payments":  func(r *Report) { r.Keys = 0 },
		"no charges":   func(r *Report) { r.Executions = 0 },
		"nothing lost": func(r *Report) { r.Network = networkLost{} },
		"no kill":      func(r *Report) { r.GatewayKills = 0 },
		"double":       func(r *Report) { r.Double = 1 },
		"lost":         func(r *Report) { r.Lost = 1 },
		"leaked":       func(r *Report) { r.Leaked = 1 },
		"flips":        func(r *Report) { r.Flips = 1 },
		"swallowed":    func(r *Report) { r.Swallowed = 1 },
		"stuck":        func(r *Report) { r.Stuck = 1 },
		"silent":       func(r *Report) { r.Silent = 1 },
		"unlisted":     func(r *Report) { r.Unlisted = 1 },
		"unexpected":   func(r *Report) { r.Unexpected = 1 },
	} {
		r := sound
		change(&r)
		r.judge(nil)
		if want := name == ""; r.OK != want || len(r.Problems) == 0 != want {
			t.Errorf("%q: OK %v, problems %q", name, r.OK, r.Problems)
		}
	}
	r := sound
	if r.judge([]string{"the store was not readable"}); r.OK {
		t.Error("a report is in order although the store could not be asked")
	}
}
