package postgres_test

import (
	"path/filepath"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// What a swap costs on the wire: one round trip, for a claim, a duplicate and a
// completion, and for a whole batch; directly and through a pooler. A duplicate
// takes no transaction number, so it wrote nothing and locked no row.
func TestRoundTrips(t *testing.T) {
	server := private(t, nil)
	bouncer, err := server.Bouncer(filepath.Join(t.TempDir(), "bouncer"))
	must(t, err)
	defer bouncer.Kill()
	db := sql(t, server.URL("postgres"))
	for _, c := range []struct{ name, url string }{{"direct", server.URL("postgres")}, {"pooler", bouncer.URL("postgres")}} {
		p, through := between(t, c.url)
		s := opened(t, through, "wire_"+c.name, postgres.Options{MaxConns: 1, ListenURL: server.URL("postgres")})
		mustSwap(t, s, semel.Version{}, pending("warm"))
		count := func(what string, fn func()) {
			trips, executes := p.trips.Load(), p.executes.Load()
			fn()
			trips, executes = p.trips.Load()-trips, p.executes.Load()-executes
			t.Logf("%s, %s: %d round trip, %d statements", c.name, what, trips, executes)
			if trips != 1 {
				t.Errorf("%s: %s took %d round trips, want 1", c.name, what, trips)
			}
		}
		var claim, held semel.Record
		count("claim", func() { claim = mustSwap(t, s, semel.Version{}, pending("k")) })
		count("completion", func() { held = mustSwap(t, s, claim.Version, done("k")) })
		next := number(t, db, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8`)
		count("duplicate", func() { mustConflict(t, s, held) })
		for range 50 {
			mustConflict(t, s, held)
		}
		if after := number(t, db, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8`); after != next {
			t.Errorf("%s: 51 duplicates took %d transaction numbers: they wrote or locked", c.name, after-next)
		}
		count("read", func() {
			if r, err := s.Get(t.Context(), held.Digest); err != nil || r.Record.Version != held.Version {
				t.Error(r, err)
			}
		})
		count("a batch of claims, a completion and a duplicate", func() {
			other := claim
			for i, out := range s.SwapMany(t.Context(), []semel.Swap{{Next: pending("a")}, {Next: pending("b")}, {Old: other.Version, Next: done("k")}, {Next: pending("warm")}}) {
				if conflict := i >= 2; conflict != (out.Err != nil) {
					t.Error(i, out.Err)
				}
			}
		})
		if n := number(t, db, `SELECT count(*) FROM wire_`+c.name+`.journal`); n != 5 {
			t.Errorf("%s: %d lines in the journal, want 5", c.name, n)
		}
	}
}
