package available_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
)

func TestBeyondMaxLocalNewKeysAreRefused(t *testing.T) {
	var n nonces
	p := newProcess(t, memory.New(memory.Options{}), available.Options{MaxLocal: 3})
	p.way.set(true)
	for i := range 3 {
		write(t, p, semel.Version{}, n.pending(fmt.Sprint(i)))
	}
	r, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("3"))
	if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) || !strings.Contains(err.Error(), "3 keys are held locally") {
		t.Fatalf("the fourth of three: %+v, %v", r, err)
	}
	g := read(t, p, n.pending("1").Digest) // those that are held go on
	write(t, p, g.Record.Version, n.done(g.Record, "receipt"))
	p.way.set(false)
	settled(t, "there is room again", func() bool { return p.Stats().Local == 2 })
	settled(t, "what was brought over is swept", func() bool {
		all, err := p.local.List(t.Context(), semel.Filter{})
		return err == nil && len(all) == 2
	})
	p.way.set(true)
	write(t, p, semel.Version{}, n.pending("3"))
}

// A local store that outlives the process: its heir reconciles what it holds,
// in doubt what nobody completed.
func TestARestart(t *testing.T) {
	var n nonces
	at := time.Now()
	main := memory.New(memory.Options{})
	local := memory.New(memory.Options{Now: func() time.Time { return at }})
	first := newProcess(t, main, available.Options{Local: local})
	first.way.set(true)
	finished := write(t, first, semel.Version{}, n.pending("finished"))
	finished = write(t, first, finished.Record.Version, n.done(finished.Record, "receipt"))
	open := write(t, first, semel.Version{}, n.pending("open"))
	if err := first.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "2 keys are still held locally") {
		t.Errorf("Close: %v; want how many are left", err)
	}

	second := newProcess(t, main, available.Options{Local: local})
	settled(t, "the finished one is in the main store", func() bool {
		return second.Stats().Local == 1 && read(t, main, finished.Record.Digest).Record.Nonce == finished.Record.Nonce
	})
	if r := read(t, second, open.Record.Digest); r.Record.Nonce != open.Record.Nonce || !r.Unconfirmed {
		t.Errorf("the open one is %+v", r)
	}
	if err := second.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "1 keys are still held") {
		t.Errorf("Close: %v", err)
	}

	at = at.Add(time.Hour) // its lease and all that may follow are over
	third := newProcess(t, main, available.Options{Local: local})
	third.reconciled(t)
	if r := read(t, main, open.Record.Digest); !r.Record.InDoubt(r.Now) || r.Record.Nonce != open.Record.Nonce {
		t.Errorf("the open one is %+v; want it in doubt", r.Record)
	}
	if err := third.Close(t.Context()); err != nil {
		t.Error(err)
	}
	left, err := local.List(t.Context(), semel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range left {
		if r.Owner != "reconciled" {
			t.Errorf("left in the local store: %+v", r)
		}
	}
	fourth := newProcess(t, main, available.Options{Local: local})
	if st := fourth.Stats(); st.Local != 0 {
		t.Errorf("what was dropped is there again: %+v", st)
	}
}

func TestARestartWithManyKeys(t *testing.T) {
	const keys = 2500
	var n nonces
	main, local := memory.New(memory.Options{}), memory.New(memory.Options{})
	first := newProcess(t, main, available.Options{Local: local, Retry: time.Hour})
	first.way.set(true)
	for i := range keys {
		claim := write(t, first, semel.Version{}, n.pending(fmt.Sprint(i)))
		write(t, first, claim.Record.Version, n.done(claim.Record, "receipt"))
	}
	if err := first.Close(t.Context()); err == nil {
		t.Error("Close did not tell what is left")
	}
	second := newProcess(t, main, available.Options{Local: local, MaxLocal: 10})
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	all, err := main.List(t.Context(), semel.Filter{Limit: 2 * keys})
	if err != nil || len(all) != keys || second.Stats().Reconciled < keys { // one that had to be tried again counts twice
		t.Errorf("%d of %d keys are in the main store (%v): %+v", len(all), keys, err, second.Stats())
	}
}

