package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The servers' clock. etcd tells the time to clients in one place only, the
// Date of its HTTP answers, in whole seconds. Each answer bounds the time from
// both sides; the bounds of several answers together are narrow, since one came
// just before the second changed and one just after. Between answers our own
// monotonic clock goes on, and the bounds grow apart with it.
const (
	// narrow is how near the bounds must be to each other before a store is used.
	narrow = 30 * time.Millisecond
	// widest is how far apart they may become until the time counts as unknown. It
	// is also how far apart the clocks of members may be.
	widest = time.Second
	// drift is how much faster one clock may run than another: NTP slews by up to
	// 500 parts in a million.
	drift = 1.0 / 2000
	// forgotten is how long a member counts that does not answer.
	forgotten = time.Minute
	// pollPause is between two looks at the servers' clocks while the bounds are wide.
	pollPause = 10 * time.Millisecond
	// suspended is how far our wall clock and our monotonic clock may part before we
	// ask anew: the latter stands still while a machine sleeps.
	suspended = 500 * time.Millisecond
)

// bounds hold one server's clock: at the local time at, it was between low and
// high.
type bounds struct {
	at        time.Time
	low, high time.Time
}

// on moves the bounds on to a later local time.
func (b bounds) on(at time.Time) bounds {
	gone := at.Sub(b.at)
	slack := time.Duration(float64(gone) * drift)
	return bounds{at, b.low.Add(gone - slack), b.high.Add(gone + slack)}
}

// seen gives the bounds after one more answer, sent for at from and there at at,
// with a Date. step is true if it contradicts the bounds so far: somebody set the
// server's clock.
func (b bounds) seen(from, at, date time.Time) (after bounds, step bool) {
	after = bounds{at, date, date.Add(time.Second + at.Sub(from))}
	if b.at.IsZero() {
		return after, false
	}
	old := b.on(at)
	if old.low.After(after.high) || after.low.After(old.high) {
		return after, true
	}
	if old.low.After(after.low) {
		after.low = old.low
	}
	if old.high.Before(after.high) {
		after.high = old.high
	}
	return after, false
}

// server is one member whose clock we look at.
type server struct {
	url    string
	bounds bounds
	err    error
}

// clock is safe for concurrent use.
type clock struct {
	http  *http.Client
	local func() time.Time

	syncing sync.Mutex // held while servers are asked

	mu      sync.Mutex // guards what follows
	servers []server
	last    time.Time // the last time told, so that we do not go back by a few milliseconds
}

func newClock(client *http.Client, urls []string, local func() time.Time) *clock {
	if local == nil {
		local = time.Now
	}
	c := &clock{http: client, local: local}
	for _, u := range urls {
		c.servers = append(c.servers, server{url: u})
	}
	return c
}

// reading is a time of the servers, which is off by at most err.
type reading struct {
	time time.Time
	err  time.Duration
}

var errNoTime = errors.New("the servers' time is not known: their HTTP answers have not come for a while")

// now gives the servers' time without asking them. Whether they should be asked
// first is what ok tells.
func (c *clock) now() (r reading, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.local()
	b, ok := c.both(at)
	if !ok {
		return reading{}, false
	}
	r.err = b.high.Sub(b.low)/2 + 1
	r.time = b.low.Add(r.err)
	if r.time.Before(c.last) && c.last.Sub(r.time) < widest {
		r.time = c.last
	}
	c.last = r.time
	return r, r.err <= widest
}

// both gives the bounds of all servers that answer: the time of each is between
// them. Of three and more, those that are far from the one in the middle do not
// count. It is called with mu held.
func (c *clock) both(at time.Time) (out bounds, ok bool) {
	var newest time.Time
	for i := range c.servers {
		if b := c.servers[i].bounds; b.at.After(newest) {
			newest = b.at
		}
	}
	var all []bounds
	for i := range c.servers {
		b := c.servers[i].bounds
		if b.at.IsZero() || newest.Sub(b.at) > forgotten {
			continue
		}
		if apart := at.Round(0).Sub(b.at.Round(0)) - at.Sub(b.at); apart.Abs() > suspended {
			return out, false
		}
		all = append(all, b.on(at))
	}
	if len(all) == 0 {
		return out, false
	}
	if len(all) > 1 {
		slices.SortFunc(all, func(a, b bounds) int { return a.low.Compare(b.low) })
	}
	out = all[len(all)/2]
	middle := out
	for _, b := range all {
		if len(all) > 2 && (b.low.Sub(middle.high) > widest || middle.low.Sub(b.high) > widest) {
			continue
		}
		if b.low.Before(out.low) {
			out.low = b.low
		}
		if b.high.After(out.high) {
			out.high = b.high
		}
	}
	return out, true
}

