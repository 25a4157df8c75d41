package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
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

// flushTest is a shop, another process', and the flushes of the first one.
type flushTest struct {
	*shop
	other *shop
	p     *proxy
	level sql.IsolationLevel
	name  string
}

// flushes checks how many there were since the last check.
func (f *flushTest) flushes(what string, want int) {
	f.Helper()
	if n := f.p.flushed(); n != want {
		f.Errorf("%s, %s: %d flushes, want %d", f.name, what, n, want)
	}
	f.p.reset()
}

func (f *flushTest) replayed(what string, a semel.Answer, err error) {
	f.Helper()
	if err != nil || !a.Replayed || string(a.Data) != "ordered" {
		f.Errorf("%s, %s: got %+v, %v; want the answer replayed", f.name, what, a, err)
	}
}

// take has the other process complete a key.
func (f *flushTest) take(id string) {
	f.Helper()
	if a, err := f.other.do(id, order()); err != nil || a.Replayed {
		f.Fatalf("%+v, %v", a, err)
	}
}

// A scope's duplicate is answered with what is on disk, too.
func TestFieldBug28_ScopeReplayWaitsForTheFlush(t *testing.T) {
	for name, level := range levels() {
		for _, optimistic := range []bool{false, true} {
			s, other, p := flushShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Optimistic: optimistic}})
			f := &flushTest{s, other, p, level, fmt.Sprintf("%s, optimistic %t", name, optimistic)}
			f.duplicates()
			if optimistic {
				f.meanwhile()
			}
			f.inTransactions()
		}
	}
}

func (f *flushTest) duplicates() {
	if _, err := f.do("mine", order()); err != nil {
		f.Fatal(err)
	}
	a, err := f.do("mine", order())
	f.replayed("its own", a, err)
	f.flushes("its own", 0)
	f.take("k")
	f.p.loseFlush() // the guard asks again
	a, err = f.do("k", order())
	f.replayed("another's", a, err)
	f.flushes("another's", 2)
	a, err = f.do("k", order())
	f.replayed("another's again", a, err)
	f.flushes("another's again", 0)
}

// meanwhile has the other's met at the COMMIT.
func (f *flushTest) meanwhile() {
	a, err := f.do("c", order(func(context.Context, *sql.Tx) error { f.take("c"); return nil }))
	f.replayed("another's, meanwhile", a, err)
	f.flushes("another's, meanwhile", 1)
	f.p.loseFlush() // it runs again, and reads first
	taken := false
	a, err = f.do("d", order(func(context.Context, *sql.Tx) error {
		if !taken {
			f.take("d")
		}
		taken = true
		return nil
	}))
	f.replayed("another's, meanwhile, and the flush is lost", a, err)
	f.flushes("another's, meanwhile, and the flush is lost", 2)
}

// inTransactions has it met in transactions of a caller's own.
func (f *flushTest) inTransactions() {
	f.take("w")
	for _, lost := range []bool{false, true} {
		if lost {
			f.p.loseFlush()
		}
		tx, err := f.db.BeginTx(context.Background(), &sql.TxOptions{Isolation: f.level})
		if err != nil {
			f.Fatal(err)
		}
		a, err := f.within(tx, "w", func(context.Context) (semel.Result, error) {
			f.Error("a duplicate was executed")
			return semel.Result{}, nil
		})
		if !lost {
			f.replayed("in a caller's transaction", a, err)
			f.flushes("in a caller's transaction", 1)
		} else if err == nil && f.p.flushed() < 2 {
			f.Errorf("%s, in a caller's transaction, and the flush is lost: got %+v after %d flushes", f.name, a, f.p.flushed())
		}
		_ = tx.Rollback()
		f.p.reset()
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
