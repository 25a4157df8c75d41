package semel_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

// distant is a store whose answers are under way for a while.
type distant struct{ semel.Store }

func (s distant) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	time.Sleep(100 * time.Millisecond)
	return r, err
}

// INVARIANTS S7: a request that came after the outcome was known is not told
// that it is unknown, although another of its process had read so before and
// is still on its way.
func TestDoubtOfAnEarlierReadingIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		here, there := newGuard(t, store), newGuard(t, distant{store})
		a := ask(t, semel.Policy{})
		claim, _ := begin(t, here, a)
		if err := claim.Doubt(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // it is in doubt
		verdict := func() semel.Verdict {
			c, v, err := there.Begin(t.Context(), a)
			if c != nil || err != nil {
				t.Errorf("got a claim %v, error %v", c, err)
			}
			return v
		}
		var both sync.WaitGroup
		both.Go(func() {
			if v := verdict(); v.Reason != semel.InDoubt {
				t.Errorf("who asked before it was settled: %v %v, want a refusal, in doubt", v.Action, v.Reason)
			}
		})
		time.Sleep(50 * time.Millisecond)
		held, err := store.Get(t.Context(), here.Digest(a.Key))
		if err != nil {
			t.Fatal(err)
		}
		settled := held.Record
		settled.State, settled.TTL, settled.Replay, settled.Result = semel.Done, time.Hour, time.Hour, []byte("r")
		if _, err := store.CompareAndSwap(t.Context(), held.Record.Version, settled); err != nil {
			t.Fatal(err)
		}
		both.Go(func() {
			if v := verdict(); v.Action != semel.Replay {
				t.Errorf("who asked after it was settled: %v %v, want a replay", v.Action, v.Reason)
			}
		})
		both.Wait()
	})
}
