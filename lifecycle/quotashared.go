package lifecycle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/semelhq/semel"
)

// shared is what the quotas of several processes have in common: a record in the
// store for each tenant and window, which counts the new keys that were taken out
// of it. It is a released one, so sweeps forget it, and its Attempt is the count.
type shared struct {
	guard        *semel.Guard
	name         string
	block, alone int // 0: by the tenant's own number
	within       time.Duration
	away         int64 // by the quota's clock: until then the store is not asked
}

// share is what this process has of a tenant's window.
type share struct {
	window int64 // windows since the epoch, by the store's clock; 0: none yet
	left   int   // taken out of the store, and not used
	spent  bool  // nothing is left in the store
	alone  int   // used without the store
	owed   int   // of those, not entered in the store yet
	// skip is how many duplicates are not given back: what was in flight when the
	// window began belongs to the one before, and nobody can tell which those are.
	skip    int
	version semel.Version // of the record, as last seen
	taken   int           // its count
	asking  chan struct{} // closed when the store has answered; nil while nobody asks
}

// askAgain is how long a store that did not answer is left alone.
const askAgain = time.Second

func newShared(o *QuotaOptions) *shared {
	s := &shared{guard: o.Shared, name: o.Name, block: o.Block, alone: o.Alone, within: o.Within}
	if s.within == 0 {
		s.within = 500 * time.Millisecond
	}
	return s
}

func (s *shared) blockOf(l *limits) int {
	if s.block > 0 {
		return min(s.block, l.newKeys)
	}
	return max(1, l.newKeys/20)
}

func (s *shared) aloneOf(l *limits) int {
	if s.alone != 0 {
		return max(0, s.alone)
	}
	return max(1, l.newKeys/10)
}

// takeShared takes a new key out of what this process has of the tenant's window,
// and fetches more where there is nothing left. It is called with the mutex held,
// and gives it up while the store is asked.
func (q *Quota) takeShared(ctx context.Context, t *tenant) (retryAfter time.Duration, ok bool) {
	s := &t.share
	for {
		at := q.shared.guard.Now().UnixNano()
		window := at / int64(q.per)
		if window != s.window {
			s.begin(window, t.inFlight-1)
		}
		rest := time.Duration((window+1)*int64(q.per) - at)
		away := time.Duration(q.shared.away - q.now())
		switch {
		case s.left > 0:
			s.left--
			return 0, true
		case s.spent:
			return rest, false
		case away > 0 && s.alone < q.shared.aloneOf(t.limits):
			s.alone++
			s.owed++
			return 0, true
		case away > 0:
			return min(away, rest), false
		case s.asking != nil:
			if !q.wait(ctx, s.asking) {
				return busyRetry, false
			}
		default:
			q.fetch(ctx, t)
		}
	}
}

// begin begins another window. What is left of the last is nobody's any more.
func (s *share) begin(window int64, inFlight int) {
	*s = share{window: window, skip: inFlight, asking: s.asking}
}

// giveBack takes back what a duplicate had borrowed.
func (s *share) giveBack() {
	if s.skip > 0 {
		s.skip--
		return
	}
	s.left++
}

// wait waits until another request has asked the store.
func (q *Quota) wait(ctx context.Context, asking <-chan struct{}) bool {
	q.mu.Unlock()
	defer q.mu.Lock()
	select {
	case <-asking:
		return true
	case <-ctx.Done():
		return false
	}
}

// fetch takes a block out of the store, for all who wait for one.
func (q *Quota) fetch(ctx context.Context, t *tenant) {
	s := &t.share
	asking := make(chan struct{})
	s.asking = asking
	window, want := s.window, q.shared.blockOf(t.limits)
	count := count{version: s.version, taken: s.taken, owed: s.owed}
	name, most := t.name, t.limits.newKeys
	q.mu.Unlock()
	got, err := q.draw(context.WithoutCancel(ctx), name, window, &count, want, most)
	q.mu.Lock()
	s.asking = nil
	close(asking)
	switch {
	case err != nil:
		q.shared.away = q.now() + int64(askAgain)
	case s.window == window:
		s.left += got
		s.spent = got == 0
		s.owed -= count.owed
		s.version, s.taken = count.version, count.taken
	}
}

// count is a window's record as a process knows it, and what it owes to it.
type count struct {
	version semel.Version
	taken   int
	owed    int
}

// draw takes up to want new keys out of a window's record, in which there are most,
// and enters what is owed. 0 says that none are left.
func (q *Quota) draw(ctx context.Context, tenant string, window int64, c *count, want, most int) (got int, err error) {
	defer func() {
		if v := recover(); v != nil { // others wait for the answer
			err = fmt.Errorf("lifecycle: the store of a quota panicked: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, q.shared.within)
	defer cancel()
	key := semel.Key{
		Scope: semel.JoinScope("semel", "quota", q.shared.name, tenant),
		ID:    strconv.FormatInt(window, 10) + "/" + q.per.String(),
	}
	next := semel.Record{
		Digest: q.shared.guard.Digest(key), State: semel.Released, Class: semel.AtLeastOnce, Key: key,
		TTL: 2*q.per + time.Minute, // clocks differ a little
	}
	for {
		got = max(0, min(want, most-c.taken-c.owed))
		if got == 0 && c.owed == 0 {
			return 0, nil
		}
		next.Attempt = c.taken + c.owed + got
		binary.NativeEndian.PutUint64(next.Nonce[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(next.Nonce[8:], rand.Uint64())
		r, err := q.shared.guard.Store().CompareAndSwap(ctx, c.version, next)
		switch {
		case err == nil && r.Unconfirmed, errors.Is(err, semel.ErrConflict) && r.Unconfirmed:
			return 0, semel.ErrUnavailable // this process alone knows of it
		case err == nil:
			c.version, c.taken = r.Record.Version, r.Record.Attempt
			return got, nil
		case !errors.Is(err, semel.ErrConflict) || ctx.Err() != nil:
			return 0, err
		case r.Record.Nonce == next.Nonce: // a repetition below us met its own write
			c.version, c.taken = r.Record.Version, r.Record.Attempt
			return got, nil
		}
		c.version, c.taken = r.Record.Version, r.Record.Attempt // 0 if it was swept meanwhile
	}
}
