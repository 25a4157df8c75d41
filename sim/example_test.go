package sim_test

import (
	"context"
	"fmt"

	"github.com/semelhq/semel/sim"
)

func ExampleRun() {
	report, err := sim.Run(context.Background(), sim.Options{Seed: 1, Seeds: 100})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Seeds, "seeds,", report.Violated, "violations")
	fmt.Println("crashes on the way:", report.Faults[sim.Crash] > 0)

	// The checks notice what they are there for.
	report, err = sim.Run(context.Background(), sim.Options{Seed: 1, Seeds: 100, Mutant: "completion-not-fenced", StopAtFirst: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("with completions that are not fenced:", report.Violated, "violation")
	// Output:
	// 100 seeds, 0 violations
	// crashes on the way: true
	// with completions that are not fenced: 1 violation
}
