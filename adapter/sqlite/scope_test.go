package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// shop is a file with a store and the application's tables in it.
type shop struct {
	path  string
	store *sqlite.Store
	db    *sql.DB
	scope *sqlite.Scope
}

func newShop(t testing.TB, o sqlite.ScopeOptions) *shop {
	t.Helper()
	s := &shop{path: filepath.Join(t.TempDir(), "app.db")}
	var err error
	if s.store, err = sqlite.Open(s.path, sqlite.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	if s.db, err = sqlite.OpenDB(s.path + "?_pragma=foreign_keys(1)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	s.exec(t, "CREATE TABLE account (id INTEGER PRIMARY KEY); CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT UNIQUE, account INTEGER REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED)")
	if s.scope, err = sqlite.NewScope(s.store, s.db, o); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shop) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := s.db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (s *shop) orders(t testing.TB) (n int) {
	t.Helper()
	if err := s.db.QueryRow("SELECT count(*) FROM orders").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

var (
	orderKey = semel.Key{Scope: "tenant", ID: "order-1"}
	orderFP  = semel.FingerprintOf([]byte("order"))
)

// absent fails the test unless neither key nor effect nor journal is there.
func (s *shop) absent(t testing.TB) {
	t.Helper()
	digest := s.scope.Guard().Digest(orderKey)
	r, err := s.store.Get(context.Background(), digest)
	if err != nil || r.Record.Held() {
		t.Errorf("held: %+v, %v; want nothing", r.Record, err)
	}
	if h, err := s.store.History(context.Background(), digest); err != nil || len(h) > 0 {
		t.Errorf("history: %v, %v; want none", h, err)
	}
	if n := s.orders(t); n != 0 {
		t.Errorf("%d orders, want none", n)
	}
}

func order(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
	_, err := tx.ExecContext(ctx, "INSERT INTO orders (what) VALUES ('tea')")
	return semel.Result{Code: 201, Data: []byte("ordered")}, err
}

func TestScopeOnce(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		s := newShop(t, sqlite.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		for i := range 3 {
			a, err := s.scope.Do(context.Background(), orderKey, orderFP, order)
			if err != nil || a.Replayed != (i > 0) || string(a.Data) != "ordered" {
				t.Fatalf("optimistic %v, call %d: %+v, %v", optimistic, i, a, err)
			}
		}
		if n := s.orders(t); n != 1 {
			t.Errorf("%d orders, want 1", n)
		}
		h, err := s.store.History(context.Background(), s.scope.Guard().Digest(orderKey))
		if want := 2; err != nil || !optimistic && len(h) != want || optimistic && len(h) != 1 {
			t.Errorf("optimistic %v: %d lines of the journal, %v", optimistic, len(h), err)
		}
		if _, err := s.scope.Do(context.Background(), orderKey, semel.FingerprintOf(nil), order); !errors.Is(err, semel.ErrMismatch) {
			t.Errorf("another payload: %v", err)
		}
		if err := s.store.Check(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

type operation = func(ctx context.Context, tx *sql.Tx) (semel.Result, error)

// after takes an order and does something more.
func after(do func(ctx context.Context, tx *sql.Tx) error) operation {
	return func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
		if r, err := order(ctx, tx); err != nil {
			return r, err
		}
		return semel.Result{Code: 201}, do(ctx, tx)
	}
}

// fails are operations that come to nothing, and what their errors have to say.
func fails() map[string]struct {
	fn   operation
	want string
} {
	mine := errors.New("mine")
	swallow := func(query string) operation {
		return after(func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, query)
			_, _ = tx.ExecContext(ctx, "INSERT INTO orders (what) VALUES ('after')")
			return nil
		})
	}
	return map[string]struct {
		fn   operation
		want string
	}{
		"an error":                 {after(func(context.Context, *sql.Tx) error { return mine }), "mine"},
		"a swallowed constraint":   {swallow("INSERT INTO orders (what) VALUES ('tea')"), "UNIQUE constraint failed"},
		"a constraint that undoes": {swallow("INSERT OR ROLLBACK INTO orders (what) VALUES ('tea')"), "UNIQUE constraint failed"},
		"a swallowed syntax error": {swallow("INSRT"), "syntax error"},
		"COMMIT as text":           {swallow("COMMIT"), "COMMIT would end the transaction"},
		"COMMIT behind another":    {swallow("SELECT 1; /**/ end"), "end would end the transaction"},
		"ROLLBACK as text":         {swallow("ROLLBACK"), "ROLLBACK would end the transaction"},
		"a commit":                 {after(func(_ context.Context, tx *sql.Tx) error { _ = tx.Commit(); return nil }), "must not commit its transaction"},
		"a rollback":               {after(func(_ context.Context, tx *sql.Tx) error { _ = tx.Rollback(); return nil }), "must not roll back its transaction"},
		"a deferred constraint":    {swallow("UPDATE orders SET account = 7"), "FOREIGN KEY constraint failed"},
		"a statement prepared": {after(func(ctx context.Context, tx *sql.Tx) error {
			p, err := tx.PrepareContext(ctx, "INSERT INTO orders (what) VALUES (?)")
			if err == nil {
				_, _ = p.ExecContext(ctx, "tea")
			}
			return err
		}), "UNIQUE constraint failed"},
		"a query's row": {after(func(ctx context.Context, tx *sql.Tx) error {
			var n int
			_ = tx.QueryRowContext(ctx, "INSERT INTO orders (what) VALUES ('tea') RETURNING id").Scan(&n)
			return nil
		}), "UNIQUE constraint failed"},
		"a parameter of no kind": {after(func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, "INSERT INTO account VALUES (?)", struct{ id int }{1})
			return nil
		}), "unsupported type"},
		"a later row of a query": {after(func(ctx context.Context, tx *sql.Tx) error {
			rows, err := tx.QueryContext(ctx, "SELECT abs(x) FROM (SELECT 1 AS x UNION ALL SELECT -9223372036854775808)")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			_ = rows.Err()
			return nil
		}), "integer overflow"},
		"a context that ended": {after(func(ctx context.Context, tx *sql.Tx) error {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			_, _ = tx.ExecContext(ctx, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO account SELECT i FROM n")
			return nil
		}), "context deadline exceeded"},
		"rows left open, and an error": {after(func(ctx context.Context, tx *sql.Tx) error {
			rows, err := tx.QueryContext(ctx, "SELECT 1 UNION ALL SELECT 2") //nolint:sqlclosecheck // that is the case
			return errors.Join(mine, err, rows.Err())
		}), "mine"},
	}
}

func TestScopeUndone(t *testing.T) {
	for name, c := range fails() {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, sqlite.ScopeOptions{})
			_, err := s.scope.Do(context.Background(), orderKey, orderFP, c.fn)
			if !errors.Is(err, semel.ErrNotDone) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q and that nothing was done", err, c.want)
			}
			s.absent(t)
			if a, err := s.scope.Do(context.Background(), orderKey, orderFP, order); err != nil || a.Replayed || s.orders(t) != 1 {
				t.Errorf("again: %+v, %v, %d orders", a, err, s.orders(t))
			}
		})
	}
	t.Run("a panic", func(t *testing.T) {
		s := newShop(t, sqlite.ScopeOptions{})
		func() {
			defer func() { _ = recover() }()
			_, _ = s.scope.Do(context.Background(), orderKey, orderFP, after(func(context.Context, *sql.Tx) error { panic("mine") }))
		}()
		s.absent(t)
	})
}

