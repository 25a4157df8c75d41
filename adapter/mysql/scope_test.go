package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// shop is a database with a store and the application's tables in it.
type shop struct {
	testing.TB
	url   string
	store *mysql.Store
	db    *sql.DB // the application's
	plain *sql.DB // outside of everything
	scope *mysql.Scope
	wire  *proxy // in front of db
}

func newShop(t testing.TB, o mysql.ScopeOptions) *shop {
	t.Helper()
	s := &shop{TB: t, url: database(t, name())}
	s.store = connect(t, s.url, mysql.Options{})
	t.Cleanup(func() { _ = s.store.Close() })
	s.plain = sqlDB(t, s.url)
	execute(t, s.plain, "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(100) NOT NULL)")
	var through string
	s.wire, through = between(t, s.url)
	s.db = appDB(t, through)
	s.db.SetMaxOpenConns(10)
	s.scope = s.open(o)
	return s
}

func (s *shop) open(o mysql.ScopeOptions) *mysql.Scope {
	s.Helper()
	scope, err := mysql.NewScope(s.store, s.db, o)
	if err != nil {
		s.Fatal(err)
	}
	return scope
}

type operation = func(ctx context.Context, tx *sql.Tx) (semel.Result, error)

func (s *shop) do(id string, fn operation) (semel.Answer, error) {
	key := semel.Key{Scope: "tenant", ID: id}
	return s.scope.Do(context.Background(), key, semel.FingerprintOf([]byte(id)), fn)
}

func (s *shop) held(id string) semel.Record {
	s.Helper()
	r, err := s.store.Get(context.Background(), semel.Key{Scope: "tenant", ID: id}.Digest(nil))
	if err != nil {
		s.Fatal(err)
	}
	return r.Record
}

func (s *shop) orders() int {
	s.Helper()
	return number(s, s.plain, "SELECT COUNT(*) FROM orders")
}

func (s *shop) lines() int {
	s.Helper()
	return number(s, s.plain, "SELECT COUNT(*) FROM semel_journal WHERE digest<>''")
}

// order takes an order, and does something more.
func order(more ...func(ctx context.Context, tx *sql.Tx) error) operation {
	return func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (what) VALUES ('tea')"); err != nil {
			return semel.Result{}, err
		}
		for _, do := range more {
			if err := do(ctx, tx); err != nil {
				return semel.Result{}, err
			}
		}
		return semel.Result{Code: 201, Data: []byte("ordered")}, nil
	}
}

func text(query string) func(ctx context.Context, tx *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query)
		return err
	}
}

// settings are a session's that a scope changes for a while.
const settings = "SELECT CONCAT_WS(' ', @@autocommit, @@innodb_lock_wait_timeout, @@idle_transaction_timeout)"

func levels() map[string]sql.IsolationLevel {
	return map[string]sql.IsolationLevel{
		"READ COMMITTED": sql.LevelReadCommitted, "REPEATABLE READ": sql.LevelRepeatableRead, "SERIALIZABLE": sql.LevelSerializable,
	}
}

// TestScopeSession: the operation has the isolation that was asked for and the
// session's own lock wait, and after the transaction, however it ended, the session
// is what it was.
func TestScopeSession(t *testing.T) {
	for name, level := range levels() {
		t.Run(name, func(t *testing.T) {
			for _, optimistic := range []bool{false, true} {
				s := newShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Optimistic: optimistic, Wait: -1}})
				s.db.SetMaxOpenConns(1)
				execute(t, s.db, "SET SESSION innodb_lock_wait_timeout=7, idle_transaction_timeout=8")
				after := func(what string) {
					t.Helper()
					var got string
					if err := s.db.QueryRow(settings).Scan(&got); err != nil || got != "ON 7 8" {
						t.Errorf("after %s, optimistic %t: the session has %q, %v; want ON 7 8", what, optimistic, got, err)
					}
				}
				after("nothing")
				if _, err := s.do("k", order(s.looks(name))); err != nil {
					t.Fatal(err)
				}
				after("a commit")
				if a, err := s.do("k", order()); err != nil || !a.Replayed {
					t.Fatalf("a duplicate: %+v, %v", a, err)
				}
				after("a duplicate")
				mine := errors.New("mine")
				if _, err := s.do("e", order(func(context.Context, *sql.Tx) error { return mine })); !errors.Is(err, mine) {
					t.Fatal(err)
				}
				after("an error")
				if _, err := s.do("f", order(text("INSERT INTO nowhere VALUES (1)"))); err == nil {
					t.Fatal("no error")
				}
				after("a statement that failed")
				if !optimistic {
					other, err := mysql.NewScope(s.store, appDB(t, s.url), mysql.ScopeOptions{Policy: semel.Policy{Wait: -1}})
					if err != nil {
						t.Fatal(err)
					}
					_, err = other.Do(context.Background(), semel.Key{Scope: "tenant", ID: "b"}, semel.FingerprintOf([]byte("b")), func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
						if _, err := s.do("b", order()); !errors.Is(err, semel.ErrInProgress) {
							t.Errorf("a key that another holds: %v", err)
						}
						return semel.Result{}, nil
					})
					if err != nil {
						t.Fatal(err)
					}
					after("a key that another holds")
				}
			}
		})
	}
}

