package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// leadKey names the claim by which one process at a time works. What is held under
// it also tells when the last pass ended.
func leadKey() semel.Key {
	return semel.Key{Scope: semel.JoinScope("semel", "lifecycle"), ID: "sweeper"}
}

// callTimeout bounds one call of the store that is short.
const callTimeout = 5 * time.Second

// errLost is why a pass is cut off.
var errLost = errors.New("lifecycle: the lead was lost: the store did not renew it in time, and another process may work")

// errUnconfirmed: the lead would bind this process alone.
var errUnconfirmed = fmt.Errorf("lifecycle: the authoritative store cannot be asked who works: %w", semel.ErrUnavailable)

// held reads what is held under the key of the lead.
func (s *Sweeper) held(ctx context.Context) (semel.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	held, err := s.store.Get(ctx, s.guard.Digest(leadKey()))
	if err == nil && held.Unconfirmed {
		err = errUnconfirmed
	}
	return held, err
}

// storeNow is the store's clock.
func (s *Sweeper) storeNow(ctx context.Context) (time.Time, error) {
	held, err := s.held(ctx)
	return held.Now, err
}

// due tells how long it is until the next pass may begin, as far as the store
// knows: until a lease ends, or until Every has passed since the last pass. last
// counts the passes.
func (s *Sweeper) due(ctx context.Context) (wait time.Duration, last int, err error) {
	held, err := s.held(ctx)
	if err != nil {
		return 0, 0, err
	}
	r := &held.Record
	switch {
	case r.State == semel.Pending:
		wait = r.Expires().Sub(held.Now)
	case r.Held():
		wait = r.WrittenAt.Add(s.o.Every).Sub(held.Now)
	}
	return max(wait, 0), r.Attempt, nil
}

// take takes the lead. The error is ErrInProgress if another process has it.
func (s *Sweeper) take(ctx context.Context) (*semel.Claim, error) {
	claim, v, err := s.guard.Begin(ctx, semel.Ask{Key: leadKey(), Policy: &s.lead})
	switch {
	case err != nil:
		return nil, err
	case claim == nil:
		return nil, v.Err()
	case claim.Unconfirmed():
		return nil, errors.Join(errUnconfirmed, claim.Release(semel.Result{}))
	}
	return claim, nil
}

// led runs fn while the claim is held, and gives the lead back. The context of fn
// ends when the lead is lost.
func (s *Sweeper) led(ctx context.Context, claim *semel.Claim, fn func(context.Context) (Pass, error)) (Pass, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(claim.Context(), func() { cancel(errLost) })
	defer stop()
	returned := false
	defer func() {
		if !returned {
			_ = claim.Doubt() // fn panicked: the next process need not wait for the lease
		}
	}()
	p, err := fn(ctx)
	returned = true
	stop()
	if errors.Is(context.Cause(ctx), errLost) {
		err = errors.Join(errLost, err)
		s.o.Observe(Event{Kind: Lost, Pass: p, Err: err})
	}
	if released := claim.Release(semel.Result{}); released != nil && !errors.Is(err, errLost) {
		err = errors.Join(err, s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: giving back the lead: %w", released)))
	}
	return p, err
}

// later adds a little to a pause that ends for several processes at once.
func later(d, spread time.Duration) time.Duration {
	return d + rand.N(max(spread/10, time.Millisecond))
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// work is a kind of call, of which one takes about as long as another.
type work uint8

const (
	sweeping work = iota
	dropping
	reading
	sampling
	works
)

// pacer says how long to rest after a call of the store.
type pacer struct {
	share float64

	mu   sync.Mutex
	free time.Time // until then there is rest
	// behind: there is more to do than gets done, so no rest is longer than it must be.
	behind bool
	// usual is how many seconds an item of a work takes while the store has time.
	usual [works]float64
}

// spent notes a call that took so long and dealt with n items. With n = 0 it is
// not comparable to others of its kind.
func (p *pacer) spent(w work, now time.Time, took time.Duration, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slower := 1.0
	if n > 0 {
		slower = p.compare(w, took.Seconds()/float64(n))
	}
	if p.behind {
		slower = 1
	}
	p.free = now.Add(pause(took, p.share, slower))
}

// compare tells how many times slower than usual an item was.
func (p *pacer) compare(w work, each float64) float64 {
	usual := p.usual[w]
	switch {
	case usual == 0:
		p.usual[w] = each
		return 1
	case each < usual:
		p.usual[w] += (each - usual) / 4
	default: // what stays slow is usual some day
		p.usual[w] += (each - usual) / 64
	}
	return each / usual
}

// pause is the rest after a call that took so long: as long as the share asks for,
// and up to four times that while the store is slower than usual.
func pause(took time.Duration, share, slower float64) time.Duration {
	factor := 1.0
	if slower > busy {
		factor = min(slower, 4)
	}
	least := float64(took) * (1 - share) / share
	if share == 1 && factor > 1 { // all the time, while it is not needed elsewhere
		least = float64(took)
	}
	return time.Duration(min(factor*least, float64(time.Hour)))
}

// busy is how much slower than usual a store is that has others to serve.
const busy = 1.5

// fallBehind notes whether there is more to do than gets done.
func (p *pacer) fallBehind(behind bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind = behind
}

// wait rests as long as the last call asks for.
func (p *pacer) wait(ctx context.Context) error {
	p.mu.Lock()
	free := p.free
	p.mu.Unlock()
	return rest(ctx, time.Until(free))
}
