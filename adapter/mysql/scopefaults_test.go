package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/semelhttp"
)

// Error 1205 undoes the statement and leaves the transaction open: an operation
// that goes on after it commits nothing.
func TestFieldBug30_ScopeLockWaitSwallowed(t *testing.T) {
	for name, level := range levels() {
		t.Run(name, func(t *testing.T) {
			for _, optimistic := range []bool{false, true} {
				s := newShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Optimistic: optimistic}})
				execute(t, s.plain, "CREATE TABLE stock (id INT PRIMARY KEY, n INT NOT NULL)")
				execute(t, s.plain, "INSERT INTO stock VALUES (1, 1)")
				lock, err := s.plain.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Rollback()
				execute(t, lock, "UPDATE stock SET n=2 WHERE id=1")
				before := s.lines()
				_, err = s.do("k", order(text("SET SESSION innodb_lock_wait_timeout=1"), func(ctx context.Context, tx *sql.Tx) error {
					var coded *client.MySQLError
					if err := text("UPDATE stock SET n=n-1 WHERE id=1")(ctx, tx); !errors.As(err, &coded) || coded.Number != 1205 {
						t.Errorf("a row that is locked: got %v, want 1205", err)
					}
					return nil
				}))
				if !errors.Is(err, semel.ErrNotDone) || !strings.Contains(err.Error(), "1205") {
					t.Errorf("optimistic %t: got %v, want that nothing was done, and why", optimistic, err)
				}
				if r := s.held("k"); r.Held() || s.orders() != 0 || s.lines() != before {
					t.Errorf("optimistic %t: held %v, %d orders, %d lines of the journal; want nothing", optimistic, r.State, s.orders(), s.lines()-before)
				}
			}
		})
	}
}

// A unique violation is the answer "taken", not an outage: a row that nobody
// could see before it was met.
func TestFieldBug20_ScopeTakenMeanwhile(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{LockWait: 20 * time.Second})
	if _, err := s.do("k", order()); err != nil {
		t.Fatal(err)
	}
	execute(t, s.plain, "CREATE TABLE kept AS SELECT * FROM semel_record WHERE state=2")
	execute(t, s.plain, "DELETE FROM semel_record WHERE state=2")
	first, err := s.plain.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Rollback()
	digest := semel.Key{Scope: "tenant", ID: "k"}.Digest(nil)
	execute(t, first, fmt.Sprintf("SELECT 1 FROM semel_record WHERE digest=x'%x' FOR UPDATE", digest[:])) // locks the gap
	s.wire.reset()
	type outcome struct {
		a   semel.Answer
		err error
	}
	later := make(chan outcome)
	go func() {
		a, err := s.do("k", order())
		later <- outcome{a, err}
	}()
	blocked(t, s.plain, 1)
	execute(t, first, putBack)
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	if o := <-later; o.err != nil || !o.a.Replayed || string(o.a.Data) != "ordered" {
		t.Errorf("got %+v, %v; want the answer replayed", o.a, o.err)
	}
	if got, _ := s.wire.counts(); got != 2 {
		t.Errorf("%d round trips, want two: the claim, and what it met", got)
	}
}

// The reader at REPEATABLE READ does not see the row that it has just met: a
// caller's own transaction that has read before the duplicate was committed.
func TestFieldBug30_WithinReadsWhatItMet(t *testing.T) {
	for name, level := range levels() {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, mysql.ScopeOptions{})
			tx, err := s.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			if _, err := tx.Exec("SELECT COUNT(*) FROM orders"); err != nil { // its view is of now
				t.Fatal(err)
			}
			if _, err := s.do("k", func(context.Context, *sql.Tx) (semel.Result, error) {
				return semel.Result{Code: 201, Data: []byte("ordered")}, nil
			}); err != nil {
				t.Fatal(err)
			}
			a, err := s.within(tx, "k", func(context.Context) (semel.Result, error) {
				t.Error("a duplicate was executed")
				return semel.Result{}, nil
			})
			if err != nil || !a.Replayed || string(a.Data) != "ordered" {
				t.Errorf("got %+v, %v; want the answer replayed", a, err)
			}
		})
	}
}

