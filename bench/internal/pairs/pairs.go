// Package pairs has what benches of stores share: operations that are claimed
// and completed, by many callers, one after the other each. Only this module's
// packages can import it.
package pairs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/bench/internal/rounds"
)

// Record is the n-th operation as it is claimed.
func Record(n uint64) semel.Record {
	key := semel.Key{Scope: "tenant-7|user-42|POST /payments", ID: fmt.Sprintf("order-%010d", n)}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.Fingerprint{1, 2, 3}, State: semel.Pending,
		Nonce: semel.Nonce{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 1}, Attempt: 1,
		TTL: 30 * time.Second, Key: key, Owner: "host-1:4242",
	}
}

// Finished is r as it is completed.
func Finished(r semel.Record) semel.Record {
	r.Nonce[5]++
	r.State, r.Code, r.Result = semel.Done, 201, answer()
	r.TTL, r.Replay = 72*time.Hour, 24*time.Hour
	return r
}

// answer is a small API's answer, in bytes of its own as a request has them.
func answer() []byte {
	return []byte(`{"id":"pay_9f2c1e7a","object":"payment","amount":1999,"currency":"eur","status":"captured","created":1794816000,"customer":"cus_42","description":"order 4711"}`)
}

// Operation does one thing, the n-th.
type Operation func(n uint64) error

// Counter numbers operations, so that no two sides or rounds share one.
type Counter struct{ next atomic.Uint64 }

// Skip makes n the number of the last operation.
func (c *Counter) Skip(n uint64) { c.next.Store(n) }

// Side lets callers do operations, one after the other each.
func (c *Counter) Side(name string, callers int, do Operation) rounds.Side {
	return rounds.Side{Name: name, Measure: func(ctx context.Context, d time.Duration) (rounds.Sample, error) {
		samples, errs := make([]rounds.Sample, callers), make([]error, callers)
		var wg sync.WaitGroup
		start := time.Now()
		end := start.Add(d)
		for i := range callers {
			wg.Go(func() {
				for from := time.Now(); from.Before(end) && errs[i] == nil && ctx.Err() == nil; {
					errs[i] = do(c.next.Add(1))
					to := time.Now()
					samples[i].Saw(to.Sub(from))
					from = to
				}
			})
		}
		wg.Wait()
		var sum rounds.Sample
		for i := range samples {
			sum.Add(&samples[i])
		}
		sum.Took = time.Since(start)
		return sum, errors.Join(errs...)
	}}
}

// Of claims and completes in a store.
func Of(store semel.Store) Operation {
	return func(n uint64) error {
		r := Record(n)
		claim, err := store.CompareAndSwap(context.Background(), semel.Version{}, r)
		if err != nil {
			return err
		}
		_, err = store.CompareAndSwap(context.Background(), claim.Record.Version, Finished(r))
		return err
	}
}

// Duplicate asks for a key of which held are held, as a retry does.
func Duplicate(store semel.Store, held uint64) Operation {
	return func(uint64) error {
		r, err := store.CompareAndSwap(context.Background(), semel.Version{}, Record(rand.Uint64N(held)))
		if !errors.Is(err, semel.ErrConflict) || r.Record.Result == nil {
			return fmt.Errorf("a duplicate of a key that is held gave %w", errors.Join(err, errors.New("no result")))
		}
		return nil
	}
}

// Read reads a key of which held are held, as a waiter does.
func Read(store semel.Store, held uint64) Operation {
	return func(uint64) error {
		d := Record(rand.Uint64N(held)).Digest
		r, err := store.Get(context.Background(), d)
		if err == nil && !r.Record.Held() {
			err = errors.New("a key that is held is not found")
		}
		return err
	}
}

// Fill inserts the finished operations from up to, but without, to.
func Fill(store semel.Batcher, from, to uint64) error {
	const chunk = 5000
	for from < to {
		var swaps []semel.Swap
		for ; from < to && len(swaps) < chunk; from++ {
			swaps = append(swaps, semel.Swap{Next: Finished(Record(from))})
		}
		for _, done := range store.SwapMany(context.Background(), swaps) {
			if done.Err != nil {
				return done.Err
			}
		}
	}
	return nil
}
