package semel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// database is a transactor over the memory store: what a transaction wrote is
// there when it has committed, and before that its key is locked.
type database struct {
	*memory.Store
	// ending, if set, says what the n-th COMMIT comes to, from 1: an error, and
	// whether it happened all the same.
	ending func(n int) (error, bool)
	late   func() // has the last COMMIT that did not happen, happen

	mu      sync.Mutex
	locks   map[semel.Digest]*tx
	begun   int
	open    int
	commits int
	effects []string
}

func newDatabase() *database {
	return &database{Store: memory.New(memory.Options{}), locks: make(map[semel.Digest]*tx)}
}

type tx struct {
	db      *database
	locked  bool
	base    semel.Version // what is held outside
	own     semel.Record  // what the transaction sees, once it has written
	effects []string
}

type txOf struct{}

// effect is what an operation does in its transaction.
func effect(ctx context.Context, what string) {
	t := ctx.Value(txOf{}).(*tx)
	t.effects = append(t.effects, what)
}

// Begin is part of semel.Transactor.
func (db *database) Begin(ctx context.Context, digest semel.Digest, first *semel.Swap) (semel.Transaction, semel.Reading, error) {
	db.mu.Lock()
	if db.locks[digest] != nil {
		db.mu.Unlock()
		return nil, semel.Reading{}, semel.ErrInProgress
	}
	db.begun++
	db.open++
	t := &tx{db: db}
	db.mu.Unlock()
	if first == nil {
		r, err := db.Get(ctx, digest)
		t.base = r.Record.Version
		return t, r, err
	}
	r, err := t.CompareAndSwap(ctx, first.Old, first.Next)
	return t, r, err
}

// Context is part of semel.Transaction.
func (t *tx) Context(parent context.Context) context.Context {
	return context.WithValue(parent, txOf{}, t)
}

// CompareAndSwap is part of semel.Transaction.
func (t *tx) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	held, err := t.db.Get(ctx, next.Digest)
	if err != nil {
		return held, err
	}
	if t.locked {
		held.Record = t.own
	}
	if held.Record.Version != old {
		return held, semel.ErrConflict
	}
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	if !t.locked {
		t.locked, t.base = true, held.Record.Version
		t.db.locks[next.Digest] = t
	}
	next.Version, next.WrittenAt = semel.Version{Epoch: 1 << 40, Counter: uint64(len(t.effects) + 1)}, held.Now
	t.own = next
	return semel.Reading{Record: next, Now: held.Now}, nil
}

// Commit is part of semel.Transaction.
func (t *tx) Commit(ctx context.Context, last semel.Swap) (semel.Reading, error) {
	defer t.Rollback()
	t.db.mu.Lock()
	t.db.commits++
	n, ending := t.db.commits, t.db.ending
	t.db.mu.Unlock()
	var told error
	happens := true
	if ending != nil {
		told, happens = ending(n)
	}
	commit := func() (semel.Reading, error) {
		r, err := t.db.CompareAndSwap(ctx, t.base, last.Next)
		if err == nil {
			t.db.mu.Lock()
			t.db.effects = append(t.db.effects, t.effects...)
			t.db.mu.Unlock()
		}
		return r, err
	}
	if !happens {
		t.db.late = func() { _, _ = commit() }
		return semel.Reading{}, told
	}
	r, err := commit()
	if err != nil {
		return r, err
	}
	if told != nil {
		return semel.Reading{}, told
	}
	return r, nil
}

// Rollback is part of semel.Transaction.
func (t *tx) Rollback() {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	t.db.open--
	for d, holder := range t.db.locks {
		if holder == t {
			delete(t.db.locks, d)
		}
	}
}

// Undone is part of semel.Transaction.
func (*tx) Undone(err error) bool { return errors.Is(err, errDeadlock) }

// transactional gives an ask of the class, and one of its optimistic variant.
func transactional(t *testing.T, optimistic bool) semel.Ask {
	t.Helper()
	return ask(t, semel.Policy{Class: semel.Transactional, Optimistic: optimistic, Lease: 10 * time.Second})
}

// both runs fn with the key taken first, and with the optimistic variant.
func both(t *testing.T, fn func(t *testing.T, a semel.Ask)) {
	for _, optimistic := range []bool{false, true} {
		t.Run(fmt.Sprintf("optimistic=%v", optimistic), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { fn(t, transactional(t, optimistic)) })
		})
	}
}

