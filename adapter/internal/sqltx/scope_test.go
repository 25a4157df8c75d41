package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	modernc "modernc.org/sqlite"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// bent is a dialect whose transactions end as a test wants. Its keys are in no
// database.
type bent struct {
	undone   error // what fails with it was undone for another's sake
	commit   func() error
	rollback error
	swap     error // of each swap but the first and the last
}

func (*bent) Check(context.Context, *Conn) error { return nil }
func (b *bent) Undone(err error) bool            { return b.undone != nil && errors.Is(err, b.undone) }

func (*bent) Get(context.Context, *Conn, semel.Digest) (semel.Reading, error) {
	return semel.Reading{}, nil
}

func (*bent) Begin(_ context.Context, _ *Conn, _ semel.Digest, first *semel.Swap) (semel.Reading, error) {
	return semel.Reading{Record: first.Next}, nil
}

func (b *bent) CompareAndSwap(_ context.Context, _ *Conn, _ semel.Version, next semel.Record) (semel.Reading, error) {
	return semel.Reading{Record: next}, b.swap
}

func (b *bent) Commit(_ context.Context, _ *Conn, last semel.Swap) (semel.Reading, error) {
	return semel.Reading{Record: last.Next}, b.commit()
}

func (b *bent) Rollback(context.Context, *Conn) error { return b.rollback }

// begun gives a transaction of a dialect.
func begun(t *testing.T, b *bent) (*sql.DB, semel.Transaction) {
	t.Helper()
	connector, err := modernc.NewConnector(filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	db := OpenDB(connector, Rules{})
	t.Cleanup(func() { _ = db.Close() })
	tx, _, err := (&transactor{Store: memory.New(memory.Options{}), db: db, dialect: b}).Begin(context.Background(), semel.Digest{}, &semel.Swap{})
	if err != nil {
		t.Fatal(err)
	}
	return db, tx
}

// TestConnectionKept: a connection of which nobody knows what is open on it does
// not go back to the pool.
func TestConnectionKept(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		commit, rollback error
		keep             bool
	}{
		"committed":               {nil, broken, true},
		"a conflict":              {semel.ErrConflict, nil, true},
		"nothing was done":        {semel.ErrNotDone, nil, true},
		"nobody knows":            {broken, nil, false},
		"undone, but not by us":   {semel.ErrUndone, broken, false},
		"rolled back, or so":      {errors.New("not called"), broken, false},
		"rolled back, and it was": {errors.New("not called"), nil, true},
	} {
		db, tx := begun(t, &bent{commit: func() error { return c.commit }, rollback: c.rollback})
		if c.commit != nil && c.commit.Error() == "not called" {
			tx.Rollback()
		} else if _, err := tx.Commit(context.Background(), semel.Swap{}); !errors.Is(err, c.commit) {
			t.Errorf("%s: %v, want %v", name, err, c.commit)
		}
		if n := db.Stats().OpenConnections; n != 0 != c.keep {
			t.Errorf("%s: %d connections are open; want one kept: %t", name, n, c.keep)
		}
	}
}

// TestCommitGoesOn: a COMMIT is not cut off by its caller's context, and the caller
// is told that nobody knows (INVARIANTS T6).
func TestCommitGoesOn(t *testing.T) {
	goOn, done := make(chan bool), make(chan bool)
	db, tx := begun(t, &bent{commit: func() error {
		<-goOn
		close(done)
		return nil
	}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tx.Commit(ctx, semel.Swap{}); !errors.Is(err, context.Canceled) || certain(err) {
		t.Errorf("%v, want one that says that nobody knows", err)
	}
	if db.Stats().InUse != 1 {
		t.Error("the connection was given back while the commit is under way")
	}
	close(goOn)
	<-done
	for end := time.Now().Add(time.Minute); db.Stats().InUse != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection was not given back")
		}
	}
}
