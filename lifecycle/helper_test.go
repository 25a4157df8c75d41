package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

// trail is a memory store with a journal by days, that can be told to fail.
type trail struct {
	*memory.Store
	now func() time.Time

	mu       sync.Mutex
	days     map[time.Time][]semel.Entry
	sweeps   int                 // calls of Sweep
	inSweep  int                 // under way
	overlaps int                 // calls that began while another was under way
	onSweep  func(call int)      // before each call
	onSwept  func(call int)      // after each call
	failing  func(call int) bool // whether the call fails
	onDrop   func(day time.Time) (part int, err error)
	onLines  func(time.Time) error
	measured int
}

func newTrail(now func() time.Time) *trail {
	if now == nil {
		now = time.Now
	}
	return &trail{Store: memory.New(memory.Options{Now: now}), now: now, days: make(map[time.Time][]semel.Entry)}
}

func (s *trail) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	if err == nil {
		s.write(r.Record.Entry())
	}
	return r, err
}

func (s *trail) write(e semel.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	day := e.Record.WrittenAt.UTC().Truncate(24 * time.Hour)
	s.days[day] = append(s.days[day], e)
}

func (s *trail) Sweep(ctx context.Context, limit int) (int, error) {
	s.mu.Lock()
	s.sweeps++
	call, before, after, failing := s.sweeps, s.onSweep, s.onSwept, s.failing
	if s.inSweep > 0 {
		s.overlaps++
	}
	s.inSweep++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inSweep--
	}()
	if before != nil {
		before(call)
	}
	if failing != nil && failing(call) {
		return 0, errBroken
	}
	n, err := s.Store.Sweep(ctx, limit)
	if after != nil {
		after(call)
	}
	return n, err
}

var errBroken = errors.New("it is broken")

func (s *trail) Days(ctx context.Context) ([]time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.days), time.Time.Compare), ctx.Err()
}

func (s *trail) Lines(ctx context.Context, day time.Time) iter.Seq2[semel.Entry, error] {
	return func(yield func(semel.Entry, error) bool) {
		s.mu.Lock()
		lines, failing := slices.Clone(s.days[day]), s.onLines
		s.mu.Unlock()
		for i, l := range lines {
			if err := ctx.Err(); err != nil {
				yield(semel.Entry{}, err)
				return
			}
			if failing != nil && i == len(lines)/2 {
				if err := failing(day); err != nil {
					yield(semel.Entry{}, err)
					return
				}
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (s *trail) DropDay(_ context.Context, day time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.now().After(day.Add(24 * time.Hour)) {
		return errors.New("today is not dropped")
	}
	if s.onDrop != nil {
		if part, err := s.onDrop(day); err != nil {
			s.days[day] = s.days[day][min(part, len(s.days[day])):]
			return err
		}
	}
	delete(s.days, day)
	return nil
}

// Measure reads everything: it is the truth that estimates are compared with.
func (s *trail) Measure(ctx context.Context) (semel.Measure, error) {
	all, err := s.Store.List(ctx, semel.Filter{Limit: 1 << 30})
	m := semel.Measure{At: s.now(), Records: int64(len(all))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measured++
	for i := range all {
		r := &all[i]
		m.Bytes += 200 + int64(len(r.Result))
		if r.State == semel.Pending && (m.OldestPending.IsZero() || r.WrittenAt.Before(m.OldestPending)) {
			m.OldestPending = r.WrittenAt
		}
		due := r.Expires()
		if r.State == semel.Done && r.Replay > 0 {
			due = r.WrittenAt.Add(min(r.Replay, r.TTL))
		}
		if r.State != semel.Pending && !m.At.Before(due) && (m.Overdue.IsZero() || due.Before(m.Overdue)) {
			m.Overdue = due
		}
	}
	for _, lines := range s.days {
		m.JournalBytes += 300 * int64(len(lines))
	}
	return m, err
}

func (s *trail) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

var (
	_ semel.Sweeper  = (*trail)(nil)
	_ semel.Days     = (*trail)(nil)
	_ semel.Measurer = (*trail)(nil)
)

// world has a store, processes that use it, and what they tell.
type world struct {
	*testing.T
	*trail

	evmu   sync.Mutex
	events []lifecycle.Event
}

func newWorld(t *testing.T) *world { return &world{T: t, trail: newTrail(nil)} }

// sleep waits until everything else waits as well, and then sees what it has done.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func guardOf(t *testing.T, store semel.Store) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *world) observe(e lifecycle.Event) {
	w.evmu.Lock()
	defer w.evmu.Unlock()
	w.events = append(w.events, e)
}

func (w *world) told(kind lifecycle.Kind) (out []lifecycle.Event) {
	w.evmu.Lock()
	defer w.evmu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// sweeper gives one of a process of its own, whose store is given.
func (w *world) sweeper(store semel.Store, o lifecycle.Options) *lifecycle.Sweeper {
	w.Helper()
	if o.Observe == nil {
		o.Observe = w.observe
	}
	s, err := lifecycle.New(guardOf(w.T, store), o)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// run runs a sweeper, and gives what stops it.
func (w *world) run(s *lifecycle.Sweeper) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	}
}

func policy(t *testing.T, p semel.Policy) *semel.Policy {
	t.Helper()
	p, err := p.Filled()
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// done has an operation executed, with a result of so many bytes.
func (w *world) done(g *semel.Guard, scope, id string, p *semel.Policy, size int) {
	w.Helper()
	ask := semel.Ask{Key: semel.Key{Scope: scope, ID: id}, Policy: p}
	_, err := g.Do(w.Context(), ask, func(context.Context) (semel.Result, error) {
		return semel.Result{Code: 201, Data: bytes.Repeat([]byte{'x'}, size)}, nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// many has n operations executed.
func (w *world) many(g *semel.Guard, n int, p *semel.Policy) {
	w.Helper()
	for i := range n {
		w.done(g, "shop", fmt.Sprintf("%d at %d", i, w.trail.now().UnixNano()), p, 10)
	}
}

// dump gives all records that are not Semel's own.
func (w *world) dump(store semel.Lister) (out []semel.Record) {
	w.Helper()
	all, err := store.List(context.Background(), semel.Filter{Limit: 1 << 30})
	if err != nil {
		w.Fatal(err)
	}
	for _, r := range all {
		if r.Key.Scope == "shop" {
			out = append(out, r)
		}
	}
	return out
}

// shelf is an archive in memory.
type shelf struct {
	mu    sync.Mutex
	kept  map[string][]byte
	puts  int
	onPut func(name string) error
}

func newShelf() *shelf { return &shelf{kept: make(map[string][]byte)} }

func (s *shelf) Put(_ context.Context, name string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	if s.onPut != nil {
		if err := s.onPut(name); err != nil {
			return err
		}
	}
	s.kept[name] = b.Bytes()
	return nil
}

func (s *shelf) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.kept))
}

// entries reads all of the shelf.
func (s *shelf) entries(t *testing.T) (out []semel.Entry) {
	t.Helper()
	for _, name := range s.names() {
		out = append(out, readAll(t, s.kept[name])...)
	}
	return out
}

func readAll(t *testing.T, file []byte) (out []semel.Entry) {
	t.Helper()
	for e, err := range lifecycle.ReadArchive(bytes.NewReader(file)) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}
