package storm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Evidence is what a run left behind. Semel wrote none of it but Listed and Kept.
type Evidence struct {
	Journal []Entry
	Ledger  []Charge
	// Statements are the accounts' own marks, see API.Statements.
	Statements map[string]string
	// Kills are the times at which a gateway was killed, since the storm began.
	Kills []time.Duration
	// Listed are the keys that the gateway's store lists as in doubt; nil if it was
	// not asked.
	Listed []string
	// Kept is what the store holds of each key, and its journal; nil if nobody
	// looked.
	Kept map[Name]Kept
	// Looked is when somebody looked, on the store's clock.
	Looked time.Time
}

// Counts are what is counted from the evidence. Those from Double to
// Unexpected must be zero.
type Counts struct {
	Requests   int `json:"requests"`   // sent by clients
	Keys       int `json:"keys"`       // payments asked for: account and key
	Executions int `json:"executions"` // lines of the ledger
	Replays    int `json:"replays"`    // answers marked Idempotent-Replayed
	Conflicts  int `json:"conflicts"`  // 409 in-progress
	Mismatches int `json:"mismatches"` // 422: the key was used for another body
	Unanswered int `json:"unanswered"` // requests without an answer
	Paid       int `json:"paid"`       // keys that were answered with a result
	InDoubt    int `json:"in_doubt"`   // keys whose final answer is outcome-unknown
	// UnknownRan and UnknownNotRun split InDoubt by what the ledger knows and
	// nobody else can.
	UnknownRan    int `json:"unknown_ran"`
	UnknownNotRun int `json:"unknown_not_run"`

	Double     int `json:"double"`     // keys with more than one line in the ledger
	Lost       int `json:"lost"`       // keys answered as paid for which the ledger has no such line, or the store no record
	Leaked     int `json:"leaked"`     // answers with bytes of another account, or of a payment that was not asked for
	Flips      int `json:"flips"`      // keys with two different definitive answers for one body
	Swallowed  int `json:"swallowed"`  // keys whose other body got the first one's answer
	Stuck      int `json:"stuck"`      // keys that were told neither a result nor that it is unknown
	Silent     int `json:"silent"`     // keys whose outcome is unknown, told as success or as failure
	Unlisted   int `json:"unlisted"`   // keys in doubt that the store does not list as such, or the reverse
	Regressed  int `json:"regressed"`  // keys whose versions do not always grow
	Untold     int `json:"untold"`     // keys whose journal does not add up to their record, or to the ledger
	Unexpected int `json:"unexpected"` // answers that the contract does not have here

	// Refusals are the answers that are not results, by reason.
	Refusals map[string]int `json:"refusals"`
	// UnknownWhy says why keys are in doubt.
	UnknownWhy map[string]int `json:"unknown_why"`
	// Unknown lists them.
	Unknown []Unknown `json:"unknown"`
	// Findings say what the first of those that must be zero were.
	Findings []string `json:"findings,omitempty"`
	found    []Name
}

// An Unknown is a key in doubt.
type Unknown struct {
	Account string `json:"account"`
	Key     string `json:"key"`
	Ran     bool   `json:"ran"` // says the ledger
	Why     string `json:"why"`
}

// Why a key is in doubt, as far as the evidence tells.
const (
	WhyKilled = "gateway killed while it ran"
	WhyOther  = "other"
)

// Bad is the sum of what must be zero.
func (c *Counts) Bad() int {
	return c.Double + c.Lost + c.Leaked + c.Flips + c.Swallowed + c.Stuck + c.Silent + c.Unlisted + c.Regressed + c.Untold + c.Unexpected
}

// maxFindings are enough to see what is wrong.
const maxFindings = 20

// find counts what must not be, and says what it was.
func (c *Counts) find(count *int, when bool, format string, args ...any) {
	if !when {
		return
	}
	*count++
	if len(c.Findings) < maxFindings {
		c.Findings = append(c.Findings, fmt.Sprintf(format, args...))
	}
}

