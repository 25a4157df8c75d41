package payments

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// outages are the kills of a run, as they happened.
type outages struct {
	planned  int
	happened atomic.Int64
	mu       sync.Mutex
	at       map[string]int // kills by name
}

func (o *outages) add(name string) {
	o.happened.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.at[name]++
}

func (o *outages) progress() float64 {
	if o.planned == 0 {
		return 1
	}
	return float64(o.happened.Load()) / float64(o.planned)
}

// due waits until as much of the customers has come as of the kills, so that the
// kills hit all of the run. n is the number of the kill among all of its kind.
func (s *scene) due(ctx context.Context, n, of, customers int) bool {
	for float64(s.market.begun.Load())/float64(customers) < float64(n)/float64(of+1) {
		if !storm.Sleep(ctx, time.Millisecond) {
			return false
		}
	}
	return true
}

// atPoints starts the shop again and again, each time to die at the next point.
func (s *scene) atPoints(ctx context.Context, o *outages, one *shop, points []string, customers int) error {
	source := rand.New(rand.NewPCG(seed, 3))
	one.process.Kill() // the first of them had no point
	for n, point := range points {
		if !s.due(ctx, n, len(points), customers) {
			return context.Cause(ctx)
		}
		for tries := 1; !s.dieAt(ctx, o, one, point, 1+source.IntN(4)); tries++ {
			if ctx.Err() != nil || tries == 20 {
				return fmt.Errorf("nobody came by the point %s, %d times: %w", point, tries, context.Cause(ctx))
			}
		}
	}
	return one.start("")
}

// dieAt starts the shop to die at a point, at the n-th time that it comes by, and
// tells whether it did.
func (s *scene) dieAt(ctx context.Context, o *outages, one *shop, point string, n int) bool {
	if strings.HasPrefix(point, "resolver") { // that needs something to resolve
		if s.dieAt(ctx, o, one, "charge-answered", 1); ctx.Err() != nil {
			return false
		}
		n = 1
	}
	if err := one.start(fmt.Sprintf("%s:%d", point, n)); err != nil {
		return false
	}
	defer one.process.Kill()
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-one.process.Ended():
	case <-timer.C:
	case <-ctx.Done():
	}
	died := one.killed()
	if died {
		o.add(point)
	}
	return died
}

// atRandom kills the shop at any time.
func (s *scene) atRandom(ctx context.Context, o *outages, one *shop, kills, customers int) error {
	source := rand.New(rand.NewPCG(seed, 4))
	for n := range kills {
		if !s.due(ctx, n, kills, customers) || !storm.Sleep(ctx, time.Duration(source.IntN(300))*time.Millisecond) {
			return context.Cause(ctx)
		}
		one.process.Kill()
		o.add("at random")
		if err := one.start(""); err != nil {
			return err
		}
	}
	return nil
}

// atServer kills PostgreSQL.
func (s *scene) atServer(ctx context.Context, o *outages, kills, customers int) error {
	source := rand.New(rand.NewPCG(seed, 5))
	for n := range kills {
		if !s.due(ctx, n, kills, customers) || !storm.Sleep(ctx, time.Duration(200+source.IntN(500))*time.Millisecond) {
			return context.Cause(ctx)
		}
		if err := s.database.Kill(); err != nil {
			return err
		}
		o.add("PostgreSQL")
		storm.Sleep(ctx, time.Duration(source.IntN(200))*time.Millisecond)
		if err := s.database.Start(); err != nil {
			return err
		}
	}
	return nil
}

// run has customers come while everything is killed, and counts.
func (s *scene) run(z size, points []string) (counts, *outages, evidence) {
	s.t.Helper()
	o := &outages{planned: z.kills + z.servers + len(points), at: map[string]int{}}
	s.market.progress = o.progress
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute+time.Duration(o.planned)*10*time.Second)
	defer cancel()
	var killers sync.WaitGroup
	wrong := make([]error, 3)
	killers.Go(func() { wrong[0] = s.atPoints(ctx, o, s.shops[0], points, z.customers) })
	killers.Go(func() { wrong[1] = s.atRandom(ctx, o, s.shops[1], z.kills, z.customers) })
	killers.Go(func() { wrong[2] = s.atServer(ctx, o, z.servers, z.customers) })
	over := make(chan struct{})
	go func() {
		defer close(over)
		killers.Wait()
	}()
	unanswered := s.market.run(ctx, z.customers, over)
	for i, err := range wrong {
		if err != nil {
			s.t.Error([]string{"at points", "at random", "at the server"}[i], err)
		}
	}
	if len(unanswered) > 0 {
		s.t.Logf("without an answer: customers %v", unanswered)
	}
	e := s.evidence(int(s.market.begun.Load()))
	return account(&e), o, e
}

// TestPayments is the whole: customers with duplicates, every kind of kill, a
// provider that loses answers.
func TestPayments(t *testing.T) {
	t.Parallel()
	s := newScene(t, build(t, "shop"), 2)
	points := slices.Repeat(names(), sizes.rounds)
	rand.New(rand.NewPCG(seed, 2)).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	began := time.Now()
	c, o, e := s.run(sizes, points)
	t.Logf("%v; killed %d times: %v\n%s", time.Since(began).Round(time.Second), o.happened.Load(), o.at, c.String())
	if c.bad() > 0 {
		t.Errorf("found:\n%s\n%s", strings.Join(c.findings, "\n"), s.shops[0].process.Output())
	}
	if o.at["at random"] != sizes.kills || o.at["PostgreSQL"] != sizes.servers || c.replays < c.operations/2 || c.unknown == 0 || c.leftPaid == 0 {
		t.Errorf("the run proves too little: %v, %d replays, %d told that it is unknown, %d left and had paid", o.at, c.replays, c.unknown, c.leftPaid)
	}
	for _, point := range names() {
		if o.at[point] < sizes.rounds {
			t.Errorf("killed %d times at %s, want %d", o.at[point], point, sizes.rounds)
		}
	}
	planted(t, e)
}
