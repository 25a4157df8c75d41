package payments

import (
	"slices"
	"testing"

	"github.com/semelhq/semel"
)

// planted puts one fault at a time into the evidence of a sound run: the account
// must find each.
func planted(t *testing.T, e evidence) {
	t.Helper()
	if t.Failed() {
		return
	}
	paid := slices.IndexFunc(e.journal, func(r request) bool { return r.kind == payment && r.replayed && r.status == 201 && !leaves(r.customer) })
	if paid < 0 {
		t.Fatal("no payment was replayed")
	}
	what := e.journal[paid]
	charged := slices.IndexFunc(e.charges, func(c charge) bool { return c.Order == what.order })
	row := slices.IndexFunc(e.orders, func(o orderRow) bool { return o.ID == what.order })
	line := slices.IndexFunc(e.entries, func(x entryRow) bool { return x.Order == what.order && x.Account == "bank" })
	found := func(fault string, count func(*counts) int, spoil func(e *evidence)) {
		t.Helper()
		spoiled := e
		spoiled.journal, spoiled.charges = slices.Clone(e.journal), slices.Clone(e.charges)
		spoiled.orders, spoiled.entries = slices.Clone(e.orders), slices.Clone(e.entries)
		spoiled.kept = map[string]kept{}
		for n, k := range e.kept {
			spoiled.kept[n] = k
		}
		spoil(&spoiled)
		if c := account(&spoiled); count(&c) == 0 {
			t.Errorf("%s was planted, and not found: %q", fault, c.findings)
		}
	}
	lost, double := func(c *counts) int { return c.lost }, func(c *counts) int { return c.double }
	found("a second charge", double, func(e *evidence) { e.charges = append(e.charges, e.charges[charged]) })
	found("a lost charge", lost, func(e *evidence) { e.charges = slices.Delete(e.charges, charged, charged+1) })
	found("a second order", double, func(e *evidence) { e.orders = append(e.orders, e.orders[row]) })
	found("a lost order", lost, func(e *evidence) { e.orders = slices.Delete(e.orders, row, row+1) })
	found("a second posting", double, func(e *evidence) { e.entries = append(e.entries, e.entries[line]) })
	found("a lost posting", lost, func(e *evidence) { e.entries = slices.Delete(e.entries, line, line+1) })
	found("a posting of another amount", lost, func(e *evidence) { e.entries[line].Amount++ })
	found("a changed answer", func(c *counts) int { return c.flips }, func(e *evidence) { e.journal[paid].body += " " })
	found("another's answer", func(c *counts) int { return c.leaked }, func(e *evidence) { e.journal[paid].body = `{"amount":1}` })
	found("a payment without an answer", func(c *counts) int { return c.stuck }, func(e *evidence) {
		e.journal = slices.DeleteFunc(e.journal, func(r request) bool { return r.kind == payment && r.customer == what.customer })
	})
	keep := func(e *evidence, change func(k *kept)) {
		k := e.kept[name(payment, what.customer)]
		change(&k)
		e.kept[name(payment, what.customer)] = k
	}
	found("a record that is still pending", func(c *counts) int { return c.stuck }, func(e *evidence) {
		keep(e, func(k *kept) { k.record.State = semel.Pending })
	})
	found("a record that is gone", func(c *counts) int { return c.silent }, func(e *evidence) {
		keep(e, func(k *kept) { k.record = semel.Record{} })
	})
	found("a journal that ends too early", func(c *counts) int { return c.untold }, func(e *evidence) {
		keep(e, func(k *kept) { k.history = k.history[:len(k.history)-1] })
	})
}

// TestBrokenShopsAreFound makes one mistake at a time in the shop, and kills it
// where that mistake shows. The account must find what came of it.
func TestBrokenShopsAreFound(t *testing.T) {
	t.Parallel()
	for _, broken := range []struct {
		mistake string
		changes []change
		point   string
	}{
		{"the charge has a fresh key instead of the step's", []change{{
			"payments.go", "		return s.provider.charge(ctx, asked", "		return s.provider.charge(r.Context(), asked",
		}}, "charge-answered"},
		{"the ledger is written outside the scope", []change{
			{"payments.go", "_, err := s.scope.Do(ctx, key, semel.FingerprintOf([]byte(c.ID)), func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {", "_, tx := key, s.pool\n_, err := func() (semel.Result, error) {"},
			{"payments.go", "	})\n	return answer(http.StatusCreated, c), err", "	}()\n	return answer(http.StatusCreated, c), err"},
		}, "ledger-committed"},
		{"the order is written outside the transaction", []change{
			{"orders.go", "	var id int64\n", "	_ = tx\n	var id int64\n"},
			{"orders.go", "err := tx.QueryRow(", "err := s.pool.QueryRow("},
			{"orders.go", "_, err = tx.Exec(", "_, err = s.pool.Exec("},
			// Two connections for one order: with the few of the default all wait for each other.
			{"main.go", "pgxpool.New(ctx, s.database)", "pgxpool.New(ctx, s.database+`&pool_max_conns=40`)"},
		}, "order-written"},
	} {
		t.Run(broken.point, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, build(t, broken.point, broken.changes...), 2)
			c, o, _ := s.run(size{customers: 30}, []string{broken.point})
			if c.double+c.lost == 0 {
				t.Errorf("%s: killed %v, and nothing was found", broken.mistake, o.at)
			}
			t.Logf("%s: DOUBLE %d, LOST %d; as %q", broken.mistake, c.double, c.lost, c.findings[:min(3, len(c.findings))])
		})
	}
}
