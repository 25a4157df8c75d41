package available_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
)

func TestAnOutageFromBeginningToEnd(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	p := newProcess(t, main, available.Options{})
	p.way.set(true)
	next := n.pending("k")
	claim := write(t, p, semel.Version{}, next)
	if !claim.Unconfirmed || claim.Record.Version.Epoch != 0 || claim.Record.Version.IsZero() || claim.Record.Owner != next.Owner {
		t.Fatalf("claimed as %+v", claim)
	}
	if r, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k")); !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce || !r.Unconfirmed {
		t.Fatalf("a duplicate got %+v, %v", r, err)
	}
	finished := write(t, p, claim.Record.Version, n.done(claim.Record, "receipt"))
	if finished.Record.Version.Compare(claim.Record.Version) <= 0 || !finished.Unconfirmed {
		t.Fatalf("completed as %+v", finished)
	}
	if r, err := p.CompareAndSwap(t.Context(), claim.Record.Version, n.done(claim.Record, "again")); !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != finished.Record.Nonce {
		t.Fatalf("a completion over an old version: %+v, %v", r, err)
	}
	if r := read(t, p, next.Digest); string(r.Record.Result) != "receipt" || !r.Unconfirmed {
		t.Fatalf("read %+v", r)
	}
	if st := p.Stats(); st.Grants != 1 || st.Local != 1 {
		t.Fatalf("counted %+v", st)
	}
	p.way.set(false)
	p.reconciled(t)
	r := read(t, p, next.Digest)
	if r.Unconfirmed || r.Record.Version.Epoch == 0 || r.Record.Nonce != finished.Record.Nonce || string(r.Record.Result) != "receipt" || r.Record.Owner != next.Owner {
		t.Errorf("after the outage: %+v", r)
	}
	if st := p.Stats(); st.Reconciled != 1 || st.Conflicts != 0 || st.Down {
		t.Errorf("counted %+v", st)
	}
	if r := read(t, main, next.Digest); r.Record.Nonce != finished.Record.Nonce {
		t.Errorf("the main store holds %+v", r)
	}
}

// Two processes that cannot reach their store both run. One answer stands, and
// exactly one conflict tells of the other (INVARIANTS M5, M6).
func TestTwoProcessesApart(t *testing.T) {
	main := memory.New(memory.Options{})
	a, b := newProcess(t, main, available.Options{}), newProcess(t, main, available.Options{})
	strict := breakable(main)
	guards := [...]*semel.Guard{guard(t, a), guard(t, b), guard(t, strict)}
	a.way.set(true)
	b.way.set(true)
	strict.set(true)
	run := func(g *semel.Guard, text string) (semel.Answer, error) {
		return g.Do(t.Context(), ask(t, "k"), func(context.Context) (semel.Result, error) {
			return semel.Result{Code: 201, Data: []byte(text)}, nil
		})
	}
	for i, text := range []string{"by a", "by b"} {
		if answer, err := run(guards[i], text); err != nil || string(answer.Data) != text || !answer.Unconfirmed || answer.Replayed {
			t.Fatalf("process %d while apart: %+v, %v", i, answer, err)
		}
		if answer, err := run(guards[i], "again"); err != nil || string(answer.Data) != text || !answer.Unconfirmed || !answer.Replayed {
			t.Fatalf("a duplicate in process %d while apart: %+v, %v", i, answer, err)
		}
	}
	if answer, err := run(guards[2], "strictly"); !errors.Is(err, semel.ErrUnavailable) {
		t.Errorf("a strict guard during the outage: %+v, %v; want ErrUnavailable", answer, err)
	}
	a.way.set(false)
	a.reconciled(t)
	b.way.set(false)
	b.reconciled(t)
	strict.set(false)
	for i, g := range guards {
		if answer, err := run(g, "again"); err != nil || string(answer.Data) != "by a" || answer.Unconfirmed || !answer.Replayed {
			t.Errorf("guard %d after the outage: %+v, %v; want the answer that stands", i, answer, err)
		}
	}
	if len(a.told()) != 0 || len(b.told()) != 1 || b.Stats().Conflicts != 1 {
		t.Fatalf("%d and %d conflicts were told, want 0 and 1", len(a.told()), len(b.told()))
	}
	if c := b.told()[0]; string(c.Local.Result) != "by b" || string(c.Main.Result) != "by a" || c.Local.Version.Epoch != 0 {
		t.Errorf("the conflict is %+v", c)
	}
}

