package semelgrpc_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/semelhttp"
)

// ledger is a file with a store and a table in it.
type ledger struct {
	db    *sql.DB
	store *undoing
	guard *semel.Guard
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	store, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	l := &ledger{}
	if l.db, err = sqlite.OpenDB(path + "?_pragma=foreign_keys(1)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.db.Close() })
	if _, err := l.db.Exec("CREATE TABLE account (id INTEGER PRIMARY KEY); CREATE TABLE ledger (what TEXT, account INTEGER REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	scope, err := sqlite.NewScope(store, l.db, sqlite.ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.store = &undoing{Store: scope.Guard().Store()}
	l.guard = newGuard(t, l.store)
	return l
}

// enter writes a line in the transaction of ctx.
func enter(ctx context.Context, what string, account any) error {
	tx, ok := sqlite.TxFrom(ctx)
	if !ok {
		return status.Error(codes.Internal, "no transaction in the context")
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO ledger (what, account) VALUES (?, ?)", what, account)
	return err
}

func (l *ledger) entries(t *testing.T) (n int) {
	t.Helper()
	if err := l.db.QueryRow("SELECT count(*) FROM ledger").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// undoing undoes the next commits, or the next statements that fail, as a database
// does with a deadlock's victim.
type undoing struct {
	semel.Store
	next, statements atomic.Int64
}

func (u *undoing) Unwrap() semel.Store { return u.Store }

func (u *undoing) Begin(ctx context.Context, digest semel.Digest, first *semel.Swap) (semel.Transaction, semel.Reading, error) {
	inner, _ := semel.As[semel.Transactor](u.Store)
	tx, r, err := inner.Begin(ctx, digest, first)
	if tx == nil {
		return nil, r, err
	}
	return &undone{tx, u}, r, err
}

type undone struct {
	semel.Transaction
	u *undoing
}

func (u *undone) Commit(ctx context.Context, last semel.Swap) (semel.Reading, error) {
	if u.u.next.Add(-1) >= 0 {
		u.Transaction.Rollback()
		return semel.Reading{}, semel.ErrUndone
	}
	return u.Transaction.Commit(ctx, last)
}

func (u *undone) Undone(err error) bool {
	return u.u.statements.Add(-1) >= 0 || u.Transaction.Undone(err)
}

var _ semel.Transactor = (*undoing)(nil)

func transactional() semelgrpc.Options {
	return semelgrpc.Options{
		Scope:    semelgrpc.SharedScope(),
		Methods:  map[string]semelgrpc.Method{charge: {Policy: semel.Policy{Class: semel.Transactional}}},
		Panicked: func(context.Context, string, any, []byte) {},
	}
}

func TestEffectAndAnswerCommitTogether(t *testing.T) {
	l := newLedger(t)
	runs := 0
	cc := serveGuard(t, &bank{charge: func(ctx context.Context, what string) (string, error) {
		runs++
		return fmt.Sprint("entered ", what), enter(ctx, what, nil)
	}}, transactional(), l.guard).dial(t)
	for i := range 3 {
		if a := ask(t, cc, charge, "100", "idempotency-key", "k"); a.text != "entered 100" || a.replayed() != (i > 0) {
			t.Errorf("%d: got %+v", i, a)
		}
	}
	if runs != 1 || l.entries(t) != 1 {
		t.Errorf("%d runs, %d entries", runs, l.entries(t))
	}
}

// TestFailuresUndoEverything: whatever the handler's failure, its effect is gone and
// the key is free.
func TestFailuresUndoEverything(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(ctx context.Context) error
		want codes.Code
	}{
		"not found":          {func(context.Context) error { return status.Error(codes.NotFound, "no account") }, codes.NotFound},
		"unavailable":        {func(context.Context) error { return status.Error(codes.Unavailable, "?") }, codes.Unavailable},
		"said to be unknown": {func(context.Context) error { return semelgrpc.Unknown(status.Error(codes.Aborted, "?")) }, codes.Aborted},
		"a panic":            {func(context.Context) error { panic("oops") }, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			fails, runs := true, 0
			cc := serveGuard(t, &bank{charge: func(ctx context.Context, what string) (string, error) {
				runs++
				if err := enter(ctx, what, nil); err != nil {
					return "", err
				}
				if fails {
					return "", c.fail(ctx)
				}
				return "entered", nil
			}}, transactional(), l.guard).dial(t)
			a := ask(t, cc, charge, "100", "idempotency-key", "k")
			if marks := fmt.Sprint(a.trailer.Get(semelgrpc.OutcomeMetadata)); a.code() != c.want || l.entries(t) != 0 || marks != "[not-done]" {
				t.Fatalf("got %v, marks %v, %d entries", a.err, marks, l.entries(t))
			}
			fails = false
			if a := ask(t, cc, charge, "100", "idempotency-key", "k"); a.text != "entered" || a.replayed() || runs != 2 || l.entries(t) != 1 {
				t.Errorf("then got %+v after %d runs, %d entries", a, runs, l.entries(t))
			}
		})
	}
}

func TestNotCommitted(t *testing.T) {
	l := newLedger(t)
	runs := 0
	cc := serveGuard(t, &bank{charge: func(ctx context.Context, what string) (string, error) {
		runs++
		return "entered", enter(ctx, what, 77) // no such account, which COMMIT finds
	}}, transactional(), l.guard).dial(t)
	want{codes.Unavailable, semelgrpc.NotCommitted, true, semelhttp.OutcomeNotDone}.check(t, ask(t, cc, charge, "100", "idempotency-key", "k"))
	if runs != 1 || l.entries(t) != 0 {
		t.Errorf("%d runs, %d entries", runs, l.entries(t))
	}
}

func TestUndoneTransactionsRunAgain(t *testing.T) {
	l := newLedger(t)
	runs := 0
	cc := serveGuard(t, &bank{charge: func(ctx context.Context, what string) (string, error) {
		runs++
		return fmt.Sprint("run ", runs), enter(ctx, what, nil)
	}}, transactional(), l.guard).dial(t)
	l.store.next.Store(2)
	if a := ask(t, cc, charge, "100", "idempotency-key", "k"); a.text != "run 3" || a.replayed() || l.entries(t) != 1 {
		t.Errorf("got %+v, %d entries", a, l.entries(t))
	}
	l.store.next.Store(100)
	want{codes.Unavailable, semelgrpc.NotCommitted, true, semelhttp.OutcomeNotDone}.check(t, ask(t, cc, charge, "100", "idempotency-key", "other"))
	l.store.next.Store(0)
	if l.entries(t) != 1 || runs != 3+6 {
		t.Errorf("%d entries, %d runs", l.entries(t), runs)
	}
	if a := ask(t, cc, charge, "100", "idempotency-key", "k"); a.text != "run 3" || !a.replayed() {
		t.Errorf("got %+v", a)
	}
}

// TestAVictimRunsAgain: the handler got the error of a deadlock and passes it on.
func TestAVictimRunsAgain(t *testing.T) {
	l := newLedger(t)
	runs, victims := 0, 2
	cc := serveGuard(t, &bank{charge: func(ctx context.Context, what string) (string, error) {
		runs++
		if err := enter(ctx, what, nil); err != nil {
			return "", err
		}
		if runs <= victims {
			return "", status.Error(codes.Internal, "deadlock detected")
		}
		return fmt.Sprint("run ", runs), nil
	}}, transactional(), l.guard).dial(t)
	l.store.statements.Store(2)
	if a := ask(t, cc, charge, "100", "idempotency-key", "k"); a.text != "run 3" || l.entries(t) != 1 {
		t.Errorf("got %+v, %d entries", a, l.entries(t))
	}
	runs, victims = 0, 100
	l.store.statements.Store(100)
	want{codes.Unavailable, semelgrpc.NotCommitted, true, semelhttp.OutcomeNotDone}.check(t, ask(t, cc, charge, "100", "idempotency-key", "other"))
	if runs != 6 || l.entries(t) != 1 {
		t.Errorf("%d runs, %d entries", runs, l.entries(t))
	}
}
