package storm

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// at makes an entry of one account's request for order-1 at 1000 cents.
func at(sent, ended int, change ...func(*Entry)) Entry {
	e := Entry{
		Account: "acme", Key: "order-1", Amount: 1000,
		Sent: time.Duration(sent) * time.Millisecond, Ended: time.Duration(ended) * time.Millisecond,
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func paidWith(id string, amount int) func(*Entry) {
	return func(e *Entry) {
		e.Status, e.Location = 201, "/payments/"+id
		e.Body = fmt.Sprintf(`{"id":%q,"account":%q,"reference":%q,"amount":%d,"statement":"st_%s"}`, id, e.Account, e.Key, amount, e.Account)
	}
}

func replayed(e *Entry) { e.Replayed = true }
func lost(e *Entry)     { e.Reason = ReasonNone }

func refusedWith(status int, reason string) func(*Entry) {
	return func(e *Entry) { e.Status, e.Reason = status, reason }
}

func asking(account string, amount int) func(*Entry) {
	return func(e *Entry) { e.Account, e.Amount = account, amount }
}

func body(text string) func(*Entry) {
	return func(e *Entry) { e.Body = text }
}

const (
	idA = "pay_aaaaaaaaaaaa"
	idB = "pay_bbbbbbbbbbbb"
	idC = "pay_cccccccccccc"
)

func charge(id, account string, amount int) Charge {
	return Charge{ID: id, Account: account, Reference: "order-1", Amount: amount}
}

// zeros are the counts that a test looks at.
type zeros struct{ Double, Lost, Leaked, Flips, Swallowed, Stuck, Silent, Unlisted, Regressed, Untold, Unexpected int }

func zerosOf(c Counts) zeros {
	return zeros{c.Double, c.Lost, c.Leaked, c.Flips, c.Swallowed, c.Stuck, c.Silent, c.Unlisted, c.Regressed, c.Untold, c.Unexpected}
}

// Each thing that must not be is found in a journal in which it is, and nothing
// is found where nothing is wrong.
func TestAccountFinds(t *testing.T) {
	first := at(0, 10, paidWith(idA, 1000))
	again := at(20, 30, paidWith(idA, 1000), replayed)
	unknown := refusedWith(409, ReasonUnknown)
	one := []Charge{charge(idA, "acme", 1000)}
	for _, c := range []struct {
		name    string
		journal []Entry
		ledger  []Charge
		listed  []string
		want    zeros
	}{
		{name: "nothing wrong", journal: []Entry{first, again}, ledger: one},
		{name: "a lost answer, then the replay", journal: []Entry{at(0, 10, lost), again}, ledger: one},
		{
			name: "equal keys of two accounts", ledger: []Charge{one[0], charge(idB, "globex", 1000)},
			journal: []Entry{first, at(0, 9, asking("globex", 1000), paidWith(idB, 1000))},
		},
		{name: "another body is refused", journal: []Entry{first, at(20, 30, asking("acme", 7), refusedWith(422, ReasonMismatch))}, ledger: one},
		{name: "unknown, and it ran", journal: []Entry{at(0, 10, lost), at(20, 30, unknown)}, ledger: one, listed: []string{"order-1"}},
		{name: "unknown, and it did not run", journal: []Entry{at(0, 10, lost), at(20, 30, unknown)}, listed: []string{"order-1"}},
		{name: "unknown, then known", journal: []Entry{at(0, 10, unknown), again}, ledger: one, listed: []string{}},
		{name: "unknown arrives after the result, asked before", journal: []Entry{at(0, 10, paidWith(idA, 1000)), at(5, 15, unknown)}, ledger: one},

		{name: "two charges, one answer", journal: []Entry{first}, ledger: []Charge{one[0], charge(idB, "acme", 1000)}, want: zeros{Double: 1}},
		{name: "two charges, no answer", journal: []Entry{at(0, 10, unknown)}, ledger: []Charge{one[0], charge(idB, "acme", 1000)}, want: zeros{Double: 1}},
		{name: "two charges, two answers", journal: []Entry{first, at(20, 30, paidWith(idB, 1000))}, ledger: []Charge{one[0], charge(idB, "acme", 1000)}, want: zeros{Double: 1, Flips: 1}},
		{name: "both bodies of a key ran", journal: []Entry{first, at(20, 30, asking("acme", 7), paidWith(idB, 7))}, ledger: []Charge{one[0], charge(idB, "acme", 7)}, want: zeros{Double: 1}},
		{name: "a result without a charge", journal: []Entry{first}, want: zeros{Lost: 1}},
		{name: "a result that cannot be read", journal: []Entry{at(0, 10, paidWith(idA, 1000), body("{}"))}, ledger: one, want: zeros{Lost: 1}},
		{name: "a result with another id", journal: []Entry{at(0, 10, paidWith(idC, 1000))}, ledger: one, want: zeros{Lost: 1}},
		{name: "a result with another amount", journal: []Entry{at(0, 10, paidWith(idA, 999))}, ledger: one, want: zeros{Lost: 1}},
		{name: "another body gets the first one's answer", journal: []Entry{first, at(20, 30, asking("acme", 7), paidWith(idA, 1000), replayed)}, ledger: one, want: zeros{Swallowed: 1}},
		{name: "another account's result", journal: []Entry{first, at(20, 30, paidWith(idA, 1000), asking("globex", 1000))}, ledger: one, want: zeros{Leaked: 1, Lost: 1}},
		{name: "another account's statement in a refusal", journal: []Entry{first, at(20, 30, asking("globex", 1000), refusedWith(422, ReasonMismatch), body("not st_acme"))}, ledger: one, want: zeros{Leaked: 1, Stuck: 1}},
		{name: "the payment in a refusal", journal: []Entry{first, at(20, 30, asking("acme", 7), refusedWith(422, ReasonMismatch), body(idA))}, ledger: one, want: zeros{Leaked: 1}},
		{name: "a result, then unknown", journal: []Entry{first, at(20, 30, unknown)}, ledger: one, want: zeros{Flips: 1}},
		{name: "a result, then refused as another", journal: []Entry{first, at(20, 30, refusedWith(422, ReasonMismatch))}, ledger: one, want: zeros{Flips: 1}},
		{name: "two answers that differ in a byte", journal: []Entry{first, at(20, 30, paidWith(idA, 1000), func(e *Entry) { e.Body += " " })}, ledger: one, want: zeros{Flips: 1}},
		{name: "never a definitive answer", journal: []Entry{at(0, 10, lost), at(20, 30, refusedWith(409, ReasonInProgress))}, ledger: one, want: zeros{Stuck: 1}},
		{name: "unknown and not listed", journal: []Entry{at(20, 30, unknown)}, ledger: one, listed: []string{}, want: zeros{Unlisted: 1}},
		{name: "listed and not unknown", journal: []Entry{first}, ledger: one, listed: []string{"order-1"}, want: zeros{Unlisted: 1}},
		{name: "an answer out of the contract", journal: []Entry{first, at(20, 30, refusedWith(500, "handler-failed"), asking("acme", 8))}, ledger: one, want: zeros{Unexpected: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			counts := Account(Evidence{
				Journal: c.journal, Ledger: c.ledger, Listed: c.listed,
				Statements: map[string]string{"acme": "st_acme", "globex": "st_globex"},
			})
			if got := zerosOf(counts); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if bad := c.want != (zeros{}); (counts.Bad() > 0) != bad || len(counts.Findings) > 0 != bad {
				t.Errorf("Bad() = %d for %+v, findings %q", counts.Bad(), c.want, counts.Findings)
			}
		})
	}
}

func TestAccountCounts(t *testing.T) {
	unknown := refusedWith(409, ReasonUnknown)
	other := func(e *Entry) { e.Key = "order-2" }
	got := Account(Evidence{
		Journal: []Entry{
			at(0, 10, lost), at(10, 20, refusedWith(409, ReasonInProgress)), at(20, 30, paidWith(idA, 1000)),
			at(30, 40, paidWith(idA, 1000), replayed), at(40, 50, paidWith(idA, 1000), replayed),
			at(50, 60, asking("acme", 7), refusedWith(422, ReasonMismatch)), at(60, 70, refusedWith(503, ReasonNoStore)),
			at(90, 95, lost, asking("globex", 5)), at(200, 210, unknown, asking("globex", 5)),
			at(110, 120, unknown, other),
		},
		Ledger: []Charge{charge(idA, "acme", 1000), charge(idB, "globex", 5)},
		Kills:  []time.Duration{100 * time.Millisecond},
	})
	want := Counts{
		Requests: 10, Keys: 3, Executions: 2, Replays: 2, Conflicts: 1, Mismatches: 1, Unanswered: 2, Paid: 1,
		InDoubt: 2, UnknownRan: 1, UnknownNotRun: 1,
		Refusals:   map[string]int{ReasonInProgress: 1, ReasonMismatch: 1, ReasonNoStore: 1, ReasonUnknown: 2},
		UnknownWhy: map[string]int{WhyKilled: 1, WhyOther: 1},
		Unknown: []Unknown{
			{Account: "globex", Key: "order-1", Ran: true, Why: WhyKilled},
			{Account: "acme", Key: "order-2", Ran: false, Why: WhyOther},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