// A key that another finished before the outage runs again in it, and the
// conflict tells so.
func TestWhatWasFinishedBeforeIsAConflict(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	want := write(t, main, semel.Version{}, n.done(n.pending("k"), "before"))
	p := newProcess(t, main, available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	write(t, p, claim.Record.Version, n.done(claim.Record, "meanwhile"))
	p.way.set(false)
	p.reconciled(t)
	if r := read(t, p, want.Record.Digest); r.Record.Nonce != want.Record.Nonce || len(p.told()) != 1 {
		t.Errorf("the answer is %q, %d conflicts were told; want what stood before and 1", r.Record.Result, len(p.told()))
	}
}

// Another had released the key: nothing ran there, so ours is the next attempt.
func TestAReleasedKeyIsNoConflict(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	free := n.pending("k")
	free.State, free.Attempt, free.TTL = semel.Released, 3, time.Hour
	write(t, main, semel.Version{}, free)
	p := newProcess(t, main, available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	next := n.done(claim.Record, "receipt")
	write(t, p, claim.Record.Version, next)
	p.way.set(false)
	p.reconciled(t)
	if r := read(t, main, next.Digest); r.Record.Nonce != next.Nonce || r.Record.Attempt != 4 || len(p.told()) != 0 {
		t.Errorf("the main store holds %+v, %d conflicts were told", r.Record, len(p.told()))
	}
}

// A conflict is told once, also if the local record cannot be dropped at first.
func TestAConflictIsToldOnce(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	write(t, main, semel.Version{}, n.done(n.pending("k"), "another's"))
	local := breakable(memory.New(memory.Options{}))
	local.Before = func(_ context.Context, c callOf) error {
		if c.Writes() && local.off.Load() {
			return errDown
		}
		return nil
	}
	p := newProcess(t, main, available.Options{Local: local})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	write(t, p, claim.Record.Version, n.done(claim.Record, "ours"))
	local.set(true)
	p.way.set(false)
	settled(t, "dropping it failed several times", func() bool { return p.Stats().Failed >= 5 })
	local.set(false)
	p.reconciled(t)
	if len(p.told()) != 1 || p.Stats().Conflicts != 1 {
		t.Errorf("%d conflicts were told, %d counted; want 1", len(p.told()), p.Stats().Conflicts)
	}
}

// The claim's answer was lost, but it had landed in the main store: that is our
// own, and no conflict.
func TestALandedClaimIsRecognised(t *testing.T) {
	for _, end := range []string{"done", "released", "in doubt"} {
		t.Run(end, func(t *testing.T) {
			var n nonces
			main := memory.New(memory.Options{})
			p := newProcess(t, main, available.Options{})
			p.way.lose.Store(true)
			claim := write(t, p, semel.Version{}, n.pending("k"))
			if r := read(t, main, claim.Record.Digest); r.Record.Nonce != claim.Record.Nonce || !claim.Unconfirmed {
				t.Fatalf("the case is wrong: main holds %+v", r)
			}
			p.way.lose.Store(false)
			renewed := n.pending("k") // another nonce, the same claim
			claim = write(t, p, claim.Record.Version, renewed)
			next := n.done(claim.Record, "receipt")
			switch end {
			case "released":
				next.State, next.Result, next.Replay = semel.Released, nil, 0
			case "in doubt":
				next.State, next.Result, next.Replay, next.TTL = semel.Pending, nil, 0, 0
			}
			write(t, p, claim.Record.Version, next)
			p.reconciled(t)
			r := read(t, main, next.Digest)
			if r.Record.Nonce != next.Nonce || r.Record.State != next.State || string(r.Record.Result) != string(next.Result) {
				t.Errorf("the main store holds %+v", r.Record)
			}
			if end == "in doubt" && !r.Record.InDoubt(r.Now) {
				t.Error("it is not in doubt")
			}
			if st := p.Stats(); st.Conflicts != 0 || st.Reconciled != 1 {
				t.Errorf("counted %+v", st)
			}
		})
	}
}

// A push whose answers are lost is repeated and recognised.
func TestALostPushIsRecognised(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	p := newProcess(t, main, available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	next := n.done(claim.Record, "receipt")
	write(t, p, claim.Record.Version, next)
	p.way.lose.Store(true)
	p.way.set(false)
	settled(t, "the push has landed", func() bool { return read(t, main, next.Digest).Record.Nonce == next.Nonce })
	if p.Stats().Local != 1 {
		t.Error("it was dropped locally though nobody knew that it was pushed")
	}
	p.way.lose.Store(false)
	p.reconciled(t)
	if st := p.Stats(); st.Conflicts != 0 || st.Reconciled != 1 || read(t, main, next.Digest).Record.Nonce != next.Nonce {
		t.Errorf("counted %+v", st)
	}
}

// A claim that the main store has granted is completed there or not at all.
func TestACompletionOfAMainClaimIsNotMadeLocally(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	p := newProcess(t, main, available.Options{})
	claim := write(t, p, semel.Version{}, n.pending("k"))
	if claim.Unconfirmed || claim.Record.Version.Epoch == 0 {
		t.Fatalf("claimed as %+v", claim)
	}
	p.way.set(true)
	for range 5 {
		if r, err := p.CompareAndSwap(t.Context(), claim.Record.Version, n.done(claim.Record, "receipt")); !errors.Is(err, errDown) {
			t.Fatalf("got %+v, %v; want the main store's error", r, err)
		}
	}
	if st := p.Stats(); st.Local != 0 || st.Grants != 0 {
		t.Errorf("counted %+v", st)
	}
}

func TestASlowStoreIsNotWaitedFor(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	release := make(chan struct{})
	slow := breakable(main)
	slow.Before = func(context.Context, callOf) error { <-release; return nil } // heeds no context
	s, err := available.New(slow, available.Options{Local: memory.New(memory.Options{}), Patience: time.Millisecond, Retry: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	claim := write(t, s, semel.Version{}, n.pending("k"))
	if !claim.Unconfirmed {
		t.Error("not flagged")
	}
	next := n.done(claim.Record, "receipt")
	write(t, s, claim.Record.Version, next)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := s.CompareAndSwap(ctx, semel.Version{}, n.pending("other")); err == nil || s.Stats().Grants != 1 {
		t.Errorf("who has left was granted locally: %+v", r)
	}
	close(release)
	settled(t, "the claim has landed late, and was completed over", func() bool {
		return read(t, main, next.Digest).Record.Nonce == next.Nonce
	})
	settled(t, "nothing is held locally", func() bool { return s.Stats().Local == 0 })
	if st := s.Stats(); st.Conflicts != 0 {
		t.Errorf("counted %+v", st)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhoLeavesIsNotGrantedLocally(t *testing.T) {
	var n nonces
	slow := breakable(memory.New(memory.Options{}))
	entered, release := make(chan struct{}), make(chan struct{})
	slow.Before = func(context.Context, callOf) error { close(entered); <-release; return nil }
	p := newProcess(t, slow, available.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if r, err := p.CompareAndSwap(ctx, semel.Version{}, n.pending("k")); !errors.Is(err, context.Canceled) || p.Stats().Grants != 0 {
		t.Errorf("got %+v, %v; want the cancellation", r, err)
	}
	close(release)
}

// One lost call is no outage: other keys are not claimed locally for it. In one,
// nobody waits for the main store any more.
func TestTheStoreIsDownAfterSeveralFailures(t *testing.T) {
	var n nonces
	p := newProcess(t, memory.New(memory.Options{}), available.Options{Retry: time.Hour})
	p.way.set(true)
	write(t, p, semel.Version{}, n.pending("a"))
	p.way.set(false)
	if r := write(t, p, semel.Version{}, n.pending("b")); r.Unconfirmed {
		t.Error("one failure made the next key local")
	}
	p.way.set(true)
	for _, id := range []string{"c", "d", "e"} {
		write(t, p, semel.Version{}, n.pending(id))
	}
	settled(t, "the background has looked", func() bool { return p.Stats().Down && p.way.calls.Load() == 6 })
	for _, id := range []string{"f", "g", "h"} {
		r := write(t, p, semel.Version{}, n.pending(id))
		write(t, p, r.Record.Version, n.done(r.Record, "receipt"))
		if !r.Unconfirmed {
			t.Error("not flagged")
		}
		if _, err := p.Get(t.Context(), semel.Digest{9}); err == nil {
			t.Error("a read of a key that is not held locally was answered")
		}
	}
	if calls := p.way.calls.Load(); calls != 6 {
		t.Errorf("%d calls more of a store that is down", calls-6)
	}
}

// flap switches both ways to the main store on and off until calm is called.
func flap(a, b *process) (calm func()) {
	stop := make(chan struct{})
	var flaps sync.WaitGroup
	flaps.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
			a.way.set(i%3 == 0)
			b.way.set(i%5 < 2)
			a.way.lose.Store(i%7 == 0)
			b.way.lose.Store(i%4 == 0)
		}
	})
	return func() {
		close(stop)
		flaps.Wait()
	}
}

// Through flapping, lost answers and lost requests every key keeps one answer
// once the store is back, and no run goes untold.
func TestFlapping(t *testing.T) {
	main := memory.New(memory.Options{})
	a, b := newProcess(t, main, available.Options{}), newProcess(t, main, available.Options{})
	guards := [...]*semel.Guard{guard(t, a), guard(t, b)}
	var mu sync.Mutex
	runs := map[string]int{}
	var wg sync.WaitGroup
	calm := flap(a, b)
	const keys = 60
	for w := range 8 {
		wg.Go(func() {
			for i := range 30 * keys {
				id := string(rune('A' + (i+w)%keys))
				_, err := guards[w%2].Do(t.Context(), ask(t, id), func(context.Context) (semel.Result, error) {
					mu.Lock()
					defer mu.Unlock()
					runs[id]++
					return semel.Result{Code: 201, Data: []byte{byte(w)}}, nil
				})
				if err != nil && !errors.Is(err, semel.ErrUnavailable) && !errors.Is(err, semel.ErrInDoubt) && !errors.Is(err, semel.ErrInProgress) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	calm()
	for _, p := range []*process{a, b} {
		p.way.set(false)
		p.way.lose.Store(false)
		p.reconciled(t)
	}
	twice := 0
	for id, n := range runs {
		if n > 1 {
			twice += n - 1
		}
		x, y := read(t, a, guards[0].Digest(ask(t, id).Key)), read(t, b, guards[0].Digest(ask(t, id).Key))
		if x.Unconfirmed || y.Unconfirmed || x.Record.Nonce != y.Record.Nonce {
			t.Errorf("key %s: %+v and %+v", id, x, y)
		}
	}
	told := len(a.told()) + len(b.told())
	if twice > told {
		t.Errorf("%d runs too many, %d conflicts were told", twice, told)
	}
	if told == 0 || a.Stats().Grants == 0 || b.Stats().Grants == 0 {
		t.Error("the walk has no weight")
	}
	t.Logf("%d keys: %d runs too many, %d conflicts, %d + %d grants", len(runs), twice, told, a.Stats().Grants, b.Stats().Grants)
}