// TestWithinAfterScope: a connection that a scope has had is good for a caller's
// own transaction.
func TestWithinAfterScope(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{})
	s.db.SetMaxOpenConns(1)
	for i, before := range []operation{order(), order(text("INSERT INTO nowhere VALUES (1)"))} {
		_, _ = s.do(fmt.Sprint("before ", i), before)
		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("k", i)
		_, err = s.within(tx, id, func(ctx context.Context) (semel.Result, error) { return order()(ctx, tx) })
		if err = errors.Join(err, tx.Commit()); err != nil || s.held(id).State != semel.Done {
			t.Errorf("after operation %d: %v, and %v is held", i, err, s.held(id).State)
		}
	}
}

// routines are what an operation may call that ends its transaction unseen.
func routines(t *testing.T, s *shop) {
	t.Helper()
	execute(t, s.plain, "CREATE TABLE stock (id INT PRIMARY KEY, n INT NOT NULL)")
	execute(t, s.plain, "INSERT INTO stock VALUES (1, 0), (2, 0)")
	for _, query := range []string{
		"CREATE PROCEDURE defines() BEGIN CREATE TABLE mine (n INT); DROP TABLE mine; END",
		"CREATE PROCEDURE undoes() ROLLBACK",
		"CREATE PROCEDURE goes_on() BEGIN DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;" +
			" UPDATE stock SET n=n+1 WHERE id=2; INSERT INTO orders (what) VALUES ('after'); END",
	} {
		execute(t, s.plain, query)
	}
}

// TestScopeTorn: what a procedure has committed is not run again, and not told
// as done either.
func TestScopeTorn(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		s := newShop(t, mysql.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		routines(t, s)
		_, err := s.do("k", order(text("CALL defines()"), text("INSERT INTO orders (what) VALUES ('after')")))
		if !errors.Is(err, semel.ErrInDoubt) {
			t.Errorf("optimistic %t: got %v, want that nobody knows", optimistic, err)
		}
		for range 2 {
			if _, err := s.do("k", order()); !errors.Is(err, semel.ErrInDoubt) {
				t.Errorf("optimistic %t, asked again: got %v, want that nobody knows", optimistic, err)
			}
		}
		if n := s.orders(); n != 1 {
			t.Errorf("optimistic %t: %d orders, want the one from before the procedure", optimistic, n)
		}
		// A person settles it.
		digest := s.scope.Guard().Digest(semel.Key{Scope: "tenant", ID: "k"})
		settled := semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte("it is there")}, Who: "a person", Why: "looked"}
		policy := s.scope.Policy()
		if _, err := s.scope.Guard().Resolve(t.Context(), digest, settled, &policy); err != nil {
			t.Fatal(err)
		}
		if a, err := s.do("k", order()); err != nil || string(a.Data) != "it is there" {
			t.Errorf("settled: got %+v, %v", a, err)
		}
		// A procedure that rolls back leaves nothing of what came before it, so the
		// operation is begun again, and in the end told that nothing was done.
		// Optimistic, there is nothing that tells it from one that commits.
		want := map[bool]error{false: semel.ErrNotDone, true: semel.ErrInDoubt}[optimistic]
		if _, err = s.do("r", order(text("CALL undoes()"))); !errors.Is(err, want) {
			t.Errorf("optimistic %t: a procedure that rolls back: got %v, want %v", optimistic, err, want)
		}
		if n := s.orders(); n != 1 {
			t.Errorf("optimistic %t: %d orders after a procedure that rolls back, want 1", optimistic, n)
		}
	}
}

