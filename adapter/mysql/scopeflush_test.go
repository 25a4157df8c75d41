package mysql_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// flushShop is a shop whose store is behind a proxy, and one of another process
// with the same database.
func flushShop(t *testing.T, o mysql.ScopeOptions) (s, other *shop, p *proxy) {
	t.Helper()
	s = newShop(t, o)
	behind := *s
	other = &behind
	p, through := between(t, s.url)
	s.store = connect(t, through, mysql.Options{Connections: 1})
	t.Cleanup(func() { _ = s.store.Close() })
	s.scope = s.open(o)
	// The epoch has moved with that: let everybody know.
	for i, each := range []*shop{s, other} {
		if _, err := each.do([]string{"first", "second"}[i], order()); err != nil {
			t.Fatal(err)
		}
	}
	p.reset()
	return s, other, p
}

// A scope's duplicate is answered with what is on disk, too.
func TestFieldBug28_ScopeReplayWaitsForTheFlush(t *testing.T) {
	for name, level := range levels() {
		for _, optimistic := range []bool{false, true} {
			s, other, p := flushShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Optimistic: optimistic}})
			flushes := func(what string, want int) {
				t.Helper()
				if n := p.flushed(); n != want {
					t.Errorf("%s, optimistic %t, %s: %d flushes, want %d", name, optimistic, what, n, want)
				}
				p.reset()
			}
			replayed := func(what string, a semel.Answer, err error) {
				t.Helper()
				if err != nil || !a.Replayed || string(a.Data) != "ordered" {
					t.Errorf("%s, optimistic %t, %s: got %+v, %v; want the answer replayed", name, optimistic, what, a, err)
				}
			}
			take := func(id string) {
				t.Helper()
				if a, err := other.do(id, order()); err != nil || a.Replayed {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			if _, err := s.do("mine", order()); err != nil {
				t.Fatal(err)
			}
			a, err := s.do("mine", order())
			replayed("its own", a, err)
			flushes("its own", 0)

			take("k")
			p.loseFlush() // the guard asks again
			a, err = s.do("k", order())
			replayed("another's", a, err)
			flushes("another's", 2)
			a, err = s.do("k", order())
			replayed("another's again", a, err)
			flushes("another's again", 0)

			if optimistic { // met at the COMMIT
				a, err = s.do("c", order(func(context.Context, *sql.Tx) error { take("c"); return nil }))
				replayed("another's, meanwhile", a, err)
				flushes("another's, meanwhile", 1)
				p.loseFlush() // it runs again, and reads first
				ran := false
				a, err = s.do("d", order(func(context.Context, *sql.Tx) error {
					if !ran {
						take("d")
					}
					ran = true
					return nil
				}))
				replayed("another's, meanwhile, and the flush is lost", a, err)
				flushes("another's, meanwhile, and the flush is lost", 2)
			}

			take("w")
			for want, lose := range []bool{false, true} {
				if lose {
					p.loseFlush()
				}
				tx, err := s.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
				if err != nil {
					t.Fatal(err)
				}
				a, err := s.within(tx, "w", func(context.Context) (semel.Result, error) {
					t.Error("a duplicate was executed")
					return semel.Result{}, nil
				})
				if want == 0 {
					replayed("in a caller's transaction", a, err)
					flushes("in a caller's transaction", 1)
				} else if err == nil && p.flushed() < 2 {
					t.Errorf("%s, in a caller's transaction, and the flush is lost: got %+v after %d flushes", name, a, p.flushed())
				}
				tx.Rollback()
				p.reset()
			}
		}
	}
}

// TestFlushKnowsNothingUncommitted: what a transaction reads of its own is not
// taken for known when another has written the same afterwards.
func TestFlushKnowsNothingUncommitted(t *testing.T) {
	s, other, p := flushShop(t, mysql.ScopeOptions{})
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for i := range 2 {
		a, err := s.within(tx, "k", func(ctx context.Context) (semel.Result, error) { return order()(ctx, tx) })
		if err != nil || a.Replayed != (i == 1) {
			t.Fatalf("call %d: %+v, %v", i, a, err)
		}
	}
	digest := semel.Key{Scope: "tenant", ID: "k"}.Digest(nil)
	inside, err := mysql.In(s.store, tx).Get(t.Context(), digest)
	if err != nil || inside.Record.State != semel.Done {
		t.Fatalf("in its transaction: %v, %v", inside.Record.State, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	// The same process may give the version once more, since nobody has seen it.
	if a, err := other.do("k", order()); err != nil || a.Replayed {
		t.Fatalf("%+v, %v", a, err)
	}
	p.reset()
	r, err := s.store.Get(t.Context(), digest)
	if err != nil || r.Record.State != semel.Done {
		t.Fatalf("%v, %v", r.Record.State, err)
	}
	if r.Record.Version != inside.Record.Version {
		t.Errorf("the versions are %v and %v: the test shows nothing", inside.Record.Version, r.Record.Version)
	}
	if n := p.flushed(); n != 1 {
		t.Errorf("%d flushes, want 1", n)
	}
}
