package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

func guard(t testing.TB, s semel.Store) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func ask(id string, within time.Duration) semel.Ask {
	p, err := semel.Policy{Wait: 20 * time.Second, ClaimWithin: within}.Filled()
	if err != nil {
		panic(err)
	}
	return semel.Ask{Key: semel.Key{Scope: "tenant", ID: id}, Fingerprint: semel.FingerprintOf([]byte(id)), Policy: &p}
}

// ledger counts the effects of each key, apart from the store.
type ledger struct {
	mu   sync.Mutex
	runs map[string]int
}

func (l *ledger) run(id string) func(context.Context) (semel.Result, error) {
	return func(context.Context) (semel.Result, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.runs[id]++
		return semel.Result{Code: 201, Data: []byte("receipt of " + id)}, nil
	}
}

// settle asks for every key again: what was acknowledged is replayed, and
// nothing has run twice.
func (l *ledger) settle(t *testing.T, g *semel.Guard, acknowledged []string) {
	t.Helper()
	lost, double := 0, 0
	for _, id := range acknowledged {
		a, err := g.Do(t.Context(), ask(id, 20*time.Second), l.run(id))
		if err != nil || !a.Replayed || string(a.Data) != "receipt of "+id {
			t.Errorf("%s was acknowledged; asked again: %+v, %v", id, a, err)
			lost++
		}
	}
	for id, n := range l.runs {
		if n > 1 {
			t.Errorf("%s ran %d times", id, n)
			double++
		}
	}
	n := len(l.runs)
	t.Logf("LOST %d/%d DOUBLE %d/%d (95%%: <= %.5f)", lost, len(acknowledged), double, n, 3/float64(max(n, 1)))
}

// Without a majority no key is granted and nothing hangs; after it heals nothing
// has run twice.
func TestWithoutAMajorityNothingIsGranted(t *testing.T) {
	c := start(t, 3)
	s := open(t, c.url("quorum"))
	g, l := guard(t, s), &ledger{runs: map[string]int{}}
	var acknowledged []string
	for i := range 20 {
		id := fmt.Sprint("before ", i)
		if _, err := g.Do(t.Context(), ask(id, 5*time.Second), l.run(id)); err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, id)
	}
	leader := c.leader()
	c.stop(leader)
	c.stop((leader + 1) % 3)
	for i := range 4 {
		id := fmt.Sprint("without ", i)
		begin := time.Now()
		_, err := g.Do(t.Context(), ask(id, 300*time.Millisecond), l.run(id))
		if !errors.Is(err, semel.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", id, err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: the refusal took %v", id, took)
		}
		if l.runs[id] != 0 {
			t.Errorf("%s ran without a majority", id)
		}
	}
	c.start(leader)
	c.start((leader + 1) % 3)
	c.ready(leader)
	c.leader()
	l.settle(t, g, acknowledged)
	for i := range 4 { // each may have been disowned, or in doubt; it has run at most once
		id := fmt.Sprint("without ", i)
		_, err := g.Do(t.Context(), ask(id, 20*time.Second), l.run(id))
		t.Logf("%s, after it healed: ran %d times, %v", id, l.runs[id], err)
	}
	l.settle(t, g, nil)
}

// Callers go on while the leader is killed again and again.
func TestLosingTheLeaderLosesNothing(t *testing.T) {
	c := start(t, 3)
	s := open(t, c.url("leader"))
	g, l := guard(t, s), &ledger{runs: map[string]int{}}
	var mu sync.Mutex
	var acknowledged []string
	var failed atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			for i := 0; i < 100_000; i++ {
				select {
				case <-done:
					return
				default:
				}
				id := fmt.Sprint("k ", caller, " ", i)
				a, err := g.Do(t.Context(), ask(id, 10*time.Second), l.run(id))
				if err != nil {
					failed.Add(1)
					continue
				}
				if string(a.Data) != "receipt of "+id {
					t.Errorf("%s was answered with %q", id, a.Data)
				}
				mu.Lock()
				acknowledged = append(acknowledged, id)
				mu.Unlock()
			}
		})
	}
	for range 4 {
		progress(t, &mu, &acknowledged)
		leader := c.leader()
		c.stop(leader)
		progress(t, &mu, &acknowledged) // the other two go on
		c.start(leader)
		c.ready(leader)
	}
	close(done)
	wg.Wait()
	t.Logf("%d acknowledged, %d not", len(acknowledged), failed.Load())
	l.settle(t, g, acknowledged)
}

// progress waits until twenty more operations were acknowledged.
func progress(t *testing.T, mu *sync.Mutex, acknowledged *[]string) {
	t.Helper()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(*acknowledged)
	}
	begin := count()
	for range 6000 {
		if count() >= begin+20 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nothing was acknowledged for a minute")
}
