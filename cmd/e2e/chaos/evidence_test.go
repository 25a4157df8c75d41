package chaos

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	root "github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/cmd/internal/storm"
	"github.com/semelhq/semel/semelhttp"
)

// evidence gathers the four logs. What is pending in the store is given the time
// that INVARIANTS L2 gives it, which began with the call.
func (s *scene) evidence(kills []time.Duration) storm.Evidence {
	s.t.Helper()
	healed := time.Now()
	ledger, err := storm.ReadLedger(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	e := storm.Evidence{Journal: s.journal.All(), Ledger: ledger, Statements: s.api.Statements(), Kills: kills}
	if strings.HasPrefix(s.store, "memory:") {
		return e // nobody but its gateway can look into it
	}
	for {
		e.Looked = time.Now()
		e.Kept = s.dump()
		pending := slices.ContainsFunc(values(e.Kept), func(k storm.Kept) bool {
			return k.Record.State == root.Pending && !k.Record.InDoubt(e.Looked)
		})
		if !pending || time.Since(healed) > lease+5*time.Second {
			return e
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func values[K comparable, V any](m map[K]V) (all []V) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// maxHistories bounds the keys whose history is read, since some journals have no
// index. Records come ordered by their digests, so it is a fair sample of more.
const maxHistories = 2000

// dump reads the store, and its journal where it has one, as an operator does.
func (s *scene) dump() map[storm.Name]storm.Kept {
	s.t.Helper()
	ctx := s.t.Context() // what is much takes long
	store, err := stores.Read(ctx, s.store, stores.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	lister, ok := root.As[root.Lister](store.Store)
	if !ok {
		s.t.Fatal("the store cannot list its records")
	}
	journal, _ := root.As[root.Journal](store.Store)
	kept := map[storm.Name]storm.Kept{}
	for filter := (root.Filter{Limit: 1000}); ; {
		records, err := lister.List(ctx, filter)
		if err != nil {
			s.t.Fatal("listing the store:", err)
		}
		for i := range records {
			name, ok := nameOf(s.t, &records[i])
			if !ok {
				continue
			}
			k := storm.Kept{Record: records[i]}
			if journal != nil && len(kept) < maxHistories {
				if k.History, err = journal.History(ctx, records[i].Digest); err != nil {
					s.t.Fatal("the journal:", err)
				}
			}
			kept[name] = k
		}
		if len(records) < filter.Limit {
			return kept
		}
		filter.After = records[len(records)-1].Digest
	}
}

// nameOf says whose a record is; not that of the gateways' own marks.
func nameOf(t *testing.T, r *root.Record) (storm.Name, bool) {
	t.Helper()
	if strings.HasPrefix(r.Key.Scope, "semel|") {
		return storm.Name{}, false
	}
	name := storm.Name{Account: r.Key.Scope, Key: r.Key.ID}
	for _, p := range storm.Plan(1, 2, time.Second) { // one of each account
		request := &http.Request{Header: http.Header{"Authorization": {storm.Authorization(p.Account)}}}
		scope, err := semelhttp.HeaderScope("Authorization")(request)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(r.Key.Scope, scope+"|") {
			name.Account = p.Account
		}
	}
	return name, true
}

// account counts, prints, and fails the test for what must be zero.
func (s *scene) account(e storm.Evidence, what string) storm.Counts {
	s.t.Helper()
	c := storm.Account(e)
	s.t.Logf("%s\n%s", what, c.String())
	if c.Bad() > 0 {
		s.t.Errorf("found:\n%s\n%s", strings.Join(c.Findings, "\n"), c.Story(&e, 3))
	}
	return c
}