// A Name is who asks for what.
type Name struct{ Account, Key string }

// String gives both.
func (n Name) String() string { return n.Account + "/" + n.Key }

// held is what the evidence says of one key.
type held struct {
	name    Name
	entries []*Entry
	charges []*Charge
	paid    bool // a client was told the result
	unknown bool // otherwise, a client was told that nobody knows it
}

// Account counts. It looks at nothing but the evidence.
func Account(e Evidence) Counts {
	c := Counts{Requests: len(e.Journal), Executions: len(e.Ledger), Refusals: map[string]int{}, UnknownWhy: map[string]int{}, Unknown: []Unknown{}}
	keys := map[Name]*held{}
	get := func(n Name) *held {
		if keys[n] == nil {
			keys[n] = &held{}
		}
		return keys[n]
	}
	charges := map[string]*Charge{}
	for i := range e.Ledger {
		charge := &e.Ledger[i]
		h := get(Name{charge.Account, charge.Reference})
		h.charges = append(h.charges, charge)
		charges[charge.ID] = charge
	}
	for i := range e.Journal {
		entry := &e.Journal[i]
		h := get(Name{entry.Account, entry.Key})
		h.entries = append(h.entries, entry)
		c.answer(entry, charges, e.Statements)
	}
	c.Keys = len(keys)
	for _, n := range slices.SortedFunc(maps.Keys(keys), func(a, b Name) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Account, b.Account))
	}) {
		h, before, double := keys[n], c.Bad(), c.Double
		h.name = n
		c.key(h, charges, e.Kills)
		if e.Kept != nil {
			c.kept(h, e.Kept[n], e.Looked)
		}
		switch {
		case c.Double > double: // nothing is worse
			c.found = slices.Insert(c.found, 0, n)
		case c.Bad() > before:
			c.found = append(c.found, n)
		}
	}
	for n := range e.Kept {
		c.find(&c.Unexpected, keys[n] == nil, "the store holds %s, and nobody asked for it", n)
	}
	n := unlisted(c.Unknown, e.Listed)
	c.Unlisted += n
	if n > 0 {
		c.Findings = append(c.Findings, fmt.Sprintf("the store's list of keys in doubt and what clients were told differ by %d", n))
	}
	return c
}

// answer counts what one answer says by itself.
func (c *Counts) answer(e *Entry, charges map[string]*Charge, statements map[string]string) {
	switch e.Reason {
	case ReasonNone:
		c.Unanswered++
		return
	case ReasonInProgress:
		c.Conflicts++
	case ReasonMismatch:
		c.Mismatches++
	}
	if e.Reason != "" {
		c.Refusals[e.Reason]++
	}
	if e.Replayed {
		c.Replays++
	}
	c.find(&c.Unexpected, Unexpected(e.Reason), "%s/%s was answered %s: %s", e.Account, e.Key, e.Reason, e.Body)
	c.find(&c.Leaked, leaks(e, charges, statements), "%s/%s was answered with another's: %s", e.Account, e.Key, e.Body)
}

// Unexpected tells whether a reason has no place in a storm.
func Unexpected(reason string) bool {
	switch reason {
	case "", ReasonNone, ReasonInProgress, ReasonMismatch, ReasonUnknown, ReasonNoStore, ReasonNoUpstream, ReasonFull:
		return false
	}
	return true
}

// leaks tells whether an answer holds what belongs to another account, or, as
// a refusal, anything of a payment at all (INVARIANTS S8, S9).
func leaks(e *Entry, charges map[string]*Charge, statements map[string]string) bool {
	all := e.Body + "\n" + e.Location
	for account, statement := range statements {
		if strings.Contains(all, statement) && (account != e.Account || !e.done()) {
			return true
		}
	}
	for _, id := range paymentID.FindAllString(all, -1) {
		if charge := charges[id]; !e.done() || charge != nil && charge.Account != e.Account {
			return true
		}
	}
	return false
}

