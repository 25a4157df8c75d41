package rounds

import (
	"fmt"
	"io"
	"strings"
)

// Result is one line of the final table.
type Result struct {
	// ID is the line's name in the goals' table, such as P8.
	ID string `json:"id"`
	// What was measured, and Against which peer.
	What    string `json:"what"`
	Against string `json:"against"`
	// Unit is "x" for a ratio, or a unit such as "ms".
	Unit string `json:"unit"`
	// Goal is to be reached from below, or from above if AtMost is set. Without a
	// goal it is 0.
	Goal   float64 `json:"goal,omitempty"`
	AtMost bool    `json:"at_most,omitempty"`
	// Reached is the median of Rounds.
	Reached float64   `json:"reached"`
	Rounds  []float64 `json:"rounds"`
}

// Met tells whether the goal was reached; a line without one always is.
func (r *Result) Met() bool {
	switch {
	case r.Goal == 0:
		return true
	case r.AtMost:
		return r.Reached <= r.Goal
	}
	return r.Reached >= r.Goal
}

func (r *Result) goal() string {
	switch {
	case r.Goal == 0:
		return "-"
	case r.AtMost:
		return fmt.Sprintf("<= %g %s", r.Goal, r.Unit)
	}
	return fmt.Sprintf(">= %g %s", r.Goal, r.Unit)
}

// Write writes the final table.
func Write(w io.Writer, results []Result) {
	fmt.Fprintf(w, "%-4s %-36s %-34s %10s %10s   %s\n", "", "what", "against", "reached", "goal", "rounds")
	for i := range results {
		r := &results[i]
		each := make([]string, len(r.Rounds))
		for i, v := range r.Rounds {
			each[i] = number(v)
		}
		mark := " "
		if !r.Met() {
			mark = "!"
		}
		fmt.Fprintf(w, "%-4s %-36s %-34s %10s %10s %s %s\n", r.ID, r.What, r.Against, number(r.Reached)+" "+r.Unit, r.goal(), mark, strings.Join(each, " "))
	}
	fmt.Fprintln(w, "Reached is the median of the rounds; ! marks what falls short of its goal.")
}

func number(v float64) string {
	if v >= 100 || v <= -100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
