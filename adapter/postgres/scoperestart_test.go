package postgres_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// The server is killed and comes back: the pool's connections are dead, and the
// epoch is another. The next operations run, and what was done is replayed.
func TestScopeRestart(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		t.Run(fmt.Sprint("optimistic=", optimistic), func(t *testing.T) { scopeRestart(t, optimistic) })
	}
}

func scopeRestart(t *testing.T, optimistic bool) {
	p := private(t, nil)
	l := newLedger(t, p.URL("postgres"), p.URL("postgres"), "shop", postgres.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
	runs := 0
	pay := func(id string, replayed bool) {
		t.Helper()
		answer, err := l.pay(id, func(context.Context, pgx.Tx) error { runs++; return nil })
		if err != nil || answer.Replayed != replayed || string(answer.Data) != "receipt "+id {
			t.Errorf("%s: %+v, %v; want replayed %t", id, answer, err, replayed)
		}
	}
	pay("before", false)
	must(t, p.Kill())
	must(t, p.Start())
	pay("after", false)
	pay("before", true)
	pay("after", true)
	if runs != 2 && !optimistic { // which learns of the restart when it commits, and nothing of that run is there
		t.Errorf("%d runs, want 2", runs)
	}
	if n := number(t, sql(t, p.URL("postgres")), "SELECT count(*) FROM shop.effects"); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
}
