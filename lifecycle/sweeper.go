package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// Sweeper forgets what is over. It is safe for concurrent use.
type Sweeper struct {
	guard *semel.Guard
	store semel.Store
	// Each of these is nil if the store is none.
	sweeper semel.Sweeper
	days    semel.Days
	// measures tells whether growth is measured.
	measures bool
	o        Options
	lead     semel.Policy
	pace     pacer

	// kept belongs to whoever holds working.
	working sync.Mutex
	kept    map[int64]keptDay // by the day's Unix time

	mu       sync.Mutex
	running  bool
	growth   Growth
	measured time.Time // on our clock; zero if growth was never measured
}

// New gives a Sweeper for the guard's store; Run starts it. The error says what is
// wrong with the options, or what the store cannot do: a journal that ends before
// its keys do, a journal to be shortened that is not kept by days, a store that
// neither sweeps nor has anything else to look after.
//
// A store whose records end by themselves is not swept; the rest is done. Growth is
// left out where the store can neither measure nor list.
func New(guard *semel.Guard, o Options) (*Sweeper, error) {
	if guard == nil {
		return nil, errors.New("lifecycle: a sweeper needs a guard")
	}
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	s := &Sweeper{guard: guard, store: guard.Store(), o: o, pace: pacer{share: o.Share}, kept: make(map[int64]keptDay)}
	s.sweeper, _ = semel.As[semel.Sweeper](s.store)
	s.days, _ = semel.As[semel.Days](s.store)
	_, measures := semel.As[semel.Measurer](s.store)
	_, lists := semel.As[semel.Lister](s.store)
	s.measures = o.Growth > 0 && (measures || lists)
	switch {
	case o.Journal > 0 && s.days == nil:
		return nil, errors.New("lifecycle: this store keeps no journal by days, so none of it can be dropped: leave Journal away")
	case s.sweeper == nil && o.Journal == 0 && !s.measures:
		return nil, errors.New("lifecycle: this store has nothing to sweep, no journal to shorten, and growth is not measured: leave the sweeper away")
	}
	// The record of the lead must outlive the pause that it measures.
	s.lead, err = semel.Policy{
		Name: "semel lifecycle", Class: semel.AtLeastOnce, Lease: o.Lease, Wait: -1, ClaimWithin: callTimeout, FinishWithin: callTimeout,
		Replay: o.Lease, Remember: max(2*o.Every, o.Lease, time.Hour),
	}.Filled()
	return s, err
}

// Run makes a pass each Every, taking turns with other processes, until ctx ends;
// then it stops at once, and gives back the lead, which a store that does not answer
// delays by 5 s at most. It is called once. Close the guard after it has returned. What fails is told to Observe and tried again later:
// the error is nil, unless Run runs already.
func (s *Sweeper) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return errors.New("lifecycle: the sweeper runs already")
	}
	s.running = true
	s.mu.Unlock()
	failures, drained := 0, true
	for ctx.Err() == nil {
		wait, pass, err := s.turn(ctx, drained)
		drained = pass.Drained
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			// Others are not kept from trying: this process waits, the lead does not.
			drained = true
			wait = later(max(wait, s.o.Every<<min(failures, 4)), s.o.Every)
			failures++
		default:
			failures = 0
		}
		if rest(ctx, wait) != nil {
			return nil
		}
	}
	return nil
}

// turn makes a pass if it is time, and tells how long to wait for the next one.
// drained tells that the last pass left nothing.
func (s *Sweeper) turn(ctx context.Context, drained bool) (time.Duration, Pass, error) {
	none := Pass{Drained: true}
	wait, last, err := s.due(ctx)
	if err != nil {
		return 0, none, s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: asking for the lead: %w", err))
	}
	if wait > 0 && drained {
		return later(wait, min(wait, s.o.Every)), none, nil
	}
	claim, err := s.take(ctx)
	switch {
	case errors.Is(err, semel.ErrInProgress):
		return later(0, min(s.o.Lease, s.o.Every)), none, nil
	case err != nil:
		return 0, none, s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: taking the lead: %w", err))
	case claim.Attempt() != last+1: // another has had its turn meanwhile
		return later(s.o.Every, s.o.Every), none, claim.Release(semel.Result{})
	}
	pass, err := s.led(ctx, claim, func(ctx context.Context) (Pass, error) { return s.pass(ctx, s.o.Every) })
	if !pass.Drained {
		return 0, pass, err
	}
	return later(s.o.Every, s.o.Every), pass, err
}

