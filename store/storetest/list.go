package storetest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/semelhq/semel"
)

// listChecks: people find the records that they look for, all of them, once.
func listChecks() []check {
	checks := []check{
		{"of nothing", 0, func(e *env) { e.lists(semel.Filter{}) }},
		{"gives every record whole, in order", 0, listAll},
		{"by state pending", 0, func(e *env) { listBy(e, semel.Filter{State: semel.Pending}, 0, 1, 2, 3, 4) }},
		{"by state done", 0, func(e *env) { listBy(e, semel.Filter{State: semel.Done}, 5, 6) }},
		{"by state released", 0, func(e *env) { listBy(e, semel.Filter{State: semel.Released}, 7) }},
		{"in doubt", 0, func(e *env) { listBy(e, semel.Filter{InDoubt: true}, 1, 2) }},
		{"in doubt and pending", 0, func(e *env) { listBy(e, semel.Filter{InDoubt: true, State: semel.Pending}, 1, 2) }},
		{"in doubt and done is nothing", 0, func(e *env) { listBy(e, semel.Filter{InDoubt: true, State: semel.Done}) }},
		{"by ID, in every scope", 0, func(e *env) { listBy(e, semel.Filter{ID: "same"}, 0, 5) }},
		{"by scope", 0, func(e *env) { listBy(e, semel.Filter{Scope: "other"}, 2, 5, 7) }},
		{"by scope and ID", 0, func(e *env) { listBy(e, semel.Filter{Scope: "other", ID: "same"}, 5) }},
		{"by all of it", 0, func(e *env) { listBy(e, semel.Filter{Scope: "other", InDoubt: true, State: semel.Pending}, 2) }},
		{"by an ID that nobody has", 0, func(e *env) { listBy(e, semel.Filter{ID: "SAME"}) }},
		{"by an ID with odd bytes", 0, func(e *env) { listOdd(e, func(k semel.Key) semel.Filter { return semel.Filter{ID: k.ID} }) }},
		{"by a scope with odd bytes", 0, func(e *env) { listOdd(e, func(k semel.Key) semel.Filter { return semel.Filter{Scope: k.Scope} }) }},
		{"by a pattern finds the pattern only", 0, listPattern},
		{"in doubt by the store's clock", 0, listInDoubtLater},
		{"in doubt, with what tells how to resolve it", 0, listMemo},
		{"page by page", 0, listPages},
		{"page by page, filtered", 0, listPagesFiltered},
		{"after the last is nothing", 0, listAfterLast},
		{"after a digest that is not held", 0, listAfterNone},
		{"gives 100 where no limit is named", 0, listDefaultLimit},
		{"gives at most the limit", 0, listLimit},
		{"shows a record once, as it is now", 0, listChanges},
		{"does not show what was forgotten", Sweeps, listForgotten},
		{"finds a withheld key by no name", 0, listWithheld},
		{"gives its own copies", 0, listOwnCopy},
	}
	for i := range checks {
		checks[i].needs |= Lists
	}
	return checks
}

// listMemo: a resolver is chosen by what the list shows.
func listMemo(e *env) {
	next := expired(e.pending("k"))
	next.Result = []byte("\x06chargeGET /charges/7")
	e.lists(semel.Filter{InDoubt: true}, e.insert(next))
}

// ordered checks that digests strictly grow.
func ordered(records []semel.Record) error {
	for i := 1; i < len(records); i++ {
		if bytes.Compare(records[i-1].Digest[:], records[i].Digest[:]) >= 0 {
			return fmt.Errorf("record %d of the list, %v, does not come after %v", i, records[i].Digest, records[i-1].Digest)
		}
	}
	return nil
}

// list lists, and checks the order.
func (e *env) list(f semel.Filter) []semel.Record {
	e.Helper()
	l, ok := semel.As[semel.Lister](e.store)
	if !ok {
		e.Fatal("the store is no Lister")
	}
	records, err := l.List(e.ctx, f)
	if err == nil {
		err = ordered(records)
	}
	if err != nil {
		e.Fatalf("List %+v: %v", f, err)
	}
	return records
}

