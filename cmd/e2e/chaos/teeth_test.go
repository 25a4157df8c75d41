package chaos

import (
	"slices"
	"testing"

	root "github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/storm"
)

// planted puts one fault at a time into the evidence of a sound run: the account
// must find each.
func (s *scene) planted(e storm.Evidence) {
	s.t.Helper()
	if s.t.Failed() {
		return
	}
	paid := slices.IndexFunc(e.Journal, func(a storm.Entry) bool { return a.Replayed })
	if paid < 0 {
		s.t.Fatal("nothing was replayed")
	}
	name := storm.Name{Account: e.Journal[paid].Account, Key: e.Journal[paid].Key}
	line := slices.IndexFunc(e.Ledger, func(c storm.Charge) bool { return c.Account == name.Account && c.Reference == name.Key })
	found := func(what string, count func(*storm.Counts) int, spoil func(e *storm.Evidence)) {
		s.t.Helper()
		spoiled := e
		spoiled.Journal, spoiled.Ledger = slices.Clone(e.Journal), slices.Clone(e.Ledger)
		spoiled.Kept = map[storm.Name]storm.Kept{}
		for n, k := range e.Kept {
			spoiled.Kept[n] = k
		}
		spoil(&spoiled)
		if c := storm.Account(spoiled); count(&c) != 1 {
			s.t.Errorf("%s was planted, and counted %d times, want 1: %q", what, count(&c), c.Findings)
		}
	}
	found("a second charge", func(c *storm.Counts) int { return c.Double }, func(e *storm.Evidence) {
		e.Ledger = append(e.Ledger, e.Ledger[line])
	})
	found("a lost charge", func(c *storm.Counts) int { return c.Lost }, func(e *storm.Evidence) {
		e.Ledger = slices.Delete(e.Ledger, line, line+1)
	})
	found("a changed answer", func(c *storm.Counts) int { return c.Flips }, func(e *storm.Evidence) { e.Journal[paid].Body += " " })
	found("a lost record", func(c *storm.Counts) int { return c.Lost }, func(e *storm.Evidence) { delete(e.Kept, name) })
	found("a record that is still pending", func(c *storm.Counts) int { return c.Stuck }, func(e *storm.Evidence) {
		k := e.Kept[name]
		k.Record.State, k.Record.TTL = root.Pending, e.Looked.Sub(k.Record.WrittenAt)+lease
		k.History = nil
		e.Kept[name] = k
	})
	found("an outcome that is unknown to the store", func(c *storm.Counts) int { return c.Silent }, func(e *storm.Evidence) {
		k := e.Kept[name]
		k.Record.State, k.Record.TTL = root.Pending, lease
		k.Record.WrittenAt = e.Looked.Add(-2 * lease)
		k.History = nil
		e.Kept[name] = k
	})
}

// TestMemoryDoubles takes away what the gateways share: each has a store of its
// own, that ends with it. The same storm runs payments twice, and the account says
// so.
func TestMemoryDoubles(t *testing.T) {
	t.Parallel()
	s := newScene(t, 2, planned(2), "memory:", storm.APIOptions{})
	e, o := s.underKills(nil, 0, 2)
	if c := storm.Account(e); c.Double == 0 || c.Flips == 0 {
		t.Errorf("two gateways that share nothing, killed %d times, came to no harm: the storm finds nothing\n%s", o.gateways, c.String())
	} else {
		t.Logf("memory: two gateways share nothing; DOUBLE %d and FLIP %d of %d keys, as they must", c.Double, c.Flips, c.Keys)
	}
}