// TestScopeDeadlockInProcedure: a deadlock ends the whole transaction, and a
// procedure goes on without telling: nothing of it may commit by itself.
func TestScopeDeadlockInProcedure(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		s := newShop(t, mysql.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		routines(t, s)
		var runs atomic.Int64
		a, err := s.do("k", func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
			if runs.Add(1) > 1 {
				return order()(ctx, tx)
			}
			other, err := s.plain.BeginTx(ctx, nil)
			if err != nil {
				return semel.Result{}, err
			}
			defer other.Rollback()
			for i := range 100 {
				execute(t, other, "INSERT INTO orders (what) VALUES (?)", fmt.Sprint("other ", i))
			}
			execute(t, other, "UPDATE stock SET n=n+1 WHERE id=2")
			if err := text("UPDATE stock SET n=n+1 WHERE id=1")(ctx, tx); err != nil {
				return semel.Result{}, err
			}
			done := make(chan error, 1)
			go func() {
				_, err := other.Exec("UPDATE stock SET n=n+1 WHERE id=1")
				done <- err
			}()
			err = text("CALL goes_on()")(ctx, tx)
			if met := <-done; met != nil {
				t.Errorf("the other was the victim: %v", met)
			}
			return semel.Result{Code: 201, Data: []byte("wrong")}, err
		})
		if n := number(t, s.plain, "SELECT COUNT(*) FROM orders WHERE what='after'"); n != 0 {
			t.Errorf("optimistic %t: %d rows were committed after the deadlock", optimistic, n)
		}
		if optimistic { // from here it cannot be told from a commit
			if !errors.Is(err, semel.ErrInDoubt) {
				t.Errorf("optimistic: got %+v, %v; want that nobody knows", a, err)
			}
			continue
		}
		if err != nil || string(a.Data) != "ordered" || runs.Load() != 2 || s.orders() != 1 {
			t.Errorf("got %+v, %v after %d runs, %d orders; want the second run's", a, err, runs.Load(), s.orders())
		}
	}
}

// lives has the key live once, elsewhere, and gives the last version of that.
func (s *shop) lives(elsewhere *mysql.Store, id string) semel.Version {
	s.Helper()
	next := claim(id)
	next.Key = semel.Key{Scope: "tenant", ID: id}
	next.Digest = next.Key.Digest(nil)
	for range 5 {
		next = swap(s, elsewhere, next)
	}
	next = completion(next, "first life")
	next.TTL, next.Replay = time.Microsecond, time.Microsecond
	last := swap(s, elsewhere, next).Version
	waitFor(s, "the record swept", func() bool {
		n, err := elsewhere.Sweep(context.Background(), 10)
		return err == nil && n > 0
	})
	return last
}

// TestScopeVersions: a key that was deleted comes again above all that it had,
// though the scope learned of that after its operation, or its transaction, began.
func TestScopeVersions(t *testing.T) {
	look := text("SELECT COUNT(*) FROM semel_store")
	for name, level := range levels() {
		for _, kind := range []string{"claim", "optimistic", "within"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := newShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Optimistic: kind == "optimistic"}})
				elsewhere := connect(t, s.url, mysql.Options{})
				defer elsewhere.Close()
				swap(t, s.store, claim("the epoch is known"))
				var last semel.Version
				live := func(ctx context.Context, tx *sql.Tx) error {
					if level != sql.LevelSerializable { // there looking would lock what life writes
						if err := look(ctx, tx); err != nil {
							return err
						}
					}
					if last.IsZero() {
						last = s.lives(elsewhere, "k")
					}
					return nil
				}
				var err error
				switch kind {
				case "claim":
					last = s.lives(elsewhere, "k")
					_, err = s.do("k", order())
				case "optimistic":
					_, err = s.do("k", order(live))
				case "within":
					var tx *sql.Tx
					if tx, err = s.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level}); err != nil {
						t.Fatal(err)
					}
					err = live(t.Context(), tx)
					_, within := s.within(tx, "k", func(ctx context.Context) (semel.Result, error) { return order()(ctx, tx) })
					err = errors.Join(err, within, tx.Commit())
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := s.held("k").Version; got.Compare(last) <= 0 {
					t.Errorf("the key's versions reached %v, and it comes again at %v", last, got)
				}
			})
		}
	}
}

