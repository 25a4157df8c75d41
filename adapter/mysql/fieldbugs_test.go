package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// A driver or a pool that sends again what may have been applied reports the
// owner's own claim as another's, or writes twice.
func TestFieldBug08_NothingIsSentTwice(t *testing.T) {
	for _, c := range []struct {
		name    string
		applied bool
	}{{"the answer is lost", true}, {"the request is lost", false}} {
		t.Run(c.name, func(t *testing.T) {
			url := database(t, name())
			p, through := between(t, url)
			s := connect(t, through, mysql.Options{})
			defer s.Close()
			db := sqlDB(t, url)
			lines := func() int { return number(t, db, "SELECT COUNT(*) FROM semel_journal") }
			next := claim("k")
			for _, step := range []string{"claim", "completion"} {
				p.reset()
				p.cutNext(c.applied)
				before := lines()
				r, err := s.CompareAndSwap(t.Context(), next.Version, next)
				if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) {
					t.Fatalf("%s: got %v, %v; want an error that says that nobody knows", step, r.Record.Version, err)
				}
				if _, writes := p.counts(); writes != 1 {
					t.Fatalf("%s: sent %d times", step, writes)
				}
				if c.applied {
					waitFor(t, "a line in the journal", func() bool { return lines() == before+1 })
				}
				r, err = s.CompareAndSwap(t.Context(), next.Version, next)
				if c.applied && !errors.Is(err, semel.ErrConflict) || !c.applied && err != nil || r.Record.Nonce != next.Nonce {
					t.Fatalf("%s, repeated: got nonce %v, %v; want %v", step, r.Record.Nonce, err, next.Nonce)
				}
				if got := lines() - before; got != 1 {
					t.Fatalf("%s: %d lines in the journal, want 1", step, got)
				}
				next = completion(r.Record, "receipt")
			}
		})
	}
}

// hidden takes a row out, so that a transaction of the test can put it back.
func hidden(t *testing.T, s semel.Store, db *sql.DB, id string) semel.Record {
	t.Helper()
	held := swap(t, s, claim(id))
	execute(t, db, "CREATE TABLE kept AS SELECT * FROM semel_record")
	execute(t, db, "DELETE FROM semel_record")
	return held
}

const putBack = "INSERT INTO semel_record SELECT * FROM kept"

// A unique violation is the answer "taken", not an outage.
func TestFieldBug20_TakenMeanwhileIsAConflict(t *testing.T) {
	s, url := opened(t, mysql.Options{LockWait: 20 * time.Second, Timeout: 30 * time.Second, Alone: true})
	db := sqlDB(t, url)
	held := hidden(t, s, db, "k")
	first, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Rollback()
	execute(t, first, putBack) // not committed: nobody sees it
	type answer struct {
		r   semel.Reading
		err error
	}
	answers := make(chan answer)
	for range 3 {
		go func() {
			r, err := s.CompareAndSwap(context.Background(), semel.Version{}, claim("k"))
			answers <- answer{r, err}
		}()
	}
	blocked(t, db, 3)
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if a := <-answers; !errors.Is(a.err, semel.ErrConflict) || a.r.Record.Version != held.Version {
			t.Errorf("got %v, %v; want a conflict with %v", a.r.Record.Version, a.err, held.Version)
		}
	}
}

func TestFieldBug25_KeysAreBytes(t *testing.T) {
	s, url := opened(t, mysql.Options{})
	db := sqlDB(t, url)
	for _, id := range []string{"abc", "ABC", "abc ", "ábc", strings.Repeat("x", 48), strings.Repeat("x", 48) + "y"} {
		swap(t, s, claim(id))
	}
	if n := number(t, db, "SELECT COUNT(*) FROM semel_record"); n != 6 {
		t.Errorf("6 keys make %d records", n)
	}
	for _, table := range []string{"semel_record", "semel_journal"} {
		var kind string
		if err := db.QueryRow("SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME=?"+
			" AND COLUMN_NAME='digest'", table).Scan(&kind); err != nil || kind != "binary(32)" {
			t.Errorf("the digest of %s is %q, %v; want binary(32)", table, kind, err)
		}
	}
}