// Once makes one pass now: until nothing is left to sweep. The error is
// [semel.ErrInProgress] if another process is at work, and then nothing was done.
// It may be called while Run runs.
func (s *Sweeper) Once(ctx context.Context) (Pass, error) {
	claim, err := s.take(ctx)
	switch {
	case errors.Is(err, semel.ErrInProgress):
		return Pass{}, fmt.Errorf("lifecycle: another process sweeps this store already: %w", semel.ErrInProgress)
	case err != nil:
		return Pass{}, fmt.Errorf("lifecycle: taking the lead: %w", err)
	}
	return s.led(ctx, claim, func(ctx context.Context) (Pass, error) { return s.pass(ctx, 0) })
}

// Growth gives what was measured last; false if this process has not measured. The
// process that makes a pass measures.
func (s *Sweeper) Growth() (Growth, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.growth, !s.measured.IsZero()
}

// pass does everything once. It sweeps for at most so long, unless that is 0: what
// else there is to do has its turn even if more expires than can be swept.
func (s *Sweeper) pass(ctx context.Context, limit time.Duration) (Pass, error) {
	s.working.Lock() // a pass whose lead was lost may still wait for the store
	defer s.working.Unlock()
	start := time.Now()
	p := Pass{Drained: s.sweeper == nil}
	var wrong []error
	for _, part := range [...]func(context.Context, *Pass) error{
		func(ctx context.Context, p *Pass) error { return s.sweep(ctx, p, limit) }, s.trim, s.measure,
	} {
		if err := part(ctx, &p); ctx.Err() != nil {
			wrong = append(wrong, context.Cause(ctx))
			break
		} else if err != nil {
			wrong = append(wrong, err)
		}
	}
	p.Took = time.Since(start)
	err := errors.Join(wrong...)
	s.o.Observe(Event{Kind: Swept, Pass: p, Err: err})
	return p, err
}

// batchTimeout bounds one call of Sweep.
const batchTimeout = 10 * time.Second

// longTimeout bounds dropping a day, and measuring, so that a store that hangs in
// them is still swept.
const longTimeout = 10 * time.Minute

// maxFailures is how many calls of Sweep fail in a row before the pass goes on
// without: some fail because others hold what is to be deleted.
const maxFailures = 4

// sweep calls Sweep until nothing is left.
func (s *Sweeper) sweep(ctx context.Context, p *Pass, limit time.Duration) error {
	if s.sweeper == nil {
		return nil
	}
	start, failures := time.Now(), 0
	for limit == 0 || p.Batches == 0 || time.Since(start) < limit {
		if err := s.pace.wait(ctx); err != nil {
			return err
		}
		n, err := s.batch(ctx, p)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			failures++
			err = s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: sweeping: %w", err))
			if failures == maxFailures {
				return err
			}
			if err := rest(ctx, time.Second<<(failures-1)); err != nil {
				return err
			}
		case n < s.o.Batch:
			p.Drained = true
			s.pace.fallBehind(false)
			return nil
		default:
			failures = 0
		}
	}
	s.pace.fallBehind(true)
	return nil
}

// batch is one call of Sweep.
func (s *Sweeper) batch(ctx context.Context, p *Pass) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	start := time.Now()
	n, err := s.sweeper.Sweep(ctx, s.o.Batch)
	full := n
	if n < s.o.Batch {
		full = 0
	}
	s.spent(p, sweeping, start, full)
	p.Swept += n
	p.Batches++
	return n, err
}

// spent notes a call of the store that began at start and dealt with n items.
func (s *Sweeper) spent(p *Pass, w work, start time.Time, n int) {
	now := time.Now()
	s.pace.spent(w, now, now.Sub(start), n)
	p.Busy += now.Sub(start)
}

// failed tells of a failure, unless it is ours for having stopped.
func (s *Sweeper) failed(ctx context.Context, day time.Time, err error) error {
	if ctx.Err() == nil {
		s.o.Observe(Event{Kind: Failed, Day: day, Err: err})
	}
	return err
}

// measure measures growth, if it is time.
func (s *Sweeper) measure(ctx context.Context, p *Pass) error {
	s.mu.Lock()
	last := s.measured
	s.mu.Unlock()
	if !s.measures || !last.IsZero() && time.Since(last) < s.o.Growth {
		return nil
	}
	call := func(items func() (int, error)) error {
		if err := s.pace.wait(ctx); err != nil {
			return err
		}
		start := time.Now()
		n, err := items()
		s.spent(p, sampling, start, n)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, longTimeout)
	defer cancel()
	g, err := measure(ctx, s.store, MeasureOptions{}, call)
	if err != nil {
		return s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: measuring growth: %w", err))
	}
	s.mu.Lock()
	s.growth, s.measured = g, time.Now()
	s.mu.Unlock()
	s.o.Observe(Event{Kind: Measured, Growth: g})
	return nil
}
