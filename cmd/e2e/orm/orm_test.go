// Package orm runs code in the shape that people have it, GORM's and what sqlc
// generates, inside transaction scopes on PostgreSQL and MariaDB: what it writes and
// the record are one commit, and an error that it keeps to itself is not committed.
// It is apart from the adapters so that whoever uses those does not get an object
// mapper. It holds tests only.
package orm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/internal/server"
)

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

// book is what an operation does in its transaction, in the manner of one library.
type book interface {
	// add writes an order and reads it back in the same transaction. Items are unique.
	add(ctx context.Context, item string) (int64, error)
	// try runs fn behind a savepoint, to which an error of fn goes back.
	try(ctx context.Context, fn func(book) error) error
	// raise adds to an order's amount.
	raise(ctx context.Context, item string, by int) error
	// commit ends the transaction, which the operation must not.
	commit() error
}

// operation is what a test does in a scope.
type operation = func(ctx context.Context, b book) (semel.Result, error)

// shop is a database with orders in it, a scope, and a way to write.
type shop struct {
	do    func(ctx context.Context, key semel.Key, fp semel.Fingerprint, op operation) (semel.Answer, error)
	guard *semel.Guard
	store semel.Store
	// count gives a number from a connection of its own.
	count func(t *testing.T, query string) int
	// empty removes all orders.
	empty func(ctx context.Context) error
	scope string // of keys
}

// shops are the manners and databases that are tried.
var shops = []struct {
	name string
	open func(t *testing.T) *shop
}{
	{"sqlc/pgx", pgxShop},
	{"sqlc/postgres", sqlcPostgres},
	{"sqlc/postgres-prepared", preparedPostgres},
	{"sqlc/mariadb", sqlcMariaDB},
	{"sqlc/mariadb-prepared", preparedMariaDB},
	{"gorm/postgres", gormPostgres},
	{"gorm/mariadb", gormMariaDB},
	{"gorm/mariadb-in-place", gormInPlace},
	{"gorm/mariadb-prepared", gormPrepared},
}

// behaviours are what holds in each of them.
var behaviours = []struct {
	name string
	test func(t *testing.T, s *shop)
}{
	{"EffectAndRecordAreOneCommit", effectAndRecordAreOneCommit},
	{"HerdIsOneEffect", herdIsOneEffect},
	{"ErrorUndoesAll", errorUndoesAll},
	{"PanicUndoesAll", panicUndoesAll},
	{"ErrorThatIsSwallowedIsNotCommitted", errorThatIsSwallowedIsNotCommitted},
	{"SavepointMendsAnError", savepointMendsAnError},
	{"CommitOfTheOperationsOwnIsRefused", commitOfTheOperationsOwnIsRefused},
	{"DeadlockRunsAgain", deadlockRunsAgain},
}

func TestScopes(t *testing.T) {
	for _, made := range shops {
		t.Run(made.name, func(t *testing.T) {
			s := made.open(t)
			for _, b := range behaviours {
				s.scope = b.name // each has keys of its own
				fatal(t, s.empty(t.Context()))
				t.Run(b.name, func(t *testing.T) { b.test(t, s) })
			}
		})
	}
}

func (s *shop) key(id string) semel.Key { return semel.Key{Scope: s.scope, ID: id} }

func (s *shop) run(t *testing.T, id string, op operation) (semel.Answer, error) {
	t.Helper()
	return s.do(t.Context(), s.key(id), semel.FingerprintOf([]byte(id)), op)
}

// check looks for the orders that are there, and whether the key is.
func (s *shop) check(t *testing.T, id string, orders int, done bool) {
	t.Helper()
	if n := s.count(t, "SELECT count(*) FROM orders"); n != orders {
		t.Errorf("%d orders; want %d", n, orders)
	}
	r, err := s.store.Get(t.Context(), s.guard.Digest(s.key(id)))
	if err != nil {
		t.Fatal(err)
	}
	if r.Record.Held() != done || done && r.Record.State != semel.Done {
		t.Errorf("the record of %q: %+v; want it there, and done: %v", id, r.Record, done)
	}
}

// order gives an operation that adds one order.
func order(item string) operation {
	return func(ctx context.Context, b book) (semel.Result, error) {
		id, err := b.add(ctx, item)
		return semel.Result{Code: 201, Data: strconv.AppendInt(nil, id, 10)}, err
	}
}

func effectAndRecordAreOneCommit(t *testing.T, s *shop) {
	first, err := s.run(t, "one", order("lamp"))
	if err != nil || first.Replayed || string(first.Data) != "1" {
		t.Fatalf("%+v, %v", first, err)
	}
	s.check(t, "one", 1, true)
	again, err := s.run(t, "one", order("chair"))
	if err != nil || !again.Replayed || string(again.Data) != "1" || again.Code != 201 {
		t.Errorf("a duplicate: %+v, %v", again, err)
	}
	s.check(t, "one", 1, true)
}

func herdIsOneEffect(t *testing.T, s *shop) {
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			got, err := s.do(t.Context(), s.key("herd"), semel.Fingerprint{}, order("lamp"))
			if err != nil || string(got.Data) != "1" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	s.check(t, "herd", 1, true)
}