// looks checks the session inside of an operation.
func (s *shop) looks(isolation string) func(ctx context.Context, tx *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		var got, level string
		if err := tx.QueryRowContext(ctx, settings).Scan(&got); err != nil {
			return err
		}
		time.Sleep(150 * time.Millisecond) // the server reads innodb_trx afresh if nobody has looked for 100 ms
		err := tx.QueryRowContext(ctx, "SELECT trx_isolation_level FROM information_schema.innodb_trx WHERE trx_mysql_thread_id=CONNECTION_ID()").Scan(&level)
		if err != nil || level != isolation || got != "OFF 7 31" {
			s.Errorf("inside, the session has %q and isolation %q, %v; want OFF 7 31 and %q", got, level, err, isolation)
		}
		return nil
	}
}

// TestScopeRoundTrips counts commands on the application's connections: the
// README's figures. The operation's own INSERT is one.
func TestScopeRoundTrips(t *testing.T) {
	for name, level := range levels() {
		t.Run(name, func(t *testing.T) {
			for _, optimistic := range []bool{false, true} {
				s := newShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Optimistic: optimistic, Wait: -1}})
				s.db.SetMaxOpenConns(1)
				trips := func(what string, want int, do func()) {
					t.Helper()
					s.wire.reset()
					do()
					if got, _ := s.wire.counts(); got != want {
						t.Errorf("optimistic %t, %s: %d round trips, want %d", optimistic, what, got, want)
					}
				}
				one := map[bool]int{false: 1, true: 2}[optimistic]
				trips("an operation of one statement", 3, func() {
					if a, err := s.do("k", order()); err != nil || a.Replayed {
						t.Fatalf("%+v, %v", a, err)
					}
				})
				trips("a duplicate", one, func() {
					if a, err := s.do("k", order()); err != nil || !a.Replayed {
						t.Fatalf("%+v, %v", a, err)
					}
				})
				trips("an operation that fails", 3, func() {
					if _, err := s.do("e", order(func(context.Context, *sql.Tx) error { return errors.New("mine") })); err == nil {
						t.Fatal("no error")
					}
				})
				trips("BEGIN; INSERT; COMMIT by hand", 3, func() {
					tx, err := s.db.Begin()
					if err != nil {
						t.Fatal(err)
					}
					execute(t, tx, "INSERT INTO orders (what) VALUES ('tea')")
					if err := tx.Commit(); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

// A text of several statements is not for the application's connections, nor a
// statement in a string that comes from outside.
func TestScopeOneStatement(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{})
	for _, query := range []string{"INSERT INTO orders (what) VALUES ('a'); DELETE FROM orders", "INSERT INTO orders (what) VALUES ('a');/**/DELETE FROM orders"} {
		var coded *client.MySQLError
		if _, err := s.db.Exec(query); !errors.As(err, &coded) || coded.Number != 1064 {
			t.Errorf("%s: got %v, want a syntax error", query, err)
		}
		if _, err := s.do("k", order(text(query))); !errors.As(err, &coded) || coded.Number != 1064 {
			t.Errorf("in a scope, %s: got %v, want a syntax error", query, err)
		}
	}
	if n := s.orders(); n != 0 {
		t.Errorf("%d orders, want none", n)
	}
	for _, query := range []string{"INSERT INTO orders (what) VALUES ('a;b')", "INSERT INTO orders (what) VALUES ('c') ; \n"} {
		execute(t, s.db, query)
	}
	if n := number(t, s.db, "SELECT COUNT(*) FROM orders WHERE what IN ('a;b','c')"); n != 2 {
		t.Errorf("%d of 2 statements with a semicolon in them", n)
	}
}

// configured is a pool of the application's whose sessions have these settings.
func (s *shop) configured(params map[string]string) *sql.DB {
	s.Helper()
	user, rest, _ := strings.Cut(strings.TrimPrefix(s.url, "mysql://"), "@")
	c := client.NewConfig()
	c.User, c.Passwd, _ = strings.Cut(user, ":")
	c.Addr, c.DBName, _ = strings.Cut(rest, "/")
	c.Net, c.Params = "tcp", params
	db, err := mysql.OpenConfig(c)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = db.Close() })
	return db
}

// TestScopeRefusals are scopes that cannot be trusted, and what the errors say.
func TestScopeRefusals(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{})
	readOnly := connect(t, s.url, mysql.Options{ReadOnly: true})
	t.Cleanup(func() { _ = readOnly.Close() })
	for name, c := range map[string]struct {
		store *mysql.Store
		db    *sql.DB
		o     mysql.ScopeOptions
		want  string
	}{
		"no store":               {nil, s.db, mysql.ScopeOptions{}, "needs a store"},
		"no database":            {s.store, nil, mysql.ScopeOptions{}, "needs a store and a *sql.DB"},
		"another driver":         {s.store, s.plain, mysql.ScopeOptions{}, "OpenDB"},
		"another database":       {s.store, appDB(t, database(t, name())), mysql.ScopeOptions{}, "open both with the same"},
		"a store to read":        {readOnly, s.db, mysql.ScopeOptions{}, "without ReadOnly"},
		"a read-only scope":      {s.store, s.db, mysql.ScopeOptions{Tx: sql.TxOptions{ReadOnly: true}}, "cannot be read only"},
		"snapshot":               {s.store, s.db, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: sql.LevelSnapshot}}, "Snapshot"},
		"read uncommitted":       {s.store, s.db, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: sql.LevelReadUncommitted}}, "read committed, repeatable read and serializable"},
		"dirty reads by default": {s.store, s.configured(map[string]string{"tx_isolation": "'READ-UNCOMMITTED'"}), mysql.ScopeOptions{}, "READ UNCOMMITTED"},
		"autocommit off":         {s.store, s.configured(map[string]string{"autocommit": "0"}), mysql.ScopeOptions{}, "autocommit off"},
		"a policy":               {s.store, s.db, mysql.ScopeOptions{Policy: semel.Policy{Lease: 1}}, "too short"},
	} {
		scope, err := mysql.NewScope(c.store, c.db, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want an error with %q", name, scope, err, c.want)
		}
	}
	for _, url := range []string{"", "postgres://u@h/d", "mysql://h/d"} {
		if _, err := mysql.OpenDB(url); err == nil {
			t.Errorf("OpenDB(%q): no error", url)
		}
	}
	if _, err := mysql.OpenConfig(nil); err == nil {
		t.Error("OpenConfig(nil): no error")
	}
}

// TestScopeModes: the application's modes change no record.
func TestScopeModes(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{})
	for i, mode := range []string{"''", "'ANSI,TRADITIONAL,ONLY_FULL_GROUP_BY,NO_BACKSLASH_ESCAPES,NO_UNSIGNED_SUBTRACTION,PAD_CHAR_TO_FULL_LENGTH'"} {
		for j, optimistic := range []bool{false, true} {
			s.db = s.configured(map[string]string{"sql_mode": mode, "time_zone": "'+05:00'"})
			s.scope = s.open(mysql.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
			id := fmt.Sprint("k", i, j)
			for i := range 2 {
				if a, err := s.do(id, order(text("USE information_schema"))); err != nil || a.Replayed != (i == 1) {
					t.Errorf("sql_mode %s, call %d: %+v, %v", mode, i, a, err)
				}
			}
			if r := s.held(id); r.State != semel.Done || string(r.Result) != "ordered" {
				t.Errorf("sql_mode %s: held %v %q", mode, r.State, r.Result)
			}
		}
	}
}
