package storm

import (
	"fmt"
	"strings"
)

// Three is the rule of three: if none in n was seen, the true rate is at most
// this at 95 %. Nothing tried bounds nothing.
func Three(n int) float64 { return min(1, 3/float64(max(n, 1))) }

// String prints the counts, those that must be zero with the bound that a zero
// supports.
func (c *Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d keys: %d paid, %d in doubt (%d of them ran); %d requests, %d replays, %d other bodies refused, %d unanswered, %d told to ask again, %d charges\n",
		c.Keys, c.Paid, c.InDoubt, c.UnknownRan, c.Requests, c.Replays, c.Mismatches, c.Unanswered,
		c.Refusals[ReasonInProgress]+c.Refusals[ReasonNoStore]+c.Refusals[ReasonNoUpstream]+c.Refusals[ReasonFull], c.Executions)
	answers := c.Requests - c.Unanswered
	for _, z := range [...]struct {
		name string
		n    int
		of   int
		unit string
	}{
		{"LOST", c.Lost, c.Paid, "paid keys"},
		{"SWALLOWED", c.Swallowed, c.Keys, "keys"},
		{"DOUBLE", c.Double, c.Keys, "keys"},
		{"FLIP", c.Flips, c.Keys, "keys"},
		{"LEAK", c.Leaked, answers, "answers"},
		{"STUCK", c.Stuck, c.Keys, "keys"},
		{"SILENT", c.Silent, c.Keys, "keys"},
		{"unlisted", c.Unlisted, c.Keys, "keys"},
		{"regressed", c.Regressed, c.Keys, "keys"},
		{"untold", c.Untold, c.Keys, "keys"},
		{"unexpected", c.Unexpected, answers, "answers"},
	} {
		bound := ""
		if z.n == 0 {
			bound = fmt.Sprintf("  (95 %%: <= %.2g)", Three(z.of))
		}
		fmt.Fprintf(&b, "  %-10s %d of %d %s%s\n", z.name, z.n, z.of, z.unit, bound)
	}
	return b.String()
}

// Story tells all that the evidence has of the first keys with a finding, for
// whoever has to find out why.
func (c *Counts) Story(e *Evidence, keys int) string {
	var b strings.Builder
	for _, n := range c.found[:min(keys, len(c.found))] {
		fmt.Fprintf(&b, "%s\n", n)
		for i := range e.Journal {
			if a := &e.Journal[i]; a.Account == n.Account && a.Key == n.Key {
				fmt.Fprintf(&b, "  asked %v, answered %v: %d %s replayed %v unconfirmed %v %.60q\n", a.Sent, a.Ended, a.Status, a.Reason, a.Replayed, a.Unconfirmed, a.Body)
			}
		}
		for i := range e.Ledger {
			if l := &e.Ledger[i]; l.Account == n.Account && l.Reference == n.Key {
				fmt.Fprintf(&b, "  charged %v %s %d\n", l.At.Format(stamp), l.ID, l.Amount)
			}
		}
		for i := range e.Kept[n].History {
			r := &e.Kept[n].History[i].Record
			fmt.Fprintf(&b, "  journal %v %v %v attempt %d by %s\n", r.WrittenAt.Format(stamp), r.Version, r.State, r.Attempt, r.Owner)
		}
		if r := e.Kept[n].Record; r.Held() {
			fmt.Fprintf(&b, "  record %v %v %v\n", r.WrittenAt.Format(stamp), r.Version, r.State)
		}
	}
	for _, at := range e.Kills {
		fmt.Fprintf(&b, "killed at %v\n", at)
	}
	return b.String()
}

const stamp = "15:04:05.000000"
