package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// ledger is a scope with a table of effects.
type ledger struct {
	scope  *postgres.Scope
	db     *pgxpool.Pool
	schema string
}

// newLedger opens a scope whose connections go to through, on the database at url.
func newLedger(t *testing.T, url, through, schema string, o postgres.ScopeOptions) *ledger {
	t.Helper()
	db := sql(t, url)
	run(t, db, "CREATE SCHEMA IF NOT EXISTS "+schema)
	run(t, db, "CREATE TABLE IF NOT EXISTS "+schema+".effects (name text NOT NULL)")
	scope, err := postgres.NewScope(opened(t, url, "k"+schema, postgres.Options{MaxConns: 2}), pooled(t, through, 4), o)
	must(t, err)
	return &ledger{scope, db, schema}
}

// pay runs one operation: an effect, then between.
func (l *ledger) pay(id string, between func(ctx context.Context, tx pgx.Tx) error) (semel.Answer, error) {
	return l.scope.Do(context.Background(), semel.Key{Scope: "tenant", ID: id}, semel.FingerprintOf([]byte(id)), func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
		if _, err := tx.Exec(ctx, "INSERT INTO "+l.schema+".effects VALUES ($1)", id); err != nil {
			return semel.Result{}, err
		}
		return semel.Result{Code: 201, Data: []byte("receipt " + id)}, between(ctx, tx)
	})
}

func nothingMore(context.Context, pgx.Tx) error { return nil }

// has fails the test unless there are n effects of this ID, and its record is
// done if there is one, and not there if there is none.
func (l *ledger) has(t *testing.T, id string, n int64) {
	t.Helper()
	if got := number(t, l.db, "SELECT count(*) FROM "+l.schema+".effects WHERE name = $1", id); got != n {
		t.Errorf("%d effects of %s, want %d", got, id, n)
	}
	g := l.scope.Guard()
	r, err := g.Store().Get(t.Context(), g.Digest(semel.Key{Scope: "tenant", ID: id}))
	if err != nil || r.Record.Held() != (n > 0) || n > 0 && r.Record.State != semel.Done {
		t.Errorf("the record of %s with %d effects: held %t, %v, %v", id, n, r.Record.Held(), r.Record.State, err)
	}
}

// TestScopeChild is the process that TestScopeProcessKilled kills.
func TestScopeChild(t *testing.T) {
	url, schema, ok := strings.Cut(os.Getenv("SEMEL_SCOPE_CHILD"), " ")
	if !ok {
		t.Skip("it is for TestScopeProcessKilled")
	}
	l := newLedger(t, url, url, schema, postgres.ScopeOptions{})
	_, err := l.pay("a", func(context.Context, pgx.Tx) error {
		fmt.Println("\ninside")
		select {}
	})
	t.Fatal("the operation ended", err)
}

