package storm

import (
	"slices"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// looked is when the store was looked at; what was written a minute ago has
// lost its lease by then.
func looked() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// line makes one line of Semel's journal of order-1.
func line(counter uint64, state semel.State, attempt int) semel.Entry {
	r := semel.Record{
		State: state, Version: semel.Version{Epoch: 1, Counter: counter}, Attempt: attempt,
		WrittenAt: looked().Add(-time.Minute), TTL: time.Second, Key: semel.Key{ID: "order-1"},
	}
	if state != semel.Pending {
		r.TTL = time.Hour
	}
	if state == semel.Done {
		r.Result, r.Replay = []byte("result"), time.Hour
	}
	return r.Entry()
}

// Each way in which what Semel holds can contradict the rest raises its count,
// and no other.
func TestAccountFindsInTheStore(t *testing.T) {
	claimed, done, again := line(1, semel.Pending, 1), line(2, semel.Done, 1), line(4, semel.Pending, 2)
	released, newer := line(3, semel.Released, 1), line(5, semel.Done, 2)
	lease := line(2, semel.Pending, 1)
	lease.Record.TTL = time.Hour
	paid, unknown := at(0, 10, paidWith(idA, 1000)), at(0, 10, refusedWith(409, ReasonUnknown))
	one := []Charge{charge(idA, "acme", 1000)}
	history := func(e ...semel.Entry) []semel.Entry { return e }
	for _, c := range []struct {
		name   string
		told   Entry
		ledger []Charge
		kept   []semel.Entry // the last is the record
		spoil  func(k *Kept)
		want   zeros
	}{
		{name: "paid", told: paid, ledger: one, kept: history(claimed, done)},
		{name: "paid after a release", told: paid, ledger: one, kept: history(claimed, released, again, newer)},
		{name: "in doubt, and it ran", told: unknown, ledger: one, kept: history(claimed)},
		{name: "in doubt, and it did not run", told: unknown, kept: history(claimed)},
		{name: "a store without a journal", told: paid, ledger: one, kept: history(claimed, done), spoil: func(k *Kept) { k.History = nil }},

		{name: "the record is gone", told: paid, ledger: one, kept: history(claimed, done), spoil: func(k *Kept) { k.Record = semel.Record{} }, want: zeros{Lost: 1}},
		{name: "paid and released", told: paid, ledger: one, kept: history(claimed, released), want: zeros{Lost: 1}},
		{name: "paid and in doubt", told: paid, ledger: one, kept: history(claimed), want: zeros{Silent: 1}},
		{name: "made and released", told: at(0, 10, refusedWith(409, ReasonInProgress)), ledger: one, kept: history(claimed, released), want: zeros{Silent: 1, Stuck: 1}},
		{name: "unknown and done", told: unknown, ledger: one, kept: history(claimed, done), want: zeros{Unlisted: 1}},
		{name: "still pending", told: paid, ledger: one, kept: history(claimed, lease), want: zeros{Stuck: 1}},
		{name: "versions go back", told: paid, ledger: one, kept: history(line(9, semel.Pending, 1), done), want: zeros{Regressed: 1}},
		{name: "a version twice", told: paid, ledger: one, kept: history(line(2, semel.Pending, 1), done), want: zeros{Regressed: 1}},
		{name: "granted twice", told: paid, ledger: one, kept: history(claimed, again, newer), want: zeros{Double: 1}},
		{name: "made without a grant", told: paid, ledger: one, kept: history(done), want: zeros{Untold: 1}},
		{name: "the journal lacks the last write", told: paid, ledger: one, kept: history(claimed, done), spoil: func(k *Kept) { k.History = k.History[:1] }, want: zeros{Untold: 1}},
		{name: "the journal has another result", told: paid, ledger: one, kept: history(claimed, done), spoil: func(k *Kept) { k.Record.Result = []byte("other") }, want: zeros{Untold: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := Kept{Record: c.kept[len(c.kept)-1].Record, History: slices.Clone(c.kept)}
			if k.Record.State == semel.Done {
				k.Record.Result = []byte("result")
			}
			if c.spoil != nil {
				c.spoil(&k)
			}
			counts := Account(Evidence{
				Journal: []Entry{c.told}, Ledger: c.ledger, Looked: looked(),
				Kept: map[Name]Kept{{"acme", "order-1"}: k},
			})
			if got := zerosOf(counts); got != c.want {
				t.Errorf("got  %+v\nwant %+v\n%q", got, c.want, counts.Findings)
			}
		})
	}
}

func TestAccountFindsStrangeRecords(t *testing.T) {
	counts := Account(Evidence{
		Journal: []Entry{at(0, 10, paidWith(idA, 1000))}, Ledger: []Charge{charge(idA, "acme", 1000)}, Looked: looked(),
		Kept: map[Name]Kept{{"globex", "order-1"}: {Record: line(1, semel.Pending, 1).Record}},
	})
	if got, want := zerosOf(counts), (zeros{Lost: 1, Unexpected: 1}); got != want {
		t.Errorf("got %+v, want %+v: one record is missing, the other is nobody's", got, want)
	}
}