// pay is an operation with one effect per run.
func pay(runs *int) func(context.Context) (semel.Result, error) {
	return func(ctx context.Context) (semel.Result, error) {
		*runs++
		effect(ctx, fmt.Sprint("payment of run ", *runs))
		return semel.Result{Code: 201, Data: fmt.Append(nil, "receipt of run ", *runs)}, nil
	}
}

// What a COMMIT comes to, and what the caller is told; T2, T5 and S13 of INVARIANTS.
func TestWhatCommitsComeTo(t *testing.T) {
	errCut := errors.New("connection reset by peer")
	always := func(err error, happens bool) func(int) (error, bool) {
		return func(int) (error, bool) { return err, happens }
	}
	first := func(n int, err error, happens bool) func(int) (error, bool) {
		return func(commit int) (error, bool) {
			if commit <= n {
				return err, happens
			}
			return nil, true
		}
	}
	for _, tc := range []struct {
		name    string
		ending  func(int) (error, bool)
		runs    int
		effects string
		err     error
	}{
		{"it commits", nil, 1, "payment of run 1", nil},
		{"undone once", first(1, semel.ErrUndone, false), 2, "payment of run 2", nil},
		{"undone five times", first(5, semel.ErrUndone, false), 6, "payment of run 6", nil},
		{"always undone", always(semel.ErrUndone, false), 6, "", semel.ErrNotDone},
		{"undone for good", always(semel.ErrNotDone, false), 1, "", semel.ErrNotDone},
		{"unknown, and it had happened", first(1, errCut, true), 1, "payment of run 1", nil},
		{"unknown, and it had not", first(1, errCut, false), 2, "payment of run 2", nil},
		{"unknown twice, and then it happens", first(2, errCut, false), 3, "payment of run 3", nil},
		{"always unknown", always(errCut, false), 6, "", semel.ErrInDoubt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			both(t, func(t *testing.T, a semel.Ask) {
				db := newDatabase()
				var kinds []string
				g, err := semel.NewGuard(db, semel.Options{Observe: func(e semel.Event) { kinds = append(kinds, e.Kind.String()) }})
				if err != nil {
					t.Fatal(err)
				}
				db.ending = tc.ending
				runs := 0
				answer, err := g.Do(t.Context(), a, pay(&runs))
				if !errors.Is(err, tc.err) || runs != tc.runs || strings.Join(db.effects, ",") != tc.effects || db.open != 0 {
					t.Errorf("%v after %d runs, effects %q, %d transactions left; want %v, %d, %q", err, runs, db.effects, db.open, tc.err, tc.runs, tc.effects)
				}
				last := kinds[len(kinds)-1]
				db.ending = nil
				before := runs
				again, errAgain := g.Do(t.Context(), a, pay(&runs))
				switch {
				case tc.err != nil && (errAgain != nil || again.Replayed || runs != before+1 || again.Attempt != 1):
					t.Errorf("the key is not free afterwards: %+v, %v after %d runs", again, errAgain, runs)
				case tc.err == nil && (errAgain != nil || !again.Replayed || runs != before || string(again.Data) != string(answer.Data)):
					t.Errorf("the retry got %q after %q, %v", again.Data, answer.Data, errAgain)
				case tc.err == nil && (answer.Replayed || answer.Code != 201 || answer.Attempt != 1 || last != "completed"):
					t.Errorf("who executed was told %+v, and the event %q", answer, last)
				}
			})
		})
	}
}

// A COMMIT whose answer never came lands while the operation runs again: what is
// stored is the first run's, and so is what everybody is told.
func TestALateCommitIsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.ending = func(n int) (error, bool) {
			if n == 1 {
				return errors.New("connection reset by peer"), false
			}
			db.late()
			return nil, true
		}
		g := newGuard(t, db)
		runs := 0
		a := transactional(t, true)
		answer, err := g.Do(t.Context(), a, pay(&runs))
		again, errAgain := g.Do(t.Context(), a, pay(&runs))
		if err != nil || errAgain != nil || runs != 2 || strings.Join(db.effects, ",") != "payment of run 1" ||
			string(answer.Data) != "receipt of run 1" || string(again.Data) != "receipt of run 1" {
			t.Errorf("%d runs, effects %q, told %q (%v), then %q (%v)", runs, db.effects, answer.Data, err, again.Data, errAgain)
		}
	})
}

// failsLater has a duplicate wait for the claim that is held, and gives what it is
// told: its own operation fails.
func failsLater(t *testing.T, g *semel.Guard, a semel.Ask) <-chan error {
	told := make(chan error, 1)
	go func() {
		_, err := g.Do(t.Context(), a, func(context.Context) (semel.Result, error) { return semel.Result{}, errLost })
		told <- err
	}()
	synctest.Wait()
	return told
}