// within asks for a key in a transaction of the caller's own.
func (s *shop) within(tx *sql.Tx, id string, fn func(ctx context.Context) (semel.Result, error)) (semel.Answer, error) {
	policy := s.scope.Policy()
	ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: id}, Fingerprint: semel.FingerprintOf([]byte(id)), Policy: &policy}
	return s.scope.Guard().Within(context.Background(), mysql.In(s.store, tx), ask, fn)
}

// TestScopeHoldsUpNobody: while an operation runs, records are swept, stores
// are opened, and a duplicate is answered without waiting for its row.
func TestScopeHoldsUpNobody(t *testing.T) {
	for name, level := range levels() {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}})
			another := s.open(mysql.ScopeOptions{Tx: sql.TxOptions{Isolation: level}, Policy: semel.Policy{Wait: -1}})
			_, err := s.do("k", order(func(ctx context.Context, _ *sql.Tx) error {
				next := completion(swap(t, s.store, claim("short")), "receipt")
				next.TTL, next.Replay = time.Microsecond, time.Microsecond
				swap(t, s.store, next)
				if n, err := s.store.Sweep(ctx, 10); err != nil || n == 0 {
					t.Errorf("swept %d, %v", n, err)
				}
				const waits = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='INNODB_ROW_LOCK_WAITS'"
				before := number(t, s.plain, waits)
				if _, err := another.Do(context.Background(), semel.Key{Scope: "tenant", ID: "k"}, semel.FingerprintOf([]byte("k")), order()); !errors.Is(err, semel.ErrInProgress) {
					t.Errorf("a duplicate of another process: got %v, want that it is in progress", err)
				}
				if after := number(t, s.plain, waits); after != before {
					t.Errorf("the duplicate waited for %d locks", after-before)
				}
				other, err := mysql.Open(ctx, s.url, mysql.Options{})
				if err != nil {
					return err
				}
				swap(t, other, claim("at the same time"))
				return other.Close()
			}))
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestScopeConnectionKilled: an operation whose connection dies leaves nothing,
// and its key is free at once.
func TestScopeConnectionKilled(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{})
	kill := func(ctx context.Context, tx *sql.Tx) error {
		var id int
		if err := tx.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			return err
		}
		_, err := s.plain.Exec(fmt.Sprint("KILL CONNECTION ", id))
		return err
	}
	var runs atomic.Int64
	if a, err := s.do("k", order(func(ctx context.Context, tx *sql.Tx) error {
		if runs.Add(1) > 1 {
			return nil
		}
		return kill(ctx, tx)
	})); err != nil || a.Replayed || runs.Load() != 2 {
		// The COMMIT finds no connection, so the key is taken again, and is free.
		t.Errorf("got %+v, %v after %d runs; want a second one", a, err, runs.Load())
	}
	if a, err := s.do("k", order()); err != nil {
		t.Errorf("afterwards: %+v, %v", a, err)
	}
	if n := s.orders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

// TestScopeHandler: a handler's answer commits with its effect.
func TestScopeHandler(t *testing.T) {
	s := newShop(t, mysql.ScopeOptions{})
	h, err := semelhttp.NewHandler(s.scope.Guard(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tx, ok := mysql.TxFrom(r.Context())
		if !ok {
			t.Error("no transaction")
		}
		if _, err := tx.ExecContext(r.Context(), "INSERT INTO orders (what) VALUES ('tea')"); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/fails" {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("ordered"))
	}), semelhttp.Options{Policy: s.scope.Policy(), Scope: semelhttp.HeaderScope("Authorization"), RequireKey: true})
	if err != nil {
		t.Fatal(err)
	}
	post := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("tea"))
		r.Header.Set("Idempotency-Key", `"k"`)
		r.Header.Set("Authorization", "me")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for i := range 2 {
		if w := post("/orders"); w.Code != http.StatusCreated || w.Body.String() != "ordered" || (w.Header().Get("Idempotent-Replayed") != "") != (i == 1) {
			t.Errorf("request %d: %d %q %v", i, w.Code, w.Body, w.Header())
		}
		if w := post("/fails"); w.Code != http.StatusInternalServerError || w.Header().Get("Idempotent-Replayed") != "" {
			t.Errorf("request %d that fails: %d %q", i, w.Code, w.Body)
		}
	}
	if n := s.orders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

