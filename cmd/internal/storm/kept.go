package storm

import (
	"time"

	"github.com/semelhq/semel"
)

// Kept is what Semel has of one key: its record, and its journal where the
// store keeps one.
type Kept struct {
	Record  semel.Record
	History []semel.Entry // oldest first; nil without a journal
}

// kept compares what clients were told of a key, and what the ledger has, with
// what Semel holds of it (INVARIANTS S2, S5, S16, L2).
func (c *Counts) kept(h *held, k Kept, looked time.Time) {
	r := &k.Record
	inDoubt := r.InDoubt(looked)
	gone := !r.Held() || r.State == semel.Released
	c.find(&c.Lost, h.paid && gone, "%s was answered as paid, and the store holds no result of it (%v)", h.name, r.State)
	c.find(&c.Silent, h.paid && inDoubt, "%s was answered as paid, and the store has it in doubt", h.name)
	c.find(&c.Silent, !h.paid && r.State == semel.Released && len(h.charges) > 0, "%s was made, and the store has it as not done", h.name)
	c.find(&c.Unlisted, h.unknown != inDoubt && !h.paid, "%s: told as unknown %v, in doubt in the store %v (%v)", h.name, h.unknown, inDoubt, r.State)
	c.find(&c.Stuck, r.State == semel.Pending && !inDoubt, "%s is still pending in the store", h.name)
	if k.History == nil {
		return
	}
	grants, releases, grows := 0, 0, true
	var last semel.Record
	for i := range k.History {
		e := &k.History[i].Record
		grows = grows && e.Version.Compare(last.Version) > 0
		if e.State == semel.Pending && e.Attempt > last.Attempt {
			grants++
		}
		if e.State == semel.Released {
			releases++
		}
		last = *e
	}
	c.find(&c.Regressed, !grows, "%s has versions that do not grow: %v", h.name, versions(k.History))
	c.find(&c.Double, r.Class == semel.AtMostOnce && grants > 1+releases, "%s was granted %d times, and released %d times", h.name, grants, releases)
	c.find(&c.Untold, len(h.charges) > grants, "%s was made %d times, and granted %d times by the journal", h.name, len(h.charges), grants)
	c.find(&c.Untold, r.Held() && !same(k.History[len(k.History)-1], r.Entry()), "%s: the journal ends with %v %v, and the record is %v %v", h.name, last.Version, last.State, r.Version, r.State)
}

// same tells whether two entries say the same. Times are compared as instants:
// stores give them in zones of their own.
func same(a, b semel.Entry) bool {
	if !a.Record.WrittenAt.Equal(b.Record.WrittenAt) {
		return false
	}
	a.Record.WrittenAt, b.Record.WrittenAt = time.Time{}, time.Time{}
	return string(a.AppendTo(nil)) == string(b.AppendTo(nil))
}

func versions(history []semel.Entry) (all []string) {
	for _, e := range history {
		all = append(all, e.Record.Version.String())
	}
	return all
}