// TestScopeDone has operations that are strange, and right.
func TestScopeDone(t *testing.T) {
	for name, fn := range map[string]func(ctx context.Context, tx *sql.Tx) (semel.Result, error){
		"an error behind a savepoint": func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			for i, q := range []string{
				"SAVEPOINT a", "INSERT INTO orders (what) VALUES ('x')", "SAVEPOINT b", "INSERT INTO orders (what) VALUES ('x')", "ROLLBACK TO SAVEPOINT a",
				"RELEASE a", "INSERT INTO orders (what) VALUES ('tea')",
			} {
				if _, err := tx.ExecContext(ctx, q); (err != nil) != (i == 3) {
					return semel.Result{}, fmt.Errorf("%s: %w", q, err)
				}
			}
			return semel.Result{Code: 201}, nil
		},
		"rows left open": func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			rows, err := tx.QueryContext(ctx, "SELECT 1 UNION ALL SELECT 2") //nolint:sqlclosecheck // that is the case
			if err != nil || rows.Err() != nil {
				return semel.Result{}, err
			}
			return order(ctx, tx)
		},
		"a prepared statement": func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			p, err := tx.PrepareContext(ctx, "INSERT INTO orders (what) VALUES (?)")
			if err != nil {
				return semel.Result{}, err
			}
			_, err = p.ExecContext(ctx, "tea")
			return semel.Result{Code: 201}, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, sqlite.ScopeOptions{})
			if _, err := s.scope.Do(context.Background(), orderKey, orderFP, fn); err != nil {
				t.Fatal(err)
			}
			if a, err := s.scope.Do(context.Background(), orderKey, orderFP, fn); err != nil || !a.Replayed || s.orders(t) != 1 {
				t.Errorf("again: %+v, %v, %d orders", a, err, s.orders(t))
			}
		})
	}
}

