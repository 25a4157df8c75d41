package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// LockWait is the scope's own: with a long one a duplicate that may not poll waits
// for the other's transaction in the database, for longer than the default, and is
// told its answer.
func TestScopeLockWait(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	l := newLedger(t, url, url, schema, postgres.ScopeOptions{})
	waits := newLedger(t, url, url, schema, postgres.ScopeOptions{LockWait: time.Minute, Policy: semel.Policy{Wait: -1}})
	type outcome struct {
		answer semel.Answer
		err    error
	}
	done := make(chan outcome, 1)
	_, err := l.pay("a", func(context.Context, pgx.Tx) error {
		go func() {
			answer, err := waits.pay("a", nothingMore)
			done <- outcome{answer, err}
		}()
		eventually(t, "a duplicate waits for the row", func() bool {
			return len(done) > 0 || number(t, l.db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%k`+schema+`%'`) == 1
		})
		time.Sleep(700 * time.Millisecond) // the default is over
		return nil
	})
	must(t, err)
	if o := <-done; o.err != nil || !o.answer.Replayed || string(o.answer.Data) != "receipt a" {
		t.Errorf("the duplicate got %+v, %v; want the answer", o.answer, o.err)
	}
	l.has(t, "a", 1)
}
