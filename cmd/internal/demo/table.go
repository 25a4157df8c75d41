package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// report prints the final table.
func (s *screen) report(r *Report, o Options) {
	s.thrown(r)
	s.cameOut(r)
	if !r.Bypass {
		s.told(r)
	}
	s.zeros(r)
	s.verdict(r)
}

func (s *screen) title(text string) { s.println("", " "+strong(text)) }

// row prints a number and what it counts; further lines of the text are
// indented below it.
func (s *screen) row(n int, style func(string) string, format string, args ...any) {
	lines := strings.Split(fmt.Sprintf(format, args...), "\n")
	s.println(style(fmt.Sprintf("%9s", number(n))) + "  " + lines[0])
	for _, line := range lines[1:] {
		s.println(strings.Repeat(" ", 11) + line)
	}
}

func (s *screen) thrown(r *Report) {
	s.title("Thrown at it")
	s.row(r.Keys, strong, "payments, asked for by two customers who happen to use the same keys")
	s.row(r.Requests, strong, "requests: %.0f for each, at once, later, and again after every loss",
		float64(r.Requests)/float64(max(r.Keys, 1)))
	s.row(r.Network.Requests+r.Network.HungUp, strong, "lost or cut off before they were answered")
	s.row(r.Network.Answers, strong, "answers lost: it was done, and the client cannot know")
	if !r.Bypass {
		s.row(r.GatewayKills, strong, "kills of the gateway (kill -9), each in the middle of payments")
		s.row(r.Network.Refused, strong, "requests that found the gateway down")
	}
}

func (s *screen) cameOut(r *Report) {
	s.title("Came out, by the ledger")
	if r.Double > 0 {
		s.row(max(r.Paid-r.Double, 0), good, "payments made once")
		s.row(r.Double, bad, "payments made more than once: %s charges for %s payments", number(r.Executions), number(r.Keys))
	} else {
		s.row(r.Paid, good, "payments made and confirmed, each exactly once")
	}
	if r.InDoubt == 0 {
		return
	}
	why := "running when the gateway was killed: nobody can know how\nthey ended."
	if other := r.UnknownWhy[storm.WhyOther]; other > 0 {
		why = fmt.Sprintf("%d running when the gateway was killed, %d for another cause.", r.UnknownWhy[storm.WhyKilled], other)
	}
	s.row(r.InDoubt, odd, "unknown, "+why+" They are never run again, and are listed by\n%s", strong("semel list --state in-doubt"))
	s.println(s.named(r.Unknown, true)...)
	s.println(s.named(r.Unknown, false)...)
}

// named lists the keys in doubt that were made, or those that were not.
func (s *screen) named(unknown []storm.Unknown, ran bool) []string {
	const most = 6
	var names []string
	for _, u := range unknown {
		if u.Ran == ran {
			names = append(names, u.Account+"/"+u.Key)
		}
	}
	if len(names) == 0 {
		return nil
	}
	text := "not made, says the ledger: "
	if ran {
		text = "made, says the ledger: "
	}
	text = fmt.Sprintf("%d ", len(names)) + text + strings.Join(names[:min(most, len(names))], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > s.width-12 {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimLeft(line+" "+word, " ")
	}
	lines = append(lines, line)
	for i := range lines {
		lines[i] = faint(strings.Repeat(" ", 11) + lines[i])
	}
	return lines
}

func (s *screen) told(r *Report) {
	s.title("Told to the clients")
	s.row(r.answers()-r.Replays-refused(r), strong, "the result, of the payment that was just made")
	s.row(r.Replays, strong, "the same result again, from memory (Idempotent-Replayed: true)")
	for _, reason := range slices.Sorted(maps.Keys(r.Refusals)) {
		s.row(r.Refusals[reason], strong, "%s", explain(reason))
	}
	s.row(r.Unanswered, strong, "nothing at all, so they asked again")
}

func refused(r *Report) (n int) {
	for _, count := range r.Refusals {
		n += count
	}
	return n
}

func explain(reason string) string {
	switch reason {
	case storm.ReasonInProgress:
		return "409 in-progress: another request for it is running, ask again"
	case storm.ReasonMismatch:
		return "422 payload-mismatch: this key was used for another amount"
	case storm.ReasonUnknown:
		return "409 outcome-unknown: it was started, nobody knows how it ended"
	case storm.ReasonNoStore:
		return "503 store-unavailable: nothing was started, ask again"
	case storm.ReasonNoUpstream:
		return "502 upstream-unreachable: nothing was started, ask again"
	case storm.ReasonFull:
		return "503 too many requests in flight: nothing was started, ask again"
	}
	return reason
}

// zeros prints what must be zero, and what a zero is worth.
func (s *screen) zeros(r *Report) {
	s.title("Must be zero; behind a zero, the true rate is (95 %, rule of three)")
	for _, z := range [...]struct {
		n    int
		name string
		what string
		of   int
		unit string
	}{
		{r.Double, "double", "made more than once", r.Keys, "payments"},
		{r.Lost, "lost", "reported, not in the ledger", r.Paid, "payments"},
		{r.Leaked, "leaked", "told to another customer", r.answers(), "answers"},
		{r.Flips, "flips", "two answers that contradict", r.Keys, "payments"},
	} {
		style, most := good, fmt.Sprintf("≤ %.2g %%", 100*storm.Three(z.of))
		if z.n > 0 {
			style, most = bad, fmt.Sprintf("%.2g %%", 100*float64(z.n)/float64(max(z.of, 1)))
		}
		s.println(style(fmt.Sprintf("%9s", number(z.n))) + fmt.Sprintf("  %-8s %-29s", z.name, z.what) +
			faint(fmt.Sprintf("of %6s %-9s %s", number(z.of), z.unit, most)))
	}
}

func (s *screen) verdict(r *Report) {
	s.println("")
	tail := faint(fmt.Sprintf("   %.1f s, seed %d", float64(r.DurationMS)/1000, r.Seed))
	switch {
	case r.OK:
		s.println(" " + good("✔ Asked for many times, made once.") + tail)
	case r.Bypass:
		s.println(" " + bad("✘ This is what retries do without Semel.") + tail)
	default:
		s.println(" " + bad("✘ Something is wrong.") + tail)
	}
	for _, problem := range r.Problems {
		s.println("   " + problem)
	}
	s.println("")
}