// An error that is no duplicate must not look like one.
func TestFieldBug26_OtherErrorsAreNoDuplicates(t *testing.T) {
	sources, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range sources {
		if text, err := os.ReadFile(f.Name()); err == nil && !strings.HasSuffix(f.Name(), "_test.go") && strings.HasSuffix(f.Name(), ".go") &&
			regexp.MustCompile(`(?i)insert\s+ignore|on\s+duplicate|replace\s+into`).Match(text) {
			t.Errorf("%s has a statement that takes other errors for duplicates", f.Name())
		}
	}
	s, url := opened(t, mysql.Options{})
	db := sqlDB(t, url)
	execute(t, db, "ALTER TABLE semel_record ADD CONSTRAINT odd CHECK (state <> 3)")
	next := claim("k")
	next.State = semel.Released
	r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
	if err == nil || errors.Is(err, semel.ErrConflict) || r.Record.Held() {
		t.Errorf("a row that a constraint refuses: got %v, %v; want an error that is no conflict", r.Record.Version, err)
	}
	next.State = semel.Pending
	swap(t, s, next) // the connection is not left in a transaction that failed
	if n := number(t, db, "SELECT COUNT(*) FROM semel_journal"); n != 1 {
		t.Errorf("the journal has %d lines after one write", n)
	}
}

// Error 1205 undoes the statement and leaves the transaction open.
func TestFieldBug30_LockWaitUndoesAll(t *testing.T) {
	s, url := opened(t, mysql.Options{})
	db := sqlDB(t, url)
	a, b := swap(t, s, claim("a")), swap(t, s, claim("b"))
	lock, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	execute(t, lock, "UPDATE semel_record SET due=1 WHERE digest=?", b.Digest[:])
	before := number(t, db, "SELECT COUNT(*) FROM semel_journal")
	out := s.SwapMany(t.Context(), []semel.Swap{
		{Old: a.Version, Next: completion(a, "receipt")}, {Old: b.Version, Next: completion(b, "receipt")}, {Next: claim("c")},
	})
	if out[0].Err != nil || out[2].Err != nil {
		t.Errorf("those that nobody has locked: %v, %v", out[0].Err, out[2].Err)
	}
	if err := out[1].Err; err == nil || errors.Is(err, semel.ErrConflict) || !strings.Contains(err.Error(), "LockWait") {
		t.Errorf("the one that is locked: got %v, want an error that tells of the lock", err)
	}
	if n := number(t, db, "SELECT COUNT(*) FROM semel_journal") - before; n != 2 {
		t.Errorf("%d lines in the journal for 2 writes", n)
	}
	if n := number(t, db, "SELECT COUNT(*) FROM information_schema.innodb_trx x JOIN information_schema.processlist p"+
		" ON p.id=x.trx_mysql_thread_id WHERE p.db=DATABASE()"); n != 1 {
		t.Errorf("%d transactions are open, want the one that has the lock", n)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	swap(t, s, completion(b, "receipt"))
}

// Same-key inserters deadlock (1213) when the first rolls back: one of them wins.
func TestFieldBug30_DeadlockIsRunAgain(t *testing.T) {
	s, url := opened(t, mysql.Options{LockWait: 20 * time.Second, Timeout: 30 * time.Second, Alone: true})
	db := sqlDB(t, url)
	hidden(t, s, db, "k")
	first, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Rollback()
	execute(t, first, putBack)
	const n = 4
	answers := make(chan error)
	for range n {
		go func() {
			_, err := s.CompareAndSwap(context.Background(), semel.Version{}, claim("k"))
			answers <- err
		}()
	}
	blocked(t, db, n)
	deadlocks := "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='INNODB_DEADLOCKS'"
	before := number(t, db, deadlocks)
	if err := first.Rollback(); err != nil {
		t.Fatal(err)
	}
	won := 0
	for range n {
		if err := <-answers; err == nil {
			won++
		} else if !errors.Is(err, semel.ErrConflict) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d claims won", won, n)
	}
	t.Logf("%d deadlocks", number(t, db, deadlocks)-before)
}
