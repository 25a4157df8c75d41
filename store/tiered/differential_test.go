package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

// TestC5_NoCacheChangesAnAnswer takes the same walk with and without caches
// that fail in every way, and compares every byte of every answer.
func TestC5_NoCacheChangesAnAnswer(t *testing.T) {
	hits, graves := uint64(0), 0
	for seed := range uint64(300) {
		h, g := walk(t, seed)
		hits, graves = hits+h, graves+g
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if graves < 1000 {
		t.Errorf("the sweeps left %d tombstones", graves)
	}
	if hits < 10_000 {
		t.Errorf("the caches gave %d answers; the comparison has no weight", hits)
	}
}

type walker struct {
	rand    *rand.Rand
	at      *clock
	plain   *memory.Store
	cached  *memory.Store
	tiered  *tiered.Store
	digests []semel.Digest
	nonces  int
	graves  int // tombstones that were read
	log     []string
}

func walk(t *testing.T, seed uint64) (hits uint64, graves int) {
	at := newClock()
	w := &walker{
		rand: rand.New(rand.NewPCG(seed, 1)), at: at,
		plain: memory.New(memory.Options{Now: at.now}), cached: memory.New(memory.Options{Now: at.now}),
	}
	far := newWicked(seed + 1000)
	far.hangs = 0
	w.tiered = newStore(t, w.cached, hard(at.now, promptly{newWicked(seed)}, &near{}, far, &shared{}))
	for i := range 6 {
		w.digests = append(w.digests, semel.Key{Scope: "tenant", ID: fmt.Sprint(i)}.Digest(nil))
	}
	for step := range 250 {
		want, got := w.step()
		if got != want {
			t.Errorf("seed %d, step %d: %s\n\twithout cache: %s\n\twith caches:   %s", seed, step, w.log[len(w.log)-1], want, got)
			break
		}
	}
	for _, tier := range w.tiered.Stats().Tiers {
		hits += tier.Hits
	}
	return hits, w.graves
}

// step makes one call of each store and gives both answers as text.
func (w *walker) step() (want, got string) {
	ctx := context.Background()
	d := w.digests[w.rand.IntN(len(w.digests))]
	note := func(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }
	switch n := w.rand.IntN(20); {
	case n < 6:
		note("Get %v", d)
		a, errA := w.plain.Get(ctx, d)
		b, errB := w.tiered.Get(ctx, d)
		if a.Record.State == semel.Done && a.Record.Replay == 0 {
			w.graves++
		}
		return text(a, errA), text(b, errB)
	case n < 17:
		s := w.swap(d)
		note("swap over %v to %v", s.Old, s.Next.State)
		a, errA := w.plain.CompareAndSwap(ctx, s.Old, s.Next)
		b, errB := w.tiered.CompareAndSwap(ctx, s.Old, s.Next)
		return text(a, errA), text(b, errB)
	case n < 18:
		swaps := make([]semel.Swap, 1+w.rand.IntN(6))
		for i := range swaps {
			swaps[i] = w.swap(w.digests[w.rand.IntN(len(w.digests))])
		}
		note("batch of %d", len(swaps))
		a, b := w.plain.SwapMany(ctx, swaps), w.tiered.SwapMany(ctx, swaps)
		for i := range swaps {
			want, got = want+text(a[i].Reading, a[i].Err), got+text(b[i].Reading, b[i].Err)
		}
		return want, got
	case n < 19:
		note("sweep")
		a, errA := w.plain.Sweep(ctx, 1000)
		sweeper, _ := semel.As[semel.Sweeper](w.tiered)
		b, errB := sweeper.Sweep(ctx, 1000)
		return fmt.Sprint(a, errA), fmt.Sprint(b, errB)
	default:
		note("time passes")
		w.at.move(time.Duration(w.rand.IntN(40)) * time.Hour)
		return "", ""
	}
}

// swap makes one over the version that is held, or over another.
func (w *walker) swap(d semel.Digest) semel.Swap {
	held, _ := w.plain.Get(context.Background(), d)
	w.nonces++
	next := semel.Record{
		Digest: d, State: semel.Pending, Nonce: semel.Nonce{byte(w.nonces), byte(w.nonces >> 8)},
		Attempt: w.nonces, TTL: time.Hour, Owner: "walker",
	}
	switch n := w.rand.IntN(5); {
	case n == 0:
		next.State = semel.Released
	case n < 4:
		next = done(next, fmt.Sprint("receipt ", w.nonces))
		switch n {
		case 2:
			next.Replay = time.Duration(1 + w.rand.IntN(int(30*time.Hour)))
		case 3:
			next.TTL = time.Duration(w.rand.IntN(50)) * time.Hour
		}
	}
	var old semel.Version
	if w.rand.IntN(2) == 0 {
		old = held.Record.Version
	}
	return semel.Swap{Old: old, Next: next}
}

func text(r semel.Reading, err error) string {
	e := r.Record.Entry()
	kind := fmt.Sprint(err)
	if errors.Is(err, semel.ErrConflict) {
		kind = "conflict"
	}
	return fmt.Sprintf("%x %x %q at %d flagged %t: %s\n", r.Record.Digest, e.AppendTo(nil), r.Record.Result, r.Now.UnixNano(), r.Unconfirmed, kind)
}