// Whatever fails in the operation, neither key nor effect is there.
func TestAFailedOperationLeavesNothing(t *testing.T) {
	both(t, func(t *testing.T, a semel.Ask) {
		db := newDatabase()
		var doubted atomic.Int32
		g, err := semel.NewGuard(db, semel.Options{Observe: func(e semel.Event) {
			if e.Kind == semel.Doubted {
				doubted.Add(1)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		runs := 0
		_, err = g.Do(t.Context(), a, func(ctx context.Context) (semel.Result, error) {
			runs++
			effect(ctx, "half")
			return semel.Result{}, errLost
		})
		if !errors.Is(err, errLost) || !errors.Is(err, semel.ErrNotDone) || runs != 1 {
			t.Errorf("got %v after %d runs, want the operation's error after one, and that nothing was done", err, runs)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic did not go on")
				}
			}()
			_, _ = g.Do(t.Context(), a, func(ctx context.Context) (semel.Result, error) {
				effect(ctx, "half")
				panic("index out of range")
			})
		}()
		for _, end := range []func(*semel.Claim) error{
			func(c *semel.Claim) error { return c.Doubt() },
			func(c *semel.Claim) error { return c.Release(semel.Result{}) },
		} {
			c, _ := begin(t, g, a)
			if !c.Transactional() {
				t.Fatal("the claim is not in a transaction")
			}
			effect(c.Context(), "half")
			told := failsLater(t, g, a)
			if err := end(c); err != nil {
				t.Error(err)
			}
			if err := <-told; !errors.Is(err, errLost) {
				t.Errorf("a duplicate that waited got %v, want its own run", err)
			}
		}
		if n := doubted.Load(); n != 0 {
			t.Errorf("%d keys are said to be in doubt, and nothing is", n)
		}
		held, err := db.Get(t.Context(), g.Digest(a.Key))
		if err != nil || held.Record.Held() || len(db.effects) != 0 || db.open != 0 {
			t.Errorf("left: %v, effects %q, %d transactions", held.Record.State, db.effects, db.open)
		}
	})
}

// A deadlock's victim runs again in a transaction of its own, and a step that
// was recorded is not taken again.
func TestAVictimRunsAgain(t *testing.T) {
	both(t, func(t *testing.T, a semel.Ask) {
		db := newDatabase()
		g := newGuard(t, db)
		runs, charges, start := 0, 0, time.Now()
		answer, err := g.Do(t.Context(), a, func(ctx context.Context) (semel.Result, error) {
			runs++
			effect(ctx, fmt.Sprint("run ", runs))
			claim, _ := semel.ClaimFrom(ctx)
			r, err := claim.Step(ctx, "charge", func(context.Context) (semel.Result, error) {
				charges++
				return semel.Result{Data: []byte("ch_1")}, nil
			})
			if err == nil && runs < 3 {
				err = fmt.Errorf("update: %w", errDeadlock)
			}
			return r, err
		})
		if err != nil || string(answer.Data) != "ch_1" || runs != 3 || charges != 1 || strings.Join(db.effects, ",") != "run 3" || db.open != 0 {
			t.Errorf("%q, %v: %d runs, %d charges, effects %q, %d open", answer.Data, err, runs, charges, db.effects, db.open)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("it waited %v for its own transactions", waited)
		}
	})
}

// Two processes meet: the later one's run is undone, or it waits; both are told
// the one answer.
func TestTwoProcessesMeet(t *testing.T) {
	both(t, func(t *testing.T, a semel.Ask) {
		db := newDatabase()
		var wg sync.WaitGroup
		var mu sync.Mutex
		answers := make(map[string]int)
		for i := range 4 {
			g := newGuard(t, db)
			wg.Go(func() {
				answer, err := g.Do(t.Context(), a, func(ctx context.Context) (semel.Result, error) {
					effect(ctx, "payment")
					time.Sleep(time.Duration(i+1) * 300 * time.Millisecond)
					return semel.Result{Data: fmt.Append(nil, i)}, nil
				})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers[string(answer.Data)]++
			})
		}
		wg.Wait()
		if len(answers) != 1 || len(db.effects) != 1 || db.open != 0 {
			t.Errorf("answers %v, effects %q, %d open; want one answer for all", answers, db.effects, db.open)
		}
		if a.Policy.Optimistic && db.begun != 4 {
			t.Errorf("%d transactions, want 4: what a commit met is the answer", db.begun)
		}
	})
}

// The duplicates of one process cost one transaction; INVARIANTS T8 and L4.
func TestAHerdBeginsOneTransaction(t *testing.T) {
	both(t, func(t *testing.T, a semel.Ask) {
		db := newDatabase()
		g := newGuard(t, db)
		runs := 0
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				answer, err := g.Do(t.Context(), a, func(ctx context.Context) (semel.Result, error) {
					time.Sleep(time.Second)
					return pay(&runs)(ctx)
				})
				if err != nil || string(answer.Data) != "receipt of run 1" {
					t.Errorf("%q, %v", answer.Data, err)
				}
			})
		}
		wg.Wait()
		if runs != 1 || db.begun != 1 || db.open != 0 {
			t.Errorf("%d runs in %d transactions, %d open; want one", runs, db.begun, db.open)
		}
	})
}

