package sqltx

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// TestStates has what statements come to, one after the other, and whether the
// last is sent and the transaction may be committed after it.
func TestStates(t *testing.T) {
	mild, fatal := errors.New("a constraint"), errors.New("the disk is full")
	rules := &Rules{Fatal: func(err error) bool { return errors.Is(err, fatal) }, Ends: func([]string) bool { return false }}
	type came struct {
		text string
		to   error
	}
	ok := func(text string) came { return came{text, nil} }
	for name, c := range map[string]struct {
		statements []came
		refused    bool // the last statement
		broken     string
	}{
		"nothing failed":                 {[]came{ok("SELECT 1")}, false, ""},
		"one failed":                     {[]came{{"INSERT", mild}, ok("SELECT 1")}, true, "a constraint"},
		"back to a savepoint":            {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, ok("ROLLBACK TO a")}, false, ""},
		"on after it":                    {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, ok("ROLLBACK TO a"), ok("SELECT 1")}, false, ""},
		"twice":                          {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, ok("ROLLBACK TO a"), {"INSERT", mild}, ok("ROLLBACK TO a")}, false, ""},
		"a savepoint that is not set":    {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, ok("ROLLBACK TO b")}, true, "a constraint"},
		"one that was released":          {[]came{ok("SAVEPOINT a"), ok("RELEASE a"), {"INSERT", mild}, ok("ROLLBACK TO a")}, true, "a constraint"},
		"one behind it":                  {[]came{ok("SAVEPOINT a"), ok("SAVEPOINT b"), ok("ROLLBACK TO a"), {"INSERT", mild}, ok("ROLLBACK TO b")}, true, "a constraint"},
		"with more in the text":          {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, ok("ROLLBACK TO a; INSERT")}, true, "a constraint"},
		"the way back failed":            {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, {"ROLLBACK TO a", mild}}, false, "a constraint"},
		"nothing mends a full disk":      {[]came{ok("SAVEPOINT a"), {"INSERT", fatal}, ok("ROLLBACK TO a")}, true, "the disk is full"},
		"nor a lost connection":          {[]came{ok("SAVEPOINT a"), {"INSERT", driver.ErrBadConn}, ok("ROLLBACK TO a")}, true, "bad connection"},
		"nor a context that ended":       {[]came{ok("SAVEPOINT a"), {"INSERT", fmt.Errorf("stopped: %w", context.Canceled)}, ok("ROLLBACK TO a")}, true, "canceled"},
		"nor one whose time was over":    {[]came{ok("SAVEPOINT a"), {"INSERT", context.DeadlineExceeded}, ok("ROLLBACK TO a")}, true, "deadline"},
		"the worse of two is remembered": {[]came{ok("SAVEPOINT a"), {"INSERT", mild}, {"ROLLBACK TO a", fatal}}, false, "the disk is full"},
		"a signal is no failure":         {[]came{{"INSERT", driver.ErrSkip}, ok("SELECT 1")}, false, ""},
		"an end":                         {[]came{ok("COMMIT")}, true, "COMMIT would end"},
		"an end behind another":          {[]came{ok("SELECT 1; ROLLBACK")}, true, "ROLLBACK would end"},
	} {
		s := &state{rules: rules, scoped: true, keyed: true}
		var refused error
		for _, statement := range c.statements {
			control := rules.control(statement.text)
			if refused = s.admit(&control); refused == nil {
				_ = s.note(&control, statement.to)
			}
		}
		err := s.broken()
		if (refused != nil) != c.refused || (err == nil) != (c.broken == "") || err != nil && !strings.Contains(err.Error(), c.broken) {
			t.Errorf("%s: the last was refused with %v, and the commit with %v; want %t and %q", name, refused, err, c.refused, c.broken)
		}
	}
}

// TestCommitAfterAnUndoneStatement: what the operation did not report, or in words
// of its own, is run again if it was undone for another's sake, and is final if not.
func TestCommitAfterAnUndoneStatement(t *testing.T) {
	victim := errors.New("a deadlock's victim")
	for _, failed := range []error{victim, errors.New("a constraint")} {
		_, tx := begun(t, &bent{undone: victim, commit: func() error {
			t.Error("it was committed")
			return nil
		}})
		own := errors.New("out of stock")
		if tx.Undone(own) {
			t.Error("an error of the operation's own was taken for the database's")
		}
		_ = tx.(*transaction).state.note(&controlled{}, failed)
		if tx.Undone(own) != (failed == victim) {
			t.Errorf("after %v the operation's own error is undone: %t", failed, tx.Undone(own))
		}
		want := semel.ErrNotDone
		if failed == victim {
			want = semel.ErrUndone
		}
		if _, err := tx.Commit(context.Background(), semel.Swap{}); !errors.Is(err, want) {
			t.Errorf("after %v: %v, want %v", failed, err, want)
		}
	}
}

// TestOwnTransactionAfterASwap: a caller's own transaction is not committed after a
// key was not written in it for another reason than that it is taken.
func TestOwnTransactionAfterASwap(t *testing.T) {
	broken := errors.New("the disk is full")
	for name, c := range map[string]struct {
		swap    error
		next    semel.State
		commits bool
	}{
		"done":    {nil, semel.Done, true},
		"pending": {nil, semel.Pending, false},
		"taken":   {semel.ErrConflict, semel.Pending, true},
		"failed":  {broken, semel.Done, false},
	} {
		b := &bent{swap: c.swap}
		db, scoped := begun(t, b)
		scoped.Rollback()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		in := In(memory.New(memory.Options{}), b, tx)
		if _, err := in.CompareAndSwap(t.Context(), semel.Version{}, semel.Record{State: c.next}); !errors.Is(err, c.swap) {
			t.Errorf("%s: %v, want %v", name, err, c.swap)
		}
		if err := tx.Commit(); (err == nil) != c.commits {
			t.Errorf("%s: the commit: %v, want it to happen: %t", name, err, c.commits)
		}
	}
}
