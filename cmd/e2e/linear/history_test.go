package linear

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/storetest"
)

// size is how large a history is.
type size struct {
	clients, operations, keys int // operations are of one client
}

// record lets clients loose on stores, which are one store in several
// processes, and writes down what they did.
func record(t *testing.T, stores []semel.Store, n size, final bool, seed uint64) []porcupine.Operation {
	t.Helper()
	for i := range stores {
		stores[i] = jostle(stores[i])
	}
	start := time.Now()
	clients := make([]client, n.clients)
	var wg sync.WaitGroup
	for i := range clients {
		c := &clients[i]
		*c = client{
			id: i, store: stores[i%len(stores)], start: start, rand: rand.New(rand.NewPCG(seed, uint64(i))),
			final: final, known: make([]semel.Version, n.keys), finished: make([]bool, n.keys),
		}
		wg.Go(func() {
			for range n.operations {
				if c.err = c.operate(t.Context()); c.err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	var history []porcupine.Operation
	for i := range clients {
		if err := clients[i].err; err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		history = append(history, clients[i].done...)
	}
	return history
}

// jostle has callers give way to each other before and after each call, so that
// the calls of a fast store overlap on few processors, too.
func jostle(s semel.Store) semel.Store {
	giveWay := func(context.Context, storetest.Call) error { runtime.Gosched(); return nil }
	return &storetest.Faulty{Store: s, Before: giveWay, After: giveWay}
}

// client makes one operation after the other.
type client struct {
	id     int
	store  semel.Store
	start  time.Time
	rand   *rand.Rand
	known  []semel.Version // by key: as last seen by this client
	writes uint64
	done   []porcupine.Operation
	err    error
	// final: no swap over a record that is known to be finished, as guards do it.
	final    bool
	finished []bool // by key: as last seen by this client
}

func (c *client) operate(ctx context.Context) error {
	in := input{Key: c.rand.IntN(len(c.known)), Swap: c.rand.IntN(10) < 7}
	if in.Swap {
		c.writes++
		in.Nonce = uint64(c.id)<<32 | c.writes
		in.Old = c.known[in.Key]
		if c.rand.IntN(20) == 0 || c.final && c.finished[in.Key] {
			in.Old = semel.Version{} // an insert
		}
	}
	call := time.Since(c.start)
	out, err := c.carryOut(ctx, in)
	back := time.Since(c.start)
	if err != nil {
		return err
	}
	if !out.Unknown && c.rand.IntN(10) > 0 { // now and then it goes on with an old version
		c.known[in.Key] = out.Held.Version
	}
	// An unknown swap has ended as well: a record of another version was seen over
	// which it cannot be written any more, even if it still is on its way.
	c.done = append(c.done, porcupine.Operation{
		ClientId: c.id, Input: in, Output: out, Call: call.Nanoseconds(), Return: back.Nanoseconds(),
	})
	return nil
}

// carryOut does what a guard does: it repeats what got no answer, and knows its
// own write by the nonce.
func (c *client) carryOut(ctx context.Context, in input) (output, error) {
	digest := semel.Key{Scope: "linear", ID: fmt.Sprint(in.Key)}.Digest(nil)
	next := semel.Record{Digest: digest, State: semel.Pending, Attempt: 1, TTL: time.Hour, Owner: fmt.Sprint("client ", c.id)}
	binary.BigEndian.PutUint64(next.Nonce[:], in.Nonce)
	if c.rand.IntN(4) == 0 {
		next.State, next.Result, next.Replay = semel.Done, fmt.Append(nil, "result of ", in.Nonce), time.Hour
	}
	lost := false
	for range 100 {
		var r semel.Reading
		var err error
		if in.Swap {
			r, err = c.store.CompareAndSwap(ctx, in.Old, next)
		} else {
			r, err = c.store.Get(ctx, digest)
		}
		if err == nil || errors.Is(err, semel.ErrConflict) {
			c.finished[in.Key] = r.Record.State == semel.Done
			if c.finished[in.Key] != (r.Record.Result != nil) {
				return output{}, fmt.Errorf("a %v record came with the result %q", r.Record.State, r.Record.Result)
			}
		}
		h := held{binary.BigEndian.Uint64(r.Record.Nonce[:8]), r.Record.Version}
		switch {
		case err == nil:
			return output{Wrote: in.Swap, Held: h}, nil
		case errors.Is(err, semel.ErrConflict) && lost && h.Nonce == in.Nonce:
			return output{Wrote: true, Held: h}, nil
		case errors.Is(err, semel.ErrConflict) && lost:
			return output{Unknown: true}, nil
		case errors.Is(err, semel.ErrConflict):
			return output{Held: h}, nil
		case !errors.Is(err, storetest.ErrLost):
			return output{}, err
		}
		lost = true
	}
	return output{}, errors.New("100 answers in a row were lost")
}

// checkTime bounds the search of one history.
const checkTime = time.Minute

// judge checks one history. A bad one is drawn, as a page that -artifacts keeps.
func judge(t *testing.T, name string, history []porcupine.Operation) porcupine.CheckResult {
	t.Helper()
	m := model()
	result, info := porcupine.CheckOperationsVerbose(m, history, checkTime)
	if result != porcupine.Ok {
		path := fmt.Sprintf("%s/%s.html", t.ArtifactDir(), name)
		text := fmt.Sprintf("%s/%s.txt", t.ArtifactDir(), name)
		if err := errors.Join(porcupine.VisualizePath(m, info, path), os.WriteFile(text, format(history), 0o600)); err != nil {
			t.Error(err)
		}
		t.Logf("%s is drawn in %s and written in %s (go test -artifacts keeps them); put the text into testdata/illegal", name, path, text)
	}
	return result
}