func TestScopeRefused(t *testing.T) {
	s, other := newShop(t, sqlite.ScopeOptions{}), newShop(t, sqlite.ScopeOptions{})
	plain, err := sql.Open("sqlite", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for name, c := range map[string]struct {
		db   *sql.DB
		o    sqlite.ScopeOptions
		want string
	}{
		"another's driver":  {plain, sqlite.ScopeOptions{}, "open it with this package's OpenDB"},
		"another file":      {other.db, sqlite.ScopeOptions{}, "one transaction cannot be in both"},
		"no database":       {nil, sqlite.ScopeOptions{}, "needs a store and a *sql.DB"},
		"a level":           {s.db, sqlite.ScopeOptions{Tx: sql.TxOptions{Isolation: sql.LevelSnapshot}}, "Snapshot is none of SQLite's"},
		"read only":         {s.db, sqlite.ScopeOptions{Tx: sql.TxOptions{ReadOnly: true}}, "read only"},
		"an unsafe policy":  {s.db, sqlite.ScopeOptions{Policy: semel.Policy{Lease: 1}}, "too short"},
		"a policy's asking": {s.db, sqlite.ScopeOptions{Policy: semel.Policy{Name: "x", Resolve: func(context.Context, semel.Unresolved) (semel.Settlement, error) { panic("never") }}}, "leaves nothing in doubt"},
	} {
		if _, err := sqlite.NewScope(s.store, c.db, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, name := range []string{"", ":memory:", "file:x?mode=memory", "x?%zz"} {
		if _, err := sqlite.OpenDB(name); err == nil {
			t.Errorf("OpenDB(%q) was not refused", name)
		}
	}
}

// TestScopeBusy: another process' transaction holds the file.
func TestScopeBusy(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{LockWait: 20 * time.Millisecond, Policy: semel.Policy{Wait: 100 * time.Millisecond}})
	other, err := sqlite.OpenDB(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = s.scope.Do(context.Background(), orderKey, orderFP, order)
	if took := time.Since(start); !errors.Is(err, semel.ErrInProgress) || took > 3*time.Second {
		t.Errorf("%v after %v, want %v soon", err, took, semel.ErrInProgress)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.scope.Do(context.Background(), orderKey, orderFP, order); err != nil {
		t.Error(err)
	}
	// A duplicate of what is done waits for nobody.
	if tx, err = other.Begin(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if a, err := s.scope.Do(context.Background(), orderKey, orderFP, order); err != nil || !a.Replayed {
		t.Errorf("a duplicate beside another's transaction: %+v, %v", a, err)
	}
}

// within takes an order in a transaction of the caller's own.
func (s *shop) within(tx *sql.Tx, fn operation) (semel.Answer, error) {
	policy := s.scope.Policy()
	ask := semel.Ask{Key: orderKey, Fingerprint: orderFP, Policy: &policy}
	return s.scope.Guard().Within(context.Background(), sqlite.In(s.store, tx), ask, func(ctx context.Context) (semel.Result, error) { return fn(ctx, tx) })
}

func begin(t testing.TB, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestIn(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	// An error of the operation, and a caller who commits all the same.
	tx := begin(t, s.db)
	if _, err := s.within(tx, func(context.Context, *sql.Tx) (semel.Result, error) {
		return semel.Result{}, errors.New("mine")
	}); err == nil {
		t.Error("the operation's error is gone")
	}
	if err := tx.Commit(); err == nil || !strings.Contains(err.Error(), "roll back") {
		t.Errorf("commit of a key without its end: %v", err)
	}
	s.absent(t)
	// A statement that failed, and an operation that says nothing of it.
	tx = begin(t, s.db)
	if _, err := s.within(tx, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
		_, _ = tx.Exec("INSRT")
		return order(ctx, tx)
	}); err == nil {
		t.Error("a swallowed error was taken")
	}
	if err := tx.Commit(); err == nil {
		t.Error("a poisoned transaction was committed")
	}
	s.absent(t)
	// As it should be: an error from before that was taken back does not count.
	tx = begin(t, s.db)
	for _, q := range []string{"SAVEPOINT a", "INSRT", "ROLLBACK TO a"} {
		_, _ = tx.Exec(q)
	}
	if a, err := s.within(tx, order); err != nil || a.Replayed {
		t.Fatalf("%+v, %v", a, err)
	}
	_ = tx.Rollback()
	s.absent(t)
	for i := range 2 {
		tx = begin(t, s.db)
		if a, err := s.within(tx, order); err != nil || a.Replayed != (i > 0) {
			t.Fatalf("%+v, %v", a, err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.orders(t); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

func TestInRefused(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	tx := begin(t, s.db)
	if _, err := tx.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.within(tx, order); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("a transaction that SQL has ended: %v", err)
	}
	s.absent(t)
	_ = tx.Rollback()
	tx = begin(t, s.db)
	_ = tx.Rollback()
	if _, err := s.within(tx, order); !errors.Is(err, sql.ErrTxDone) {
		t.Errorf("an ended transaction: %v", err)
	}
	plain, err := sql.Open("sqlite", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	tx = begin(t, plain)
	if _, err := s.within(tx, order); err == nil || !strings.Contains(err.Error(), "OpenDB") {
		t.Errorf("a transaction of another's driver: %v", err)
	}
	_ = tx.Rollback()
	other := newShop(t, sqlite.ScopeOptions{})
	tx = begin(t, other.db)
	if _, err := s.within(tx, order); err == nil || !strings.Contains(err.Error(), "cannot be in both") {
		t.Errorf("a transaction of another file: %v", err)
	}
	_ = tx.Rollback()
	s.absent(t)
}

// TestScopeStatements: statements that the pool has prepared work in operations,
// and what fails in them counts. So does what a handler finds in its context.
func TestScopeStatements(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{})
	add, err := s.db.Prepare("INSERT INTO orders (what) VALUES (?)")
	if err != nil {
		t.Fatal(err)
	}
	defer add.Close()
	end, err := s.db.Prepare("COMMIT")
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	for i, c := range []struct {
		fn operation
		ok bool
	}{
		{func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			_, err := tx.StmtContext(ctx, end).ExecContext(ctx)
			if err == nil {
				t.Error("a prepared COMMIT was not refused")
			}
			return semel.Result{}, nil
		}, false},
		{func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			for range 2 {
				_, _ = tx.StmtContext(ctx, add).ExecContext(ctx, "tea")
			}
			return semel.Result{}, nil
		}, false},
		{func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			if in, ok := sqlite.TxFrom(ctx); !ok || in != tx {
				t.Error("the context has another transaction")
			}
			_, err := tx.StmtContext(ctx, add).ExecContext(ctx, "tea")
			return semel.Result{}, err
		}, true},
	} {
		if _, err := s.scope.Do(context.Background(), orderKey, orderFP, c.fn); (err == nil) != c.ok {
			t.Errorf("case %d: %v", i, err)
		}
	}
	if n := s.orders(t); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	if _, ok := sqlite.TxFrom(context.Background()); ok {
		t.Error("there is a transaction in no scope")
	}
}

// TestScopeBesideStore: the scope and the store's own writer, in one process and
// file, give no version twice, and the journal has every write (INVARIANTS S2, S16).
func TestScopeBesideStore(t *testing.T) {
	s := newShop(t, sqlite.ScopeOptions{Policy: semel.Policy{Wait: time.Minute}})
	guard := s.scope.Guard()
	p, err := semel.Policy{Wait: time.Minute}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	const each = 60
	errs := make(chan error, 4)
	for g := range 4 {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				key := semel.Key{Scope: "tenant", ID: fmt.Sprint(g, "-", i)}
				if g%2 == 0 {
					_, err = s.scope.Do(context.Background(), key, orderFP, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
						_, err := tx.ExecContext(ctx, "INSERT INTO orders (what) VALUES (?)", key.ID)
						return semel.Result{Code: 201}, err
					})
				} else {
					_, err = guard.Do(context.Background(), semel.Ask{Key: key, Fingerprint: orderFP, Policy: &p}, func(context.Context) (semel.Result, error) {
						return semel.Result{Code: 201}, nil
					})
				}
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	given := map[semel.Version]string{}
	for g := range 4 {
		for i := range each {
			id := fmt.Sprint(g, "-", i)
			h, err := s.store.History(context.Background(), guard.Digest(semel.Key{Scope: "tenant", ID: id}))
			if err != nil || len(h) != 2 || h[0].Record.State != semel.Pending || h[1].Record.State != semel.Done {
				t.Fatalf("%s: the journal has %v, %v", id, h, err)
			}
			for _, e := range h {
				if other, twice := given[e.Record.Version]; twice {
					t.Errorf("%v was given to %s and to %s", e.Record.Version, other, id)
				}
				given[e.Record.Version] = id
			}
		}
	}
	if n := s.orders(t); n != 2*each {
		t.Errorf("%d orders, want %d", n, 2*each)
	}
	if err := s.store.Check(context.Background()); err != nil {
		t.Error(err)
	}
}