// read gives the servers' time, asking them if it is not known well enough.
func (c *clock) read(ctx context.Context) (reading, error) {
	if r, ok := c.now(); ok {
		return r, nil
	}
	if err := c.narrow(ctx, false); err != nil {
		return reading{}, err
	}
	r, ok := c.now()
	if !ok {
		return r, c.unknown()
	}
	return r, nil
}

func (c *clock) unknown() error {
	if apart := c.apart(); apart > widest {
		return fmt.Errorf("the clocks of the members are %v apart, and leases are judged by them: let NTP set them", apart.Round(time.Millisecond))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := []error{errNoTime}
	for i := range c.servers {
		errs = append(errs, c.servers[i].err)
	}
	return errors.Join(errs...)
}

// narrow asks until the bounds are narrow, which takes a second at most: that
// is how long it takes until the second changes. anew drops what was known.
func (c *clock) narrow(ctx context.Context, anew bool) error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	if _, ok := c.now(); ok && !anew {
		return nil // another asked while we waited
	}
	c.mu.Lock()
	urls := make([]string, len(c.servers))
	for i := range c.servers {
		c.servers[i].bounds, urls[i] = bounds{}, c.servers[i].url
	}
	c.last = time.Time{}
	c.mu.Unlock()
	errs := make([]error, len(urls))
	var wg sync.WaitGroup
	for i := range urls {
		wg.Go(func() { errs[i] = c.listen(ctx, i, urls[i]) })
	}
	wg.Wait()
	if !slices.Contains(errs, nil) {
		return errors.Join(errs...)
	}
	return nil
}

// listen asks one server until its second changes. On a slow way the bounds are
// as narrow as they can be then.
func (c *clock) listen(ctx context.Context, i int, url string) error {
	pause := time.NewTicker(pollPause)
	defer pause.Stop()
	end := c.local().Add(1200 * time.Millisecond)
	for {
		if err := c.ask(ctx, i, url); err != nil {
			return err
		}
		c.mu.Lock()
		b := c.servers[i].bounds
		c.mu.Unlock()
		if b.high.Sub(b.low) <= narrow || c.local().After(end) {
			return nil
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ask takes one answer of a server into account.
func (c *clock) ask(ctx context.Context, i int, url string) error {
	from := c.local()
	date, err := askDate(ctx, c.http, url)
	at := c.local()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.servers[i]
	if s.err = err; err != nil {
		return err
	}
	var step bool
	if s.bounds, step = s.bounds.seen(from, at, date); step {
		c.last = time.Time{}
	}
	return nil
}

// tend asks each server once, at the moment when the answer tells most: when its
// second is about to change. It is for a goroutine that does so now and then.
func (c *clock) tend(ctx context.Context) {
	c.mu.Lock()
	servers := slices.Clone(c.servers)
	c.mu.Unlock()
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			if !s.bounds.at.IsZero() {
				b := s.bounds.on(c.local())
				middle := b.low.Add(b.high.Sub(b.low) / 2)
				if sleep(ctx, middle.Truncate(time.Second).Add(time.Second).Sub(middle)) != nil {
					return
				}
			}
			// What came of it is in the bounds, or in the server's err.
			_ = c.ask(ctx, i, s.url)
		})
	}
	wg.Wait()
	c.mu.Lock()
	wide := false
	for i := range c.servers {
		b := c.servers[i].bounds
		wide = wide || !b.at.IsZero() && b.high.Sub(b.low) > widest/2
	}
	c.mu.Unlock()
	if wide { // a server's clock was set, or its way has become slow
		_ = c.narrow(ctx, true)
	}
}

// apart tells how far apart the servers' clocks are at least.
func (c *clock) apart() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.local()
	var most time.Duration
	for i := range c.servers {
		for j := range c.servers {
			a, b := c.servers[i].bounds, c.servers[j].bounds
			if !a.at.IsZero() && !b.at.IsZero() {
				most = max(most, a.on(at).low.Sub(b.on(at).high))
			}
		}
	}
	return most
}

// askDate gives the Date of one answer.
func askDate(ctx context.Context, client *http.Client, url string) (time.Time, error) {
	answer, err := get(ctx, client, url)
	if err != nil {
		return time.Time{}, err
	}
	date, err := http.ParseTime(answer.date)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: its answer has no Date by which leases could be judged: %w", url, err)
	}
	return date, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
