package demo

import (
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Evidence is what a run left behind. The gateway wrote none of it but Listed.
type Evidence struct {
	Journal []Entry
	Ledger  []Charge
	// Statements are the accounts' own marks, see receipt.
	Statements map[string]string
	// Kills are the times at which the gateway was killed, since the storm began.
	Kills []time.Duration
	// Listed are the keys that the gateway's store lists as in doubt; nil if it was
	// not asked.
	Listed []string
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
	Lost       int `json:"lost"`       // keys answered as paid for which the ledger has no such line
	Leaked     int `json:"leaked"`     // answers with bytes of another account, or of a payment that was not asked for
	Flips      int `json:"flips"`      // keys with two different definitive answers for one body
	Swallowed  int `json:"swallowed"`  // keys whose other body got the first one's answer
	Stuck      int `json:"stuck"`      // keys that were told neither a result nor that it is unknown
	Unlisted   int `json:"unlisted"`   // keys in doubt that the store does not list as such, or the reverse
	Unexpected int `json:"unexpected"` // answers that the contract does not have here

	// Refusals are the answers that are not results, by reason.
	Refusals map[string]int `json:"refusals"`
	// UnknownWhy says why keys are in doubt.
	UnknownWhy map[string]int `json:"unknown_why"`
	// Unknown lists them.
	Unknown []Unknown `json:"unknown"`
}

// An Unknown is a key in doubt.
type Unknown struct {
	Account string `json:"account"`
	Key     string `json:"key"`
	Ran     bool   `json:"ran"` // says the ledger
	Why     string `json:"why"`
}

const (
	whyKilled = "gateway killed while it ran"
	whyOther  = "other"
)

// Bad is the sum of what must be zero.
func (c *Counts) Bad() int {
	return c.Double + c.Lost + c.Leaked + c.Flips + c.Swallowed + c.Stuck + c.Unlisted + c.Unexpected
}

// name is who asks for what.
type name struct{ account, key string }

// held is what the evidence says of one key.
type held struct {
	entries []*Entry
	charges []*Charge
}

// Account counts. It looks at nothing but the evidence.
func Account(e Evidence) Counts {
	c := Counts{Requests: len(e.Journal), Executions: len(e.Ledger), Refusals: map[string]int{}, UnknownWhy: map[string]int{}, Unknown: []Unknown{}}
	keys := map[name]*held{}
	get := func(n name) *held {
		if keys[n] == nil {
			keys[n] = &held{}
		}
		return keys[n]
	}
	charges := map[string]*Charge{}
	for i := range e.Ledger {
		charge := &e.Ledger[i]
		h := get(name{charge.Account, charge.Reference})
		h.charges = append(h.charges, charge)
		charges[charge.ID] = charge
	}
	for i := range e.Journal {
		entry := &e.Journal[i]
		h := get(name{entry.Account, entry.Key})
		h.entries = append(h.entries, entry)
		c.answer(entry, charges, e.Statements)
	}
	c.Keys = len(keys)
	for _, n := range slices.SortedFunc(maps.Keys(keys), func(a, b name) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.account, b.account))
	}) {
		c.key(n, keys[n], charges, e.Kills)
	}
	c.Unlisted = unlisted(c.Unknown, e.Listed)
	return c
}

// answer counts what one answer says by itself.
func (c *Counts) answer(e *Entry, charges map[string]*Charge, statements map[string]string) {
	switch e.Reason {
	case reasonNone:
		c.Unanswered++
		return
	case reasonInProgress:
		c.Conflicts++
	case reasonMismatch:
		c.Mismatches++
	}
	if e.Reason != "" {
		c.Refusals[e.Reason]++
	}
	if unexpected(e.Reason) {
		c.Unexpected++
	}
	if e.Replayed {
		c.Replays++
	}
	if leaks(e, charges, statements) {
		c.Leaked++
	}
}

// unexpected tells whether a reason has no place in the demo.
func unexpected(reason string) bool {
	switch reason {
	case "", reasonNone, reasonInProgress, reasonMismatch, reasonUnknown, reasonNoStore, reasonNoUpstream, reasonFull:
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
func (c *Counts) key(n name, h *held, charges map[string]*Charge, kills []time.Duration) {
	if len(h.charges) > 1 {
		c.Double++
	}
	slices.SortStableFunc(h.entries, func(a, b *Entry) int { return cmp.Compare(a.Ended, b.Ended) })
	var paid, lost, swallowed bool
	var firstUnknown *Entry
	for _, e := range h.entries {
		switch {
		case e.Reason == reasonUnknown && firstUnknown == nil:
			firstUnknown = e
		case e.done():
			paid = true
			missing, other := e.compare(charges)
			lost, swallowed = lost || missing, swallowed || other
		}
	}
	add := func(count *int, when bool) {
		if when {
			*count++
		}
	}
	add(&c.Paid, paid)
	add(&c.Lost, lost)
	add(&c.Swallowed, swallowed)
	add(&c.Flips, flips(h.entries))
	add(&c.Stuck, !paid && firstUnknown == nil)
	if paid || firstUnknown == nil {
		return
	}
	u := Unknown{Account: n.account, Key: n.key, Ran: len(h.charges) > 0, Why: why(h.entries, firstUnknown, kills)}
	c.InDoubt++
	add(&c.UnknownRan, u.Ran)
	add(&c.UnknownNotRun, !u.Ran)
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
		if !e.definitive() {
			continue
		}
		was := first[e.Amount]
		switch {
		case was == nil, was.Reason == reasonUnknown && e.done():
			first[e.Amount] = e
		case e.Reason == reasonUnknown && e.Sent < was.Ended:
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
		return whyKilled
	}
	return whyOther
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