var paymentID = regexp.MustCompile(`pay_[a-z2-7]{12}`)

// key counts what the evidence says of one key.
func (c *Counts) key(h *held, charges map[string]*Charge, kills []time.Duration) {
	c.find(&c.Double, len(h.charges) > 1, "%s was made %d times", h.name, len(h.charges))
	slices.SortStableFunc(h.entries, func(a, b *Entry) int { return cmp.Compare(a.Ended, b.Ended) })
	var lost, swallowed bool
	var firstUnknown *Entry
	for _, e := range h.entries {
		switch {
		case e.Reason == ReasonUnknown && firstUnknown == nil:
			firstUnknown = e
		case e.done():
			h.paid = true
			missing, other := e.compare(charges)
			lost, swallowed = lost || missing, swallowed || other
		}
	}
	h.unknown = !h.paid && firstUnknown != nil
	if h.paid {
		c.Paid++
	}
	c.find(&c.Lost, lost, "%s was answered as paid, and the ledger has no such charge", h.name)
	c.find(&c.Swallowed, swallowed, "another body under the key of %s was answered with the first one's result", h.name)
	c.find(&c.Flips, flips(h.entries), "%s got two answers that contradict each other", h.name)
	c.find(&c.Stuck, !h.paid && !h.unknown, "%s has no definitive answer after %d requests", h.name, len(h.entries))
	if !h.unknown {
		return
	}
	u := Unknown{Account: h.name.Account, Key: h.name.Key, Ran: len(h.charges) > 0, Why: why(h.entries, firstUnknown, kills)}
	c.InDoubt++
	if u.Ran {
		c.UnknownRan++
	} else {
		c.UnknownNotRun++
	}
	c.UnknownWhy[u.Why]++
	c.Unknown = append(c.Unknown, u)
}

// compare looks a result up in the ledger: missing if it has no such charge,
// other if the charge is not the one that this request asked for.
func (e *Entry) compare(charges map[string]*Charge) (missing, other bool) {
	var r receipt
	if json.Unmarshal([]byte(e.Body), &r) != nil {
		return true, false
	}
	charge := charges[r.ID]
	if charge == nil || charge.Account != e.Account || charge.Reference != e.Key || charge.Amount != r.Amount {
		return true, false
	}
	return false, charge.Amount != e.Amount
}

// flips tells whether one body got two definitive answers that differ. An
// unknown outcome may become known, never the reverse (INVARIANTS S7).
func flips(entries []*Entry) bool {
	first := map[int]*Entry{} // by amount
	for _, e := range entries {
		if !e.Definitive() {
			continue
		}
		was := first[e.Amount]
		switch {
		case was == nil, was.Reason == ReasonUnknown && e.done():
			first[e.Amount] = e
		case e.Reason == ReasonUnknown && e.Sent < was.Ended:
			// Asked before the answer was known to anybody, told after it.
		case was.Reason != e.Reason, e.done() && (was.Status != e.Status || was.Body != e.Body || was.Location != e.Location):
			return true
		}
	}
	return false
}

// why finds the reason of an unknown outcome: the gateway was killed after the
// key was first asked for, and before anybody was told.
func why(entries []*Entry, told *Entry, kills []time.Duration) string {
	sent := told.Sent
	for _, e := range entries {
		sent = min(sent, e.Sent)
	}
	if slices.ContainsFunc(kills, func(at time.Duration) bool { return sent < at && at < told.Ended }) {
		return WhyKilled
	}
	return WhyOther
}

// unlisted counts by how many keys the clients' view and the store's list of
// keys in doubt differ.
func unlisted(unknown []Unknown, listed []string) int {
	if listed == nil {
		return 0
	}
	differ := map[string]int{}
	for _, u := range unknown {
		differ[u.Key]++
	}
	for _, key := range listed {
		differ[key]--
	}
	n := 0
	for _, d := range differ {
		n += max(d, -d)
	}
	return n
}