// While a key is held locally, it is held: also when the main store, which
// knows nothing of it, answers again.
func TestAPendingLocalKeyStaysHeld(t *testing.T) {
	var n nonces
	p := newProcess(t, memory.New(memory.Options{}), available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	p.way.set(false)
	for range 3 {
		r, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k"))
		if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != claim.Record.Nonce || !r.Unconfirmed {
			t.Fatalf("got %+v, %v; want the local claim", r, err)
		}
		out := p.SwapMany(t.Context(), []semel.Swap{{Next: n.pending("k")}, {Next: n.pending("other")}})
		if !errors.Is(out[0].Err, semel.ErrConflict) || out[0].Reading.Record.Nonce != claim.Record.Nonce {
			t.Fatalf("in a batch: %+v; want the local claim", out[0])
		}
	}
}

func TestABatchGoesOn(t *testing.T) {
	var n nonces
	p := newProcess(t, memory.New(memory.Options{}), available.Options{})
	held := write(t, p, semel.Version{}, n.pending("held"))
	p.way.set(true)
	swaps := []semel.Swap{{Next: n.pending("a")}, {Old: held.Record.Version, Next: n.done(held.Record, "receipt")}, {Next: n.pending("b")}}
	out := p.SwapMany(t.Context(), swaps)
	if out[0].Err != nil || !out[0].Reading.Unconfirmed || out[2].Err != nil || !out[2].Reading.Unconfirmed {
		t.Errorf("inserts of a batch: %+v, %+v; want them made locally", out[0], out[2])
	}
	if !errors.Is(out[1].Err, errDown) {
		t.Errorf("a completion of a main claim: %+v; want the main store's error", out[1])
	}
}

// Nobody completes over what was given up: the answer is what the main store
// has of it.
func TestACompletionAfterReconcilingIsAConflict(t *testing.T) {
	var n nonces
	p := newProcess(t, memory.New(memory.Options{}), available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	doubt := n.pending("k")
	doubt.TTL = 0
	write(t, p, claim.Record.Version, doubt)
	p.way.set(false)
	p.reconciled(t)
	r, err := p.CompareAndSwap(t.Context(), claim.Record.Version, n.done(claim.Record, "receipt"))
	if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != doubt.Nonce || r.Record.State != semel.Pending || r.Unconfirmed {
		t.Errorf("got %+v, %v; want what the main store holds", r, err)
	}
}

// While the main store answers, an access brings the key there before it is
// answered; the answer is not flagged.
func TestAnAccessReconcilesItsKey(t *testing.T) {
	var n nonces
	for _, verb := range []string{"get", "insert"} {
		p := newProcess(t, memory.New(memory.Options{}), available.Options{Retry: time.Hour})
		p.way.set(true)
		claim := write(t, p, semel.Version{}, n.pending("k"))
		next := n.done(claim.Record, "receipt")
		write(t, p, claim.Record.Version, next)
		settled(t, "the background has tried and failed", func() bool { return p.Stats().Failed > 0 })
		p.way.set(false)
		var r semel.Reading
		if verb == "get" {
			r = read(t, p, next.Digest)
		} else {
			var err error
			if r, err = p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k")); !errors.Is(err, semel.ErrConflict) {
				t.Fatal(err)
			}
		}
		if r.Unconfirmed || r.Record.Nonce != next.Nonce || r.Record.Version.Epoch == 0 || p.Stats().Local != 0 {
			t.Errorf("%s gave %+v", verb, r)
		}
	}
}

// rejecting is a store that takes no results.
type rejecting struct{ semel.Store }

func (s rejecting) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if next.Result != nil {
		return semel.Reading{}, fmt.Errorf("too large: %w", semel.ErrRejected)
	}
	return s.Store.CompareAndSwap(ctx, old, next)
}

func TestAResultThatTheMainStoreRejectsIsLeftOut(t *testing.T) {
	var n nonces
	main := memory.New(memory.Options{})
	p := newProcess(t, rejecting{main}, available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	next := n.done(claim.Record, "receipt")
	write(t, p, claim.Record.Version, next)
	p.way.set(false)
	p.reconciled(t)
	if r := read(t, main, next.Digest); r.Record.Nonce != next.Nonce || r.Record.Result != nil || r.Record.Replay != 0 {
		t.Errorf("the main store holds %+v", r.Record)
	}
	if _, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k")); !errors.Is(err, semel.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

// Another runs the key in the main store, or nobody knows how it ended there:
// that is not ours to complete.
func TestAnothersClaimIsAConflict(t *testing.T) {
	for name, lease := range map[string]time.Duration{"running": time.Hour, "in doubt": 0} {
		var n nonces
		main := memory.New(memory.Options{})
		theirs := n.pending("k")
		theirs.TTL = lease
		want := write(t, main, semel.Version{}, theirs)
		p := newProcess(t, main, available.Options{})
		p.way.set(true)
		claim := write(t, p, semel.Version{}, n.pending("k"))
		write(t, p, claim.Record.Version, n.done(claim.Record, "receipt"))
		p.way.set(false)
		p.reconciled(t)
		if r := read(t, main, theirs.Digest); r.Record.Version != want.Record.Version || len(p.told()) != 1 {
			t.Errorf("%s: the main store holds %+v, %d conflicts were told; want it untouched and 1", name, r.Record, len(p.told()))
		}
	}
}

// refusing is a store that takes no finished records at all.
type refusing struct{ semel.Store }

func (s refusing) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if next.State == semel.Done {
		return semel.Reading{}, semel.ErrRejected
	}
	return s.Store.CompareAndSwap(ctx, old, next)
}

func TestWhatCannotBeBroughtOverIsKept(t *testing.T) {
	var n nonces
	p := newProcess(t, refusing{memory.New(memory.Options{})}, available.Options{})
	p.way.set(true)
	claim := write(t, p, semel.Version{}, n.pending("k"))
	next := n.done(claim.Record, "receipt")
	next.TTL = 0 // past its time at once
	write(t, p, claim.Record.Version, next)
	p.way.set(false)
	settled(t, "it was tried several times", func() bool { return p.Stats().Failed >= 5 })
	if r := read(t, p, next.Digest); r.Record.Nonce != next.Nonce || !r.Unconfirmed {
		t.Errorf("got %+v", r)
	}
}

// What the main store answers is its answer, also if it is an error.
func TestAnAnswerIsNoOutage(t *testing.T) {
	var n nonces
	p := newProcess(t, rejecting{memory.New(memory.Options{})}, available.Options{})
	for range 5 {
		if _, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.done(n.pending("k"), "receipt")); !errors.Is(err, semel.ErrRejected) {
			t.Fatalf("got %v", err)
		}
	}
	if st := p.Stats(); st.Grants != 0 || st.Down {
		t.Errorf("counted %+v", st)
	}
}