// kill -9 in the middle of an operation: the key is free at once, whatever the
// lease says, and nothing of the operation is there.
func TestScopeProcessKilled(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	l := newLedger(t, url, url, schema, postgres.ScopeOptions{Policy: semel.Policy{Lease: time.Hour, Remember: 100 * time.Hour}})
	child := exec.Command(os.Args[0], "-test.run", "^TestScopeChild$", "-test.v")
	child.Env = append(os.Environ(), "SEMEL_SCOPE_CHILD="+url+" "+schema)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	defer child.Process.Kill()
	lines := bufio.NewScanner(out)
	inside := false
	for !inside && lines.Scan() {
		inside = lines.Text() == "inside"
	}
	if !inside {
		t.Fatal("the child did not get as far as its operation")
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	answer, err := l.pay("a", nothingMore)
	if err != nil || answer.Replayed || answer.Attempt != 1 {
		t.Errorf("after the kill: %+v, %v; want a first attempt", answer, err)
	}
	l.has(t, "a", 1)
}

// The connection breaks in the middle of an operation, and the operation
// swallows what it is told.
func TestScopeConnectionCut(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	wire, through := between(t, url)
	l := newLedger(t, url, through, newSchema(t), postgres.ScopeOptions{})
	other := newLedger(t, url, url, l.schema, postgres.ScopeOptions{})
	_, err := l.pay("a", func(ctx context.Context, tx pgx.Tx) error {
		wire.cut()
		_, _ = tx.Exec(ctx, "SELECT 1")
		return nil
	})
	if !errors.Is(err, semel.ErrNotDone) {
		t.Errorf("got %v, want an error that is %v", err, semel.ErrNotDone)
	}
	other.has(t, "a", 0)
	_, err = other.pay("a", nothingMore)
	must(t, err)
	other.has(t, "a", 1)
	_, err = l.pay("b", nothingMore) // with a connection of its own
	must(t, err)
}

// An operator cancels a COMMIT that waits for a standby: the row is visible and
// on no standby, and nobody is told its answer before it is.
func TestFieldBug28_ScopeWaitsForTheStandby(t *testing.T) {
	p := private(t, nil)
	second := standby(t, p, true)
	l := newLedger(t, p.URL("postgres"), p.URL("postgres"), "shop", postgres.ScopeOptions{})
	_, err := l.pay("first", nothingMore)
	must(t, err)
	must(t, second.Pause())
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			must(t, second.Resume())
		}
	}
	defer resume()
	type outcome struct {
		answer semel.Answer
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		answer, err := l.pay("a", nothingMore)
		done <- outcome{answer, err}
	}()
	visible := "SELECT count(*) FROM shop.effects WHERE name = 'a'"
	eventually(t, "the commit was cut off", func() bool {
		run(t, l.db, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'COMMIT%'`)
		return number(t, l.db, visible) == 1
	})
	// A wrong answer would come at once; a right one cannot come while the standby stands still.
	for range 100 {
		if len(done) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case o := <-done:
		if o.err == nil {
			t.Fatalf("%+v was answered before the standby had it", o.answer)
		}
		t.Fatalf("it ended with %v while the standby stood still for half a second", o.err)
	default:
	}
	resume()
	o := <-done
	if o.err != nil || string(o.answer.Data) != "receipt a" {
		t.Errorf("got %q, %v", o.answer.Data, o.err)
	}
	must(t, p.Kill())
	must(t, second.Promote())
	if n := number(t, sql(t, second.URL("postgres")), visible); n != 1 {
		t.Errorf("%d effects on the standby, want 1", n)
	}
}

// The scope leaves the session as it was: what bounds the claim does not bound
// the operation.
func TestScopeSettings(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	l := newLedger(t, url, url+"&lock_timeout=7s&synchronous_commit=off", newSchema(t),
		postgres.ScopeOptions{Policy: semel.Policy{Lease: 20 * time.Second}, Tx: pgx.TxOptions{IsoLevel: pgx.RepeatableRead}})
	_, err := l.pay("a", func(ctx context.Context, tx pgx.Tx) error {
		for name, want := range map[string]string{
			"lock_timeout": "7s", "idle_in_transaction_session_timeout": "20s", "synchronous_commit": "on", "transaction_isolation": "repeatable read",
		} {
			var got string
			must(t, tx.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&got))
			if got != want {
				t.Errorf("%s is %s in the operation, want %s", name, got, want)
			}
		}
		return nil
	})
	must(t, err)
	l.has(t, "a", 1)
}

// While keys may have been lost, an unknown one is not taken: not by a claim, and
// not by an insert that comes last.
func TestScopeQuarantine(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	l := newLedger(t, url, url, schema, postgres.ScopeOptions{})
	_, err := l.pay("known", nothingMore)
	must(t, err)
	run(t, l.db, "UPDATE k"+schema+".epochs SET quarantined = now() + interval '1 hour', lost_after = now()")
	for _, optimistic := range []bool{false, true} {
		l := newLedger(t, url, url, schema, postgres.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		_, err := l.pay("unknown", nothingMore)
		if !errors.Is(err, semel.ErrUnavailable) || !errors.Is(err, postgres.ErrQuarantined) {
			t.Errorf("optimistic %t: an unknown key got %v", optimistic, err)
		}
		l.has(t, "unknown", 0)
		answer, err := l.pay("known", nothingMore)
		if err != nil || !answer.Replayed {
			t.Errorf("optimistic %t: a known key got %+v, %v", optimistic, answer, err)
		}
	}
}

// A COMMIT that waits for a standby for longer than anybody waits for it goes on
// waiting: nobody asks the server to cancel it, and the caller is told its answer
// once the standby has it.
func TestFieldBug28_ScopeCommitIsNotCancelled(t *testing.T) {
	t.Parallel()
	p := private(t, nil)
	second := standby(t, p, true)
	wire, through := between(t, p.URL("postgres"))
	l := newLedger(t, p.URL("postgres"), through, "shop", postgres.ScopeOptions{Policy: semel.Policy{Wait: time.Minute}})
	must(t, second.Pause())
	defer second.Resume()
	done := make(chan error, 1)
	go func() {
		answer, err := l.pay("a", nothingMore)
		if err == nil && string(answer.Data) != "receipt a" {
			err = fmt.Errorf("the answer is %q", answer.Data)
		}
		done <- err
	}()
	eventually(t, "another claim of the key waits, as the first commit's outcome is unknown", func() bool {
		return number(t, l.db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH here%'`) == 1
	})
	waits(t, l.db, "after its caller's deadline")
	if n := wire.cancels.Load(); n != 0 {
		t.Errorf("the driver asked %d times to cancel a commit", n)
	}
	must(t, second.Resume())
	must(t, <-done)
	l.has(t, "a", 1)
}
