package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// orderFile turns this test binary into a process that takes orders in a scope
// until it is killed.
const orderFile = "SEMEL_SQLITE_TEST_ORDERS"

// orderKeys is how many keys the processes share; each is asked for many times.
const orderKeys = 400

// openScope opens the file as an application does.
func openScope(path string, o ScopeOptions) (*Store, *sql.DB, *Scope, error) {
	store, err := Open(path, Options{BusyTimeout: time.Minute})
	if err != nil {
		return nil, nil, nil, err
	}
	db, err := OpenDB(path)
	if err != nil {
		return nil, nil, nil, errors.Join(err, store.Close())
	}
	scope, err := NewScope(store, db, o)
	if err != nil {
		return nil, nil, nil, errors.Join(err, db.Close(), store.Close())
	}
	return store, db, scope, nil
}

// orderChild takes orders, and prints each that was answered. Beside the scope,
// the store's own writer claims and completes keys in the same file.
func orderChild(path string, out io.Writer) error {
	optimistic := rand.IntN(2) == 0
	store, _, scope, err := openScope(path, ScopeOptions{Policy: semel.Policy{Optimistic: optimistic, Wait: time.Minute}})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	errs := make(chan error, writers)
	for w := range writers / 2 {
		go func() {
			for {
				n := 1 + rand.IntN(orderKeys) // 0 is the store's own writers'
				answer, err := scope.Do(context.Background(), pending(n).Key, semel.Fingerprint{byte(n)}, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
					_, err := tx.ExecContext(ctx, "INSERT INTO orders (n, pid) VALUES (?, ?)", n, os.Getpid())
					return semel.Result{Code: 201, Data: fmt.Appendf(nil, "order %d", n)}, err
				})
				if err == nil && string(answer.Data) != fmt.Sprint("order ", n) {
					err = fmt.Errorf("order %d was answered %q", n, answer.Data)
				}
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				_, err = fmt.Fprintln(out, n)
				mu.Unlock()
				if err != nil {
					errs <- err
					return
				}
			}
		}()
		go func() {
			base := 1<<20 + rand.IntN(1<<40)
			for n := base + w; ; n += writers {
				if err := life(store, n, func(int, semel.Record) error { return nil }); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// takeOrders runs a process until it has answered some orders, and kills it.
func takeOrders(path string, answers int) (answered map[int]bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), orderFile+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	answered = map[int]bool{}
	scan := bufio.NewScanner(out)
	for i := 0; scan.Scan(); i++ {
		var n int
		if _, err := fmt.Sscan(scan.Text(), &n); err == nil {
			answered[n] = true
		}
		if i == answers {
			err = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // it was killed
	if len(answered) < answers/2 && err == nil && answers < orderKeys {
		err = fmt.Errorf("the process answered %d orders only", len(answered))
	}
	return answered, err
}

// TestScopeKilled: processes that share a file are killed in the middle, at
// random, several times. Each order is there once if its key is done, and not at
// all otherwise; what was answered is there (INVARIANTS T1, S5).
func TestScopeKilled(t *testing.T) {
	path := newPath(t)
	store, db, scope, err := openScope(path, ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(db.Close(), store.Close()) }()
	execSQL(t, db, "CREATE TABLE orders (n INTEGER NOT NULL, pid INTEGER NOT NULL)") // not unique: the scope alone sees to it
	answered := map[int]bool{}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				got, err := takeOrders(path, 20+rand.IntN(60))
				mu.Lock()
				defer mu.Unlock()
				for n := range got {
					answered[n] = true
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	made := countOrders(t, store, db, answered)
	for n := range answered {
		a, err := scope.Do(context.Background(), pending(n).Key, semel.Fingerprint{byte(n)}, func(context.Context, *sql.Tx) (semel.Result, error) {
			return semel.Result{}, errors.New("run again")
		})
		if err != nil || !a.Replayed {
			t.Errorf("order %d again: %+v, %v", n, a, err)
		}
	}
	t.Logf("%d orders made, %d answered, by %d processes that were killed: DOUBLE 0/%d, LOST 0/%d", made, len(answered), 2*rounds, made, len(answered))
}

// countOrders fails the test unless orders, keys and journal say the same, and
// tells how many orders there are.
func countOrders(t *testing.T, store *Store, db *sql.DB, answered map[int]bool) int {
	t.Helper()
	made := 0
	for n := 1; n <= orderKeys; n++ {
		var effects int
		if err := db.QueryRow("SELECT count(*) FROM orders WHERE n = ?", n).Scan(&effects); err != nil {
			t.Fatal(err)
		}
		held, err := store.Get(context.Background(), pending(n).Digest)
		if err != nil {
			t.Fatal(err)
		}
		finished := held.Record.State == semel.Done
		switch {
		case effects > 1 || finished != (effects == 1) || held.Record.Held() && !finished:
			t.Errorf("order %d was made %d times, and its key is %v", n, effects, held.Record.State)
		case answered[n] && !finished:
			t.Errorf("order %d was answered and is not there", n)
		}
		made += effects
		h, err := store.History(context.Background(), pending(n).Digest)
		if err != nil || finished != (len(h) > 0) || finished && h[len(h)-1].Record.Version != held.Record.Version {
			t.Errorf("order %d: the journal has %v, %v; held is %v", n, h, err, held.Record.Version)
		}
	}
	if made == 0 {
		t.Error("no order was made")
	}
	if err := store.Check(context.Background()); err != nil {
		t.Error(err)
	}
	return made
}