func TestALocalStoreThatFails(t *testing.T) {
	var n nonces
	local := breakable(memory.New(memory.Options{}))
	p := newProcess(t, memory.New(memory.Options{}), available.Options{Local: local})
	p.way.set(true)
	local.set(true)
	if r, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k")); err == nil || errors.Is(err, semel.ErrConflict) || !strings.Contains(err.Error(), "the local store") {
		t.Errorf("got %+v, %v; want an error that names the local store", r, err)
	}
	p.way.set(false)
	// Whether it is held locally cannot be told, so it is not granted either.
	if r, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k")); err == nil {
		t.Errorf("granted %+v", r)
	}
	local.set(false)
	settled(t, "the key is free", func() bool {
		r, err := p.CompareAndSwap(t.Context(), semel.Version{}, n.pending("k"))
		return err == nil && !r.Unconfirmed
	})
}

func TestGuardsStartWithoutTheStore(t *testing.T) {
	p := newProcess(t, memory.New(memory.Options{}), available.Options{})
	p.way.set(true)
	g := guard(t, p)
	claim, v, err := g.Begin(t.Context(), ask(t, "k"))
	if err != nil || claim == nil || !claim.Unconfirmed() || !v.Unconfirmed {
		t.Fatalf("got %+v, %+v, %v; want a flagged claim", claim, v, err)
	}
	if r, err := claim.Complete(semel.Result{Code: 201, Data: []byte("receipt")}); err != nil || r.Version.Epoch != 0 {
		t.Errorf("completed as %+v, %v", r, err)
	}
	p.way.set(false)
	p.reconciled(t)
	if st := p.Stats(); st.Conflicts != 0 {
		t.Errorf("counted %+v", st)
	}
}

type mute struct{ semel.Store }

func TestBadOptions(t *testing.T) {
	main, local, foreign := memory.New(memory.Options{}), memory.New(memory.Options{}), memory.New(memory.Options{})
	var n nonces
	write(t, foreign, semel.Version{}, n.pending("another's"))
	down := breakable(local)
	down.set(true)
	for _, bad := range []struct {
		main    semel.Store
		options available.Options
		want    string
	}{
		{nil, available.Options{Local: local}, "a main store is needed"},
		{main, available.Options{}, "Options.Local is nil"},
		{main, available.Options{Local: main}, "Options.Local is the main store"},
		{main, available.Options{Local: mute{local}}, "cannot list"},
		{main, available.Options{Local: foreign}, `holds the key "another's", which was not written by this package`},
		{main, available.Options{Local: local, Patience: -1}, "Patience -1ns"},
		{main, available.Options{Local: local, Retry: -time.Second}, "Retry -1s"},
		{main, available.Options{Local: local, MaxLocal: -1}, "MaxLocal -1"},
	} {
		if s, err := available.New(bad.main, bad.options); err == nil || s != nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("New gave %v; want an error with %q", err, bad.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	p := newProcess(t, memory.New(memory.Options{}), available.Options{})
	d, ok := semel.As[semel.Describer](p.Store)
	if !ok || len(d.Describe().Cautions) == 0 || !strings.Contains(strings.Join(d.Describe().Cautions, " "), "may run twice") {
		t.Errorf("got %+v", d.Describe())
	}
}
