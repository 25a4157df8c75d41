package payments

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/storm"
)

// counts are what is counted from the evidence. Those from double to leaked must
// be zero.
type counts struct {
	operations, answered, requests, replays, unanswered, again, unknown int
	left, leftPaid, leftNotDone                                         int
	charges, declined, postings                                         int

	double   int // operations with more than one effect
	lost     int // operations whose answer, effects and record do not belong together
	flips    int // operations with two different results, or with one that became unknown
	stuck    int // operations without a result, or still pending in the store
	silent   int // operations answered with a result that the store does not have
	leaked   int // answers about another's order
	untold   int // operations whose journal does not add up
	findings []string
}

func (c *counts) bad() int {
	return c.double + c.lost + c.flips + c.stuck + c.silent + c.leaked + c.untold
}

// find counts what must not be, and says what it was.
func (c *counts) find(count *int, when bool, format string, args ...any) {
	if !when {
		return
	}
	*count++
	if len(c.findings) < 20 {
		c.findings = append(c.findings, fmt.Sprintf(format, args...))
	}
}

// books are the four logs, sorted by what they are about.
type books struct {
	requests map[string][]*request
	orders   map[string][]orderRow // by reference
	charges  map[int64][]charge    // by order, those that took money
	declined map[int64][]charge
	entries  map[int64]map[string][]int64 // by order and account
}

// account counts. It looks at nothing but the evidence.
func account(e *evidence) counts {
	var c counts
	b := books{map[string][]*request{}, map[string][]orderRow{}, map[int64][]charge{}, map[int64][]charge{}, map[int64]map[string][]int64{}}
	for i := range e.journal {
		r := &e.journal[i]
		b.requests[name(r.kind, r.customer)] = append(b.requests[name(r.kind, r.customer)], r)
		c.answer(r)
	}
	for _, o := range e.orders {
		b.orders[o.Reference] = append(b.orders[o.Reference], o)
	}
	taken := int64(0)
	for _, p := range e.charges {
		if p.Status == "succeeded" {
			b.charges[p.Order] = append(b.charges[p.Order], p)
			taken += p.Amount
			c.charges++
		} else {
			b.declined[p.Order] = append(b.declined[p.Order], p)
			c.declined++
		}
	}
	sum, bank := int64(0), int64(0)
	for _, x := range e.entries {
		if b.entries[x.Order] == nil {
			b.entries[x.Order] = map[string][]int64{}
		}
		b.entries[x.Order][x.Account] = append(b.entries[x.Order][x.Account], x.Amount)
		sum += x.Amount
		if x.Account == "bank" {
			bank += x.Amount
			c.postings++
		}
	}
	c.find(&c.lost, sum != 0, "the ledger's lines add up to %d, not to nothing", sum)
	c.find(&c.lost, bank != taken, "the ledger's bank has %d, and the provider took %d", bank, taken)
	for customer := range e.customers {
		id := c.ordered(&b, e, customer)
		c.paid(&b, e, customer, id)
	}
	return c
}

// answer counts what one answer says by itself.
func (c *counts) answer(r *request) {
	c.requests++
	switch {
	case r.replayed:
		c.replays++
	case r.status == 0:
		c.unanswered++
	case r.refusal == "outcome-unknown":
		c.unknown++
	case r.refusal != "":
		c.again++
	}
	var said struct{ Amount int64 }
	another := r.result() && (json.Unmarshal([]byte(r.body), &said) != nil || said.Amount != amount(r.customer))
	c.find(&c.leaked, another, "%s was answered with another's: %s", name(r.kind, r.customer), r.body)
}

// told gives the one result that clients have of an operation.
func (c *counts) told(what string, requests []*request) *request {
	var first *request
	flip := false
	for _, r := range requests {
		switch {
		case r.result() && first == nil:
			first = r
		case r.result():
			flip = flip || r.status != first.status || r.body != first.body
		}
	}
	for _, r := range requests { // unknown may become known, and not the reverse
		flip = flip || first != nil && r.refusal == "outcome-unknown" && r.sent > first.ended
	}
	c.operations++
	c.find(&c.flips, flip, "%s got two answers that contradict each other", what)
	left := requests != nil && requests[0].kind == payment && leaves(requests[0].customer)
	c.find(&c.stuck, first == nil && !left, "%s has no result after %d requests", what, len(requests))
	if first != nil {
		c.answered++
	}
	return first
}

// ordered looks at a customer's order: one row and one posting, if and only if
// there is a record that says so. It gives the order's number.
func (c *counts) ordered(b *books, e *evidence, customer int) int64 {
	what := name(order, customer)
	told, rows, k := c.told(what, b.requests[what]), b.orders[what], e.kept[what]
	c.find(&c.double, len(rows) > 1, "%s was taken %d times", what, len(rows))
	c.find(&c.lost, len(rows) == 0 && told != nil, "%s was answered %d, and is not there", what, told.code())
	c.find(&c.lost, (len(rows) > 0) != (k.record.State == semel.Done), "%s: %d rows, and the record is %v", what, len(rows), k.record.State)
	c.record(what, told, k)
	if len(rows) == 0 {
		return 0
	}
	var said struct{ Order int64 }
	wrong := told != nil && (json.Unmarshal([]byte(told.body), &said) != nil || said.Order != rows[0].ID)
	c.find(&c.lost, wrong, "%s was answered with another number than %d", what, rows[0].ID)
	c.posted(what, b.entries[rows[0].ID], "sales", -amount(customer), 1)
	return rows[0].ID
}