// crowd asks scopes for keys until it is stopped, two at once for each key, and
// asks again until there is an answer.
type crowd struct {
	testing.TB
	scopes  []*mysql.Scope
	stop    chan struct{}
	done    atomic.Int64
	answers sync.Map // of each key, the first
	wg      sync.WaitGroup
}

func (c *crowd) work(worker int) {
	for i := 0; ; i++ {
		select {
		case <-c.stop:
			return
		default:
		}
		id := fmt.Sprintf("%d-%d", worker/2, i)
		answer := fmt.Sprint("receipt of ", worker)
		a, err := semel.Answer{}, error(nil)
		for range 1000 {
			a, err = c.scopes[worker%len(c.scopes)].Do(context.Background(), semel.Key{Scope: "tenant", ID: id}, semel.FingerprintOf([]byte(id)),
				func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
					_, err := tx.ExecContext(ctx, "INSERT INTO orders (what) VALUES (?)", id)
					return semel.Result{Code: 201, Data: []byte(answer)}, err
				})
			if err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			c.Errorf("%s: no answer in the end: %v", id, err)
			return
		}
		if first, met := c.answers.LoadOrStore(id, string(a.Data)); met && first != string(a.Data) {
			c.Errorf("%s was answered with %q and with %q", id, first, a.Data)
		}
		c.done.Add(1)
	}
}

// await waits for so many answers more.
func (c *crowd) await(n int64) {
	c.Helper()
	enough := c.done.Load() + n
	waitFor(c, "answers", func() bool { return c.done.Load() >= enough })
}

// TestScopeServerKilled kills the server while scopes of three processes ask for
// the same keys: every key ends with one effect and one answer.
func TestScopeServerKilled(t *testing.T) {
	m, url := private(t, nil)
	kills := 3
	if testing.Short() {
		kills = 1
	}
	plain := sqlDB(t, url)
	execute(t, plain, "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(100) NOT NULL)")
	c := &crowd{TB: t, stop: make(chan struct{})}
	for _, optimistic := range []bool{false, false, true} {
		store := connect(t, url, mysql.Options{})
		defer store.Close()
		db := appDB(t, url)
		db.SetMaxOpenConns(4)
		scope, err := mysql.NewScope(store, db, mysql.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		if err != nil {
			t.Fatal(err)
		}
		c.scopes = append(c.scopes, scope)
	}
	for worker := range 6 {
		c.wg.Go(func() { c.work(worker) })
	}
	for range kills {
		c.await(150)
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // starts are told apart by their second
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	c.await(150)
	close(c.stop)
	c.wg.Wait()
	keys := 0
	c.answers.Range(func(any, any) bool { keys++; return true })
	effects, distinct := number(t, plain, "SELECT COUNT(*) FROM orders"), number(t, plain, "SELECT COUNT(DISTINCT what) FROM orders")
	if effects != keys || distinct != keys {
		t.Errorf("%d keys were answered, and have %d effects, of %d keys", keys, effects, distinct)
	}
	if n := number(t, plain, "SELECT COUNT(*) FROM semel_record WHERE state=2"); n < keys {
		t.Errorf("%d records are done, of %d keys", n, keys)
	}
	t.Logf("%d keys over %d kills of the server: 0 twice, 0 lost, 0 with two answers (95 %%: <= %.4f)", keys, kills, 3/float64(keys))
}
