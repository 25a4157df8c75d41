package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/resolve"
)

// sharedFile gives what opens guards over one file, as processes would.
func sharedFile(t *testing.T) func() *semel.Guard {
	path := filepath.Join(t.TempDir(), "semel.db")
	return func() *semel.Guard {
		s, err := sqlite.Open(path, sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		g, err := semel.NewGuard(s, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

// Two processes share a file; each key in doubt is asked for and settled once,
// and the journal names who did it.
func TestCompletersShareAFile(t *testing.T) {
	const keys = 120
	var asked atomic.Int64
	policy, err := semel.Policy{Name: "charge", Resolve: func(_ context.Context, u semel.Unresolved) (semel.Settlement, error) {
		asked.Add(1)
		if string(u.Memo) == "0" {
			return semel.Settlement{State: semel.Released, Why: "not there"}, nil
		}
		return semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: u.Memo}, Why: "there"}, nil
	}}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	open := sharedFile(t)
	here, there := open(), open()
	ask := func(i int) semel.Ask {
		return semel.Ask{Key: semel.Key{Scope: "s", ID: fmt.Sprint("k", i)}, Memo: []byte(fmt.Sprint(i % 2)), Policy: &policy}
	}
	errLost := errors.New("lost")
	for i := range keys {
		if _, err := here.Do(t.Context(), ask(i), func(context.Context) (semel.Result, error) { return semel.Result{}, errLost }); !errors.Is(err, errLost) {
			t.Fatal(err)
		}
	}
	settled := settleAll(t, keys, &policy, here, there)
	if asked.Load() != keys || settled != keys {
		t.Errorf("asked %d times, settled %d, want %d each", asked.Load(), settled, keys)
	}
	for i := range keys {
		ran := false
		a, err := there.Do(t.Context(), ask(i), func(context.Context) (semel.Result, error) {
			ran = true
			return semel.Result{Data: []byte("anew")}, nil
		})
		if notDone := i%2 == 0; err != nil || ran != notDone || a.Replayed == notDone {
			t.Errorf("key %d: %q, ran %v, replayed %v, %v", i, a.Data, ran, a.Replayed, err)
		}
	}
	journal, _ := semel.As[semel.Journal](there.Store())
	history, err := journal.History(t.Context(), there.Digest(ask(1).Key))
	if err != nil || len(history) == 0 {
		t.Fatal(history, err)
	}
	if last := history[len(history)-1].Record; last.State != semel.Done || !strings.HasPrefix(last.Owner, "resolver charge@") || !strings.HasSuffix(last.Owner, ": there") {
		t.Errorf("the journal ends with %v by %q", last.State, last.Owner)
	}
}

// settleAll runs a completer over each guard until so many keys are settled, and
// tells how many were.
func settleAll(t *testing.T, keys int64, policy *semel.Policy, guards ...*semel.Guard) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var settled atomic.Int64
	o := resolve.Options{Policies: []*semel.Policy{policy}, Every: 50 * time.Millisecond, Observe: func(e resolve.Event) {
		if e.Kind != resolve.Settled {
			t.Errorf("%v: %v", e.Kind, e.Err)
		} else if settled.Add(1) == keys {
			cancel()
		}
	}}
	ended := make(chan error)
	for _, g := range guards {
		c, err := resolve.New(g, o)
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- c.Run(ctx) }()
	}
	for range guards {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return settled.Load()
}
