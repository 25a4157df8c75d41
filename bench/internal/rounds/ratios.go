package rounds

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Log collects the rounds of one comparison and prints each as it comes.
type Log struct {
	w     io.Writer
	sides []Side
	base  []int // for each side, the index of the one that it is compared with
	all   [][]Sample
}

// NewLog begins a comparison: base names for each side the one that it is
// compared with; a side that is its own base gets no ratio.
func NewLog(w io.Writer, sides []Side, base ...int) *Log {
	l := &Log{w: w, sides: sides, base: base}
	fmt.Fprintf(w, "    %-8s", "")
	for _, s := range sides {
		fmt.Fprintf(w, " %17s", s.Name)
	}
	fmt.Fprintln(w)
	return l
}

// Tell is for Alternate.
func (l *Log) Tell(round int, of []Sample) {
	l.all = append(l.all, of)
	fmt.Fprintf(l.w, "    round %d ", round)
	for i := range of {
		text := fmt.Sprintf("%.0f/s", of[i].Rate())
		if l.base[i] != i {
			text += fmt.Sprintf(" %5.2fx", of[i].Rate()/of[l.base[i]].Rate())
		}
		fmt.Fprintf(l.w, " %17s", text)
	}
	fmt.Fprintln(l.w)
}

// Ratios gives for one side the ratio of its rate to its base's in each round.
func (l *Log) Ratios(side int) []float64 {
	var out []float64
	for _, round := range l.all {
		out = append(out, round[side].Rate()/round[l.base[side]].Rate())
	}
	return out
}

// Result gives the line of one side for the final table.
func (l *Log) Result(side int, r Result) Result {
	r.Unit, r.Rounds = "x", l.Ratios(side)
	r.Reached = Median(r.Rounds)
	return r
}

// Total gives what was seen of one side in all rounds.
func (l *Log) Total(side int) *Sample {
	sum := new(Sample)
	for _, round := range l.all {
		sum.Add(&round[side])
	}
	return sum
}

// Close prints percentiles and processor time of all rounds together.
func (l *Log) Close() {
	line := func(name string, value func(s *Sample) string) {
		texts := make([]string, len(l.sides))
		for i := range l.sides {
			texts[i] = fmt.Sprintf("%17s", value(l.Total(i)))
		}
		fmt.Fprintf(l.w, "    %-8s %s\n", name, strings.Join(texts, " "))
	}
	for _, share := range [...]float64{0.5, 0.99, 0.999} {
		line(fmt.Sprintf("p%g", 100*share), func(s *Sample) string { return Short(s.Quantile(share)) })
	}
	line("cpu/req", func(s *Sample) string {
		if s.CPU == 0 {
			return "-"
		}
		return Short(s.Each())
	})
}

// Short formats a time with three digits or so.
func Short(d time.Duration) string {
	switch {
	case d < 100*time.Microsecond:
		return fmt.Sprintf("%.1fµs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0fµs", float64(d)/1e3)
	default:
		return fmt.Sprintf("%.2fms", float64(d)/1e6)
	}
}