func errorUndoesAll(t *testing.T, s *shop) {
	sold := errors.New("sold out")
	_, err := s.run(t, "one", func(ctx context.Context, b book) (semel.Result, error) {
		if _, err := b.add(ctx, "lamp"); err != nil {
			return semel.Result{}, err
		}
		return semel.Result{}, sold
	})
	if !errors.Is(err, sold) || !errors.Is(err, semel.ErrNotDone) {
		t.Errorf("%v; want the operation's error, and that nothing was done", err)
	}
	s.check(t, "one", 0, false)
	if _, err := s.run(t, "one", order("lamp")); err != nil {
		t.Error(err)
	}
	s.check(t, "one", 1, true)
}

func panicUndoesAll(t *testing.T, s *shop) {
	func() {
		defer func() {
			if v := recover(); v != "out of paper" {
				t.Errorf("%v; want the operation's panic", v)
			}
		}()
		_, err := s.run(t, "one", func(ctx context.Context, b book) (semel.Result, error) {
			if _, err := b.add(ctx, "lamp"); err != nil {
				return semel.Result{}, err
			}
			panic("out of paper")
		})
		t.Error("no panic, but ", err)
	}()
	s.check(t, "one", 0, false)
}

func errorThatIsSwallowedIsNotCommitted(t *testing.T, s *shop) {
	if _, err := s.run(t, "before", order("lamp")); err != nil {
		t.Fatal(err)
	}
	_, err := s.run(t, "one", func(ctx context.Context, b book) (semel.Result, error) {
		if _, err := b.add(ctx, "chair"); err != nil {
			return semel.Result{}, err
		}
		if _, err := b.add(ctx, "lamp"); err == nil {
			t.Error("two lamps")
		}
		return semel.Result{Code: 201}, nil
	})
	if !errors.Is(err, semel.ErrNotDone) || !strings.Contains(strings.ToLower(err.Error()), "duplicate") {
		t.Errorf("%v; want that nothing was done, and the statement's error", err)
	}
	s.check(t, "one", 1, false)
}

func savepointMendsAnError(t *testing.T, s *shop) {
	if _, err := s.run(t, "before", order("lamp")); err != nil {
		t.Fatal(err)
	}
	_, err := s.run(t, "one", func(ctx context.Context, b book) (semel.Result, error) {
		if _, err := b.add(ctx, "chair"); err != nil {
			return semel.Result{}, err
		}
		err := b.try(ctx, func(b book) error {
			if _, err := b.add(ctx, "table"); err != nil {
				return fmt.Errorf("a table: %w", err)
			}
			_, err := b.add(ctx, "lamp")
			return err
		})
		if err == nil || strings.Contains(err.Error(), "a table") {
			t.Errorf("the part that fails: %v", err)
		}
		return semel.Result{Code: 201}, b.try(ctx, func(b book) error {
			_, err := b.add(ctx, "bed")
			return err
		})
	})
	if err != nil {
		t.Error(err)
	}
	s.check(t, "one", 3, true)
	if n := s.count(t, "SELECT count(*) FROM orders WHERE item IN ('lamp', 'chair', 'bed')"); n != 3 {
		t.Errorf("%d of lamp, chair and bed", n)
	}
}

func commitOfTheOperationsOwnIsRefused(t *testing.T, s *shop) {
	_, err := s.run(t, "one", func(ctx context.Context, b book) (semel.Result, error) {
		if _, err := b.add(ctx, "lamp"); err != nil {
			return semel.Result{}, err
		}
		if err := b.commit(); err == nil {
			t.Error("the operation has committed")
		}
		return semel.Result{Code: 201}, nil
	})
	if !errors.Is(err, semel.ErrNotDone) || !strings.Contains(err.Error(), "commit") {
		t.Errorf("%v; want that nothing was done, and why", err)
	}
	s.check(t, "one", 0, false)
}

// deadlockRunsAgain has two operations lock two rows crosswise: the database
// undoes one of them, and that one runs again.
func deadlockRunsAgain(t *testing.T, s *shop) {
	for _, item := range []string{"lamp", "chair"} {
		if _, err := s.run(t, item, order(item)); err != nil {
			t.Fatal(err)
		}
	}
	var met, all sync.WaitGroup
	met.Add(2)
	var mu sync.Mutex
	runs := 0
	cross := func(one, other string) {
		first := true
		_, err := s.run(t, one+" and "+other, func(ctx context.Context, b book) (semel.Result, error) {
			mu.Lock()
			runs++
			mu.Unlock()
			if err := b.raise(ctx, one, 1); err != nil {
				return semel.Result{}, err
			}
			if first { // each has its first row before it asks for the second
				first = false
				met.Done()
				met.Wait()
			}
			return semel.Result{Code: 200}, b.raise(ctx, other, 10)
		})
		if err != nil {
			t.Error(err)
		}
	}
	all.Go(func() { cross("lamp", "chair") })
	all.Go(func() { cross("chair", "lamp") })
	all.Wait()
	if n := s.count(t, "SELECT count(*) FROM orders WHERE amount = 11"); n != 2 || runs < 3 {
		t.Errorf("%d of 2 rows have both amounts after %d runs; want 2 after 3 or more", n, runs)
	}
}