func TestTransactionalNeedsATransactor(t *testing.T) {
	g := newGuard(t, memory.New(memory.Options{}))
	if _, err := g.Do(t.Context(), transactional(t, false), func(context.Context) (semel.Result, error) { panic("ran") }); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("got %v, want ErrRejected", err)
	}
}

// bound is a store in the caller's own transaction.
type bound struct {
	semel.Store
	tx semel.Transaction
}

func (b bound) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	return b.tx.CompareAndSwap(ctx, old, next)
}

func TestWithin(t *testing.T) {
	db := newDatabase()
	g := newGuard(t, db)
	a := transactional(t, false)
	within := func(b bound, a semel.Ask, fn func(context.Context) (semel.Result, error)) (semel.Answer, error) {
		return g.Within(t.Context(), b, a, fn)
	}
	fresh := func() bound { return bound{db, &tx{db: db}} }
	run := func(context.Context) (semel.Result, error) { return semel.Result{Code: 201, Data: []byte("r")}, nil }
	never := func(context.Context) (semel.Result, error) { panic("ran") }

	b := fresh()
	if answer, err := within(b, a, run); err != nil || answer.Replayed || string(answer.Data) != "r" {
		t.Fatalf("%+v, %v", answer, err)
	}
	// The same key once more, before the caller commits.
	if answer, err := within(b, a, never); err != nil || !answer.Replayed || string(answer.Data) != "r" {
		t.Errorf("in the same transaction: %+v, %v", answer, err)
	}
	own := b.tx.(*tx).own
	if held, _ := db.Get(t.Context(), own.Digest); held.Record.Held() {
		t.Error("the key can be seen before the commit")
	}
	if _, err := b.tx.Commit(t.Context(), semel.Swap{Next: own}); err != nil {
		t.Fatal(err)
	}
	if answer, err := within(fresh(), a, never); err != nil || !answer.Replayed || answer.Code != 201 {
		t.Errorf("after the commit: %+v, %v", answer, err)
	}
	other := a
	other.Fingerprint = semel.FingerprintOf([]byte("another"))
	if _, err := within(fresh(), other, never); !errors.Is(err, semel.ErrMismatch) {
		t.Errorf("another payload: got %v", err)
	}
	a.Key.ID = "k2"
	if _, err := within(fresh(), a, func(context.Context) (semel.Result, error) { return semel.Result{}, errLost }); !errors.Is(err, errLost) {
		t.Errorf("got %v, want the operation's error", err)
	}
	if _, err := within(fresh(), ask(t, semel.Policy{}), never); err == nil || !strings.Contains(err.Error(), "transactional") {
		t.Errorf("a policy of another class: %v", err)
	}
}

// In the caller's own transaction nothing is waited for, and nothing is tried
// twice: it may have failed with the first attempt.
func TestWithinTriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		g := newGuard(t, db)
		for _, tc := range []struct {
			at  int // which swap fails
			err error
		}{{1, semel.ErrInProgress}, {1, errLost}, {2, errLost}} {
			calls, runs, start := 0, 0, time.Now()
			store := &faulty{Store: bound{db, &tx{db: db}}, before: func(*semel.Record) error {
				if calls++; calls == tc.at {
					return tc.err
				}
				return nil
			}}
			_, err := g.Within(t.Context(), store, transactional(t, false), func(context.Context) (semel.Result, error) {
				runs++
				return semel.Result{}, nil
			})
			if !errors.Is(err, tc.err) || calls != tc.at || runs != tc.at-1 || time.Since(start) != 0 {
				t.Errorf("swap %d fails with %v: got %v after %d swaps, %d runs and %v", tc.at, tc.err, err, calls, runs, time.Since(start))
			}
		}
	})
}