// paid looks at a customer's payment: one charge at the provider and one posting in
// the ledger, if and only if the customer was told so.
func (c *counts) paid(b *books, e *evidence, customer int, id int64) {
	what := name(payment, customer)
	told, k := c.told(what, b.requests[what]), e.kept[what]
	charges, declined := b.charges[id], b.declined[id]
	if told == nil && leaves(customer) {
		c.left++
		if k.record.State == semel.Done { // who left would be told this
			c.leftPaid++
			told = &request{status: k.record.Code}
		} else {
			c.leftNotDone++
			c.find(&c.lost, len(charges)+len(declined) > 0, "%s: its customer has left, the provider has %v %v, and the record is %v", what, charges, declined, k.record.State)
		}
	}
	c.find(&c.double, len(charges) > 1, "%s was charged %d times: %v", what, len(charges), charges)
	c.find(&c.double, len(declined) > 1, "%s was tried %d times: %v", what, len(declined), declined)
	want := 0
	if told != nil && told.status == http.StatusCreated {
		want = 1
	}
	c.find(&c.lost, len(charges) < want, "%s was answered as paid, and the provider has no charge", what)
	c.find(&c.silent, len(charges) > want && told != nil, "%s was answered %d, and the provider has a charge", what, told.code())
	c.find(&c.lost, told != nil && told.status == http.StatusPaymentRequired && len(declined) == 0, "%s was answered as declined, and the provider knows nothing", what)
	c.posted(what, b.entries[id], "bank", amount(customer), min(1, len(charges)))
	c.record(what, told, k)
}

// posted looks for so many lines of an amount in one account of the ledger.
func (c *counts) posted(what string, entries map[string][]int64, account string, cents int64, want int) {
	found := entries[account]
	c.find(&c.double, len(found) > 1, "%s is in the ledger %d times", what, len(found))
	c.find(&c.lost, len(found) < want, "%s is missing in the ledger", what)
	c.find(&c.lost, len(found) > 0 && want == 0, "%s is in the ledger, and was never charged", what)
	c.find(&c.lost, len(found) > 0 && found[0] != cents, "%s is in the ledger with %v cents, not %d", what, found, cents)
}

// record compares an operation's answer with Semel's record of it, and that
// with its journal (INVARIANTS S2, S5, S16, L2).
func (c *counts) record(what string, told *request, k kept) {
	r := &k.record
	c.find(&c.stuck, r.State == semel.Pending, "%s is still pending in the store", what)
	c.find(&c.silent, told != nil && (r.State != semel.Done || r.Code != told.status), "%s was answered %d, and the store has %v %d", what, told.code(), r.State, r.Code)
	grants, releases := 0, 0
	grows, last := true, semel.Record{}
	for i := range k.history {
		h := &k.history[i].Record
		grows = grows && h.Version.Compare(last.Version) > 0
		if h.State == semel.Pending && h.Attempt > last.Attempt {
			grants++
		}
		if h.State == semel.Released {
			releases++
		}
		last = *h
	}
	c.find(&c.untold, !grows, "%s has versions that do not grow", what)
	c.find(&c.double, r.Class == semel.AtMostOnce && grants > 1+releases, "%s was granted %d times, and released %d times", what, grants, releases)
	c.find(&c.untold, r.Held() && (last.Version != r.Version || last.State != r.State), "%s: the journal ends with %v %v, and the record is %v %v", what, last.Version, last.State, r.Version, r.State)
}

func (r *request) code() int {
	if r == nil {
		return 0
	}
	return r.status
}

// String prints the counts, those that must be zero with the bound that a zero
// supports.
func (c *counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations, %d with a result; %d requests, %d replays, %d unanswered, %d told that it is unknown, %d told to ask again; %d charges, %d declined, %d postings of payments; %d customers left without an answer, of whom %d had paid and %d had not\n",
		c.operations, c.answered, c.requests, c.replays, c.unanswered, c.unknown, c.again, c.charges, c.declined, c.postings, c.left, c.leftPaid, c.leftNotDone)
	for _, z := range [...]struct {
		name string
		n    int
	}{
		{"DOUBLE", c.double}, {"LOST", c.lost}, {"FLIP", c.flips}, {"STUCK", c.stuck}, {"SILENT", c.silent}, {"LEAK", c.leaked}, {"untold", c.untold},
	} {
		bound := ""
		if z.n == 0 {
			bound = fmt.Sprintf("  (95 %%: <= %.2g)", storm.Three(c.operations))
		}
		fmt.Fprintf(&b, "  %-7s %d of %d operations%s\n", z.name, z.n, c.operations, bound)
	}
	return b.String()
}
