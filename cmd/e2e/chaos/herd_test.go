package chaos

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// TestHerd sends many duplicates of one key at once, over three processes that
// share one database: one run, and the same answer to all of them. The time is
// printed, and decides nothing.
func TestHerd(t *testing.T) {
	const work = 100 * time.Millisecond
	db := startPostgres(t)
	s := newScene(t, 3, 2*sizes.herds+2, db.URL("postgres"), storm.APIOptions{Work: work}, "--wait", "1m")
	s.client.Patience(2 * time.Minute)
	next := 0
	herd := func(n int) {
		t.Helper()
		p := &s.clients.Payments[next]
		next++
		before := s.ledger.Lines()
		took, answers := s.herd(p, n)
		t.Logf("herd of %d on one key over %d processes: %d run, answered within %v; the handler took %v", n, len(s.gateways), s.ledger.Lines()-before, took.Round(time.Millisecond), work)
		if runs := s.ledger.Lines() - before; runs != 1 {
			t.Errorf("herd of %d: %d runs, want 1", n, runs)
		}
		first := slices.IndexFunc(answers, func(e storm.Entry) bool { return e.Status == 201 && !e.Replayed })
		for _, e := range answers {
			if first < 0 || e.Status != 201 || e.Body != answers[first].Body {
				t.Fatalf("herd of %d: got %d %s %q, want all answers alike", n, e.Status, e.Reason, e.Body)
			}
		}
	}
	herd(1000) // connects
	for range sizes.herds {
		herd(1000)
	}
	for range sizes.herds {
		herd(10_000)
	}
	s.account(s.evidence(nil), fmt.Sprintf("%d herds", next))
}

// herd sends n requests for p at once, and gives the answers and the time until
// the last.
func (s *scene) herd(p *storm.Payment, n int) (time.Duration, []storm.Entry) {
	answers := make([]storm.Entry, n)
	var ready, all sync.WaitGroup
	ready.Add(n)
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			ready.Done()
			<-start
			answers[i] = s.client.Ask(s.t.Context(), p, storm.Copy{Amount: p.Amount}, i%len(s.gateways))
		})
	}
	ready.Wait()
	began := time.Now()
	close(start)
	all.Wait()
	return time.Since(began), answers
}