// lists checks that the filter finds exactly want, whole.
func (e *env) lists(f semel.Filter, want ...semel.Record) {
	e.Helper()
	got := e.list(f)
	want = slices.Clone(want)
	slices.SortFunc(want, func(a, b semel.Record) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	if len(got) != len(want) {
		e.Fatalf("List %+v gave %d records, want %d", f, len(got), len(want))
	}
	for i := range got {
		if d := describe(got[i], want[i]); d != "" {
			e.Fatalf("List %+v, record %d:%s", f, i, d)
		}
	}
}

// mixed inserts eight records of every kind.
func (e *env) mixed() []semel.Record {
	e.Helper()
	in := func(scope, id string, c semel.Class) semel.Record {
		r := e.in(semel.Key{Scope: scope, ID: id})
		r.Class = c
		return r
	}
	all := []semel.Record{
		0: in(scope, "same", semel.AtMostOnce),
		1: expired(in(scope, "doubt", semel.AtMostOnce)),
		2: expired(in("other", "doubt too", semel.AtMostOnce)),
		3: expired(in(scope, "may run again", semel.AtLeastOnce)),
		4: expired(in(scope, "may run again too", semel.Transactional)),
		5: e.complete(in("other", "same", semel.AtMostOnce)),
		6: e.complete(in(scope, "done", semel.Fenced)),
		7: e.released(in("other", "free", semel.AtMostOnce)),
	}
	for i := range all {
		all[i] = e.insert(all[i])
	}
	return all
}

func listAll(e *env) {
	e.lists(semel.Filter{}, e.mixed()...)
}

func listBy(e *env, f semel.Filter, want ...int) {
	e.Helper()
	all := e.mixed()
	var found []semel.Record
	for _, i := range want {
		found = append(found, all[i])
	}
	e.lists(f, found...)
}

func listOdd(e *env, by func(semel.Key) semel.Filter) {
	e.Helper()
	var all []semel.Record
	for _, text := range texts() {
		if text.value != "" { // the empty text means "any"
			all = append(all, e.insert(e.in(semel.Key{Scope: text.value, ID: text.value})))
		}
	}
	for _, r := range all {
		e.lists(by(r.Key), r)
	}
}

func listPattern(e *env) {
	e.insert(e.pending("abc"))
	e.insert(e.pending("a%c"))
	pattern := e.insert(e.pending("%"))
	e.lists(semel.Filter{ID: "%"}, pattern)
	for _, id := range []string{"a_c", "a%", "ABC", "abc ", " abc", "ab", "*", "' OR 1=1 --"} {
		e.lists(semel.Filter{ID: id})
	}
}

func listInDoubtLater(e *env) {
	next := e.pending("k")
	next.TTL = e.maker.short()
	r := e.insert(next)
	e.insert(e.pending("long lease"))
	if !e.maker.RealTime {
		e.lists(semel.Filter{InDoubt: true})
	}
	e.pass(next.TTL + coarsest)
	e.lists(semel.Filter{InDoubt: true}, r)
	e.over(e.complete(r))
	e.lists(semel.Filter{InDoubt: true})
}

// pages lists page by page.
func (e *env) pages(f semel.Filter) (all []semel.Record) {
	e.Helper()
	for range 100 {
		page := e.list(f)
		if len(page) > f.Limit {
			e.Fatalf("a page of %d, the limit is %d", len(page), f.Limit)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		f.After = page[len(page)-1].Digest
	}
	e.Fatal("there are pages without end")
	return nil
}

func listPages(e *env) {
	want := map[semel.Digest]semel.Record{}
	for i := range 23 {
		r := e.insert(e.pending(fmt.Sprint("k", i)))
		want[r.Digest] = r
	}
	for _, limit := range []int{1, 5, 23, 24} {
		got := e.pages(semel.Filter{Limit: limit})
		if err := ordered(got); err != nil || len(got) != len(want) {
			e.Fatalf("pages of %d gave %d records, want %d; %v", limit, len(got), len(want), err)
		}
		for _, r := range got {
			if d := describe(r, want[r.Digest]); d != "" {
				e.Fatalf("pages of %d:%s", limit, d)
			}
		}
	}
}

// The limit counts what passes the filter, not what was looked at.
func listPagesFiltered(e *env) {
	done := 0
	for i := range 40 {
		next := e.pending(fmt.Sprint("k", i))
		if i%8 == 3 {
			next = e.complete(next)
			done++
		}
		e.insert(next)
	}
	f := semel.Filter{State: semel.Done, Limit: 2}
	if got := len(e.list(f)); got != 2 {
		e.Fatalf("%d done records with limit 2, of %d that there are", got, done)
	}
	if got := len(e.pages(f)); got != done {
		e.Fatalf("pages gave %d done records, want %d", got, done)
	}
}

func listAfterLast(e *env) {
	e.mixed()
	all := e.list(semel.Filter{})
	e.lists(semel.Filter{After: all[len(all)-1].Digest})
	var top semel.Digest
	for i := range top {
		top[i] = 0xFF
	}
	e.lists(semel.Filter{After: top})
}

func listAfterNone(e *env) {
	low, high := e.pending("low"), e.pending("high")
	low.Digest, high.Digest = semel.Digest{0: 0x10, 31: 9}, semel.Digest{0: 0x90}
	low, high = e.insert(low), e.insert(high)
	e.lists(semel.Filter{After: semel.Digest{0: 0x10, 31: 8}}, low, high)
	e.lists(semel.Filter{After: semel.Digest{0: 0x10, 30: 1}}, high)
	e.lists(semel.Filter{After: semel.Digest{0: 0x7F}}, high)
	e.lists(semel.Filter{After: semel.Digest{0: 0x90, 31: 1}})
}

func listDefaultLimit(e *env) {
	for i := range 103 {
		e.insert(e.pending(fmt.Sprint("k", i)))
	}
	if got := len(e.list(semel.Filter{})); got != 100 {
		e.Fatalf("%d records without a limit, want 100 of 103", got)
	}
	if got := len(e.list(semel.Filter{Limit: 1000})); got != 103 {
		e.Fatalf("%d records with limit 1000, want 103", got)
	}
}

func listLimit(e *env) {
	e.mixed()
	all := e.list(semel.Filter{Limit: 8})
	for limit := 1; limit < 8; limit++ {
		e.lists(semel.Filter{Limit: limit}, all[:limit]...)
	}
}

func listChanges(e *env) {
	r := e.insert(e.pending("k"))
	for _, change := range []func(semel.Record) semel.Record{e.renewed, e.released, e.heir, e.complete} {
		next := change(r)
		r = e.swap(r.Version, next)
		e.lists(semel.Filter{}, r)
		e.lists(semel.Filter{State: r.State}, r)
	}
	e.lists(semel.Filter{State: semel.Pending})
	e.lists(semel.Filter{State: semel.Released})
}

func listForgotten(e *env) {
	kept := e.insert(e.complete(e.pending("kept")))
	e.expiredMany(3)
	e.sweep(100, 3)
	e.lists(semel.Filter{}, kept)
}

func listWithheld(e *env) {
	next := e.pending("secret")
	next.Key = semel.Key{}
	r := e.insert(next)
	e.lists(semel.Filter{ID: "secret"})
	e.lists(semel.Filter{Scope: scope})
	e.lists(semel.Filter{}, r)
}

func listOwnCopy(e *env) {
	r := e.insert(e.complete(e.pending("k")))
	got := e.list(semel.Filter{})
	got[0].State, got[0].Owner, got[0].Result = semel.Released, "changed", nil
	e.holds(r)
	e.lists(semel.Filter{}, r)
}
