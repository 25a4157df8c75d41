package resolve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// Completer settles what is in doubt. It is safe for concurrent use.
type Completer struct {
	guard *semel.Guard
	store semel.Lister
	o     Options
	// lead is the policy of the claims by which one process at a time asks.
	lead semel.Policy

	wake    chan struct{} // there are hints
	workers sync.WaitGroup

	mu      sync.Mutex
	running bool
	stopped bool             // Run has ended, or is about to
	rooms   map[string]*room // by the policy's name
	keys    map[semel.Digest]*entry
	hints   []semel.Digest
	search  int // counts the searches
}

// room is what belongs to one policy, so that none gets into another's way.
type room struct {
	policy *semel.Policy
	// Guarded by the Completer's mutex.
	queue []semel.Digest
	busy  int                       // workers at work
	hung  map[semel.Digest]struct{} // calls that were given up and still run
}

// entry is a key that is being dealt with.
type entry struct {
	stage  stage
	timer  *time.Timer // of the last rest
	tries  int         // in a row that did not get as far as the store's count
	search int         // that saw it last
}

type stage uint8

const (
	hinted stage = iota + 1
	queued
	atWork
	resting
	orphaned
)

// maxKeys bounds the keys that one process deals with; others have to wait.
const maxKeys = 100_000

// restAfter is how many times longer than a search took there is none: where many
// records are held, a search reads much.
const restAfter = 20

// pageSize is how many records the search reads at once.
const pageSize = 100

// storeTimeout bounds one call of the store.
const storeTimeout = 5 * time.Second

// New gives a Completer for the guard's store; Run starts it. The error says
// what is wrong with the options: a policy without a resolver or a name, two of
// one name, or a store that cannot be searched.
func New(guard *semel.Guard, o Options) (*Completer, error) {
	if guard == nil {
		return nil, errors.New("resolve: a completer needs a guard")
	}
	store, ok := semel.As[semel.Lister](guard.Store())
	if !ok {
		return nil, errors.New("resolve: the guard's store cannot list its records, so what is in doubt cannot be found in it")
	}
	o, rooms, err := o.filled()
	if err != nil {
		return nil, err
	}
	// What is remembered of the looks must outlive the longest pause.
	lead, err := semel.Policy{
		Name: "semel resolve", Class: semel.AtLeastOnce, Lease: o.Lease, Wait: -1, ClaimWithin: storeTimeout,
		Replay: o.Lease, Remember: max(4*o.BackoffCap, o.Lease),
	}.Filled()
	if err != nil {
		return nil, err
	}
	return &Completer{
		guard: guard, store: store, o: o, lead: lead, rooms: rooms,
		wake: make(chan struct{}, 1), keys: make(map[semel.Digest]*entry),
	}, nil
}

// Run searches and settles until ctx ends, and returns when everything that it
// began has ended; a resolver that does not heed its context is not waited for.
// Run is called once. Close the guard after it has returned.
func (c *Completer) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("resolve: the completer runs already")
	}
	c.running = true
	c.mu.Unlock()
	defer c.rest()
	next := time.NewTimer(c.o.Every)
	defer next.Stop()
	for {
		start := time.Now()
		c.sweep(ctx)
		took := time.Since(start)
		next.Reset(max(c.o.Every-took, restAfter*took))
		for swept := true; swept; {
			select {
			case <-ctx.Done():
				return nil
			case <-next.C:
				swept = false
			case <-c.wake:
				c.follow(ctx)
			}
		}
	}
}

// rest ends what is under way, after Run's context has ended.
func (c *Completer) rest() {
	c.mu.Lock()
	c.stopped = true
	for _, e := range c.keys {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	c.mu.Unlock()
	c.workers.Wait()
}

// Suspect says that the key may be in doubt, or may soon be: it is looked at
// now, and when its lease ends. It does not wait. It is a hint; a key that nobody
// suspects is found by the search.
func (c *Completer) Suspect(digest semel.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hint(digest)
}

// hint is called with the mutex held.
func (c *Completer) hint(digest semel.Digest) {
	e := c.keys[digest]
	switch {
	case e == nil && len(c.keys) >= maxKeys:
		return
	case e == nil:
		e = &entry{search: c.search}
		c.keys[digest] = e
	case e.stage != resting:
		return
	case e.timer != nil:
		e.timer.Stop()
	}
	e.stage = hinted
	c.hints = append(c.hints, digest)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// follow looks at the keys that were hinted at.
func (c *Completer) follow(ctx context.Context) {
	c.mu.Lock()
	hints := c.hints
	c.hints = nil
	c.mu.Unlock()
	for _, digest := range hints {
		held, err := c.get(ctx, digest)
		switch r := &held.Record; {
		case err != nil && !errors.Is(err, semel.ErrDamaged):
			c.sleep(digest, c.pause(c.failed(digest)))
		case r.InDoubt(held.Now):
			c.enqueue(ctx, r)
		case r.State == semel.Pending && r.Class == semel.AtMostOnce:
			c.sleep(digest, r.Expires().Sub(held.Now))
		default:
			c.forget(digest)
		}
	}
}

func (c *Completer) get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return c.guard.Store().Get(ctx, digest)
}

// sweep searches the store, page by page.
func (c *Completer) sweep(ctx context.Context) {
	c.mu.Lock()
	c.search++
	c.mu.Unlock()
	filter := semel.Filter{InDoubt: true, Limit: pageSize}
	for {
		limit, cancel := context.WithTimeout(ctx, storeTimeout)
		records, err := c.store.List(limit, filter)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.o.Observe(Event{Kind: Unlisted, Err: err})
		}
		if err != nil && !errors.Is(err, semel.ErrDamaged) {
			return
		}
		for i := range records {
			c.seen(ctx, &records[i])
		}
		if len(records) < pageSize {
			break
		}
		filter.After = records[len(records)-1].Digest
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for digest, e := range c.keys {
		if e.stage == orphaned && e.search < c.search { // a person has settled it
			delete(c.keys, digest)
		}
	}
}

// seen takes up a key in doubt, unless that has been done.
func (c *Completer) seen(ctx context.Context, r *semel.Record) {
	c.mu.Lock()
	e := c.keys[r.Digest]
	known := e != nil
	if !known && len(c.keys) < maxKeys {
		e = &entry{stage: hinted}
		c.keys[r.Digest] = e
	}
	if e != nil {
		e.search = c.search
	}
	c.mu.Unlock()
	if !known && e != nil {
		c.enqueue(ctx, r)
	}
}

// enqueue hands a key in doubt to the workers of its policy.
func (c *Completer) enqueue(ctx context.Context, r *semel.Record) {
	u := r.Unresolved()
	c.mu.Lock()
	e, to := c.keys[r.Digest], c.rooms[u.Policy]
	if to == nil {
		e.stage = orphaned
		c.mu.Unlock()
		c.o.Observe(Event{Kind: Orphan, Policy: u.Policy, Digest: r.Digest, Key: r.Key})
		return
	}
	defer c.mu.Unlock()
	e.stage = queued
	to.queue = append(to.queue, r.Digest)
	c.employ(ctx, to)
}

// employ starts a worker if there is work for it. It is called with the mutex held.
func (c *Completer) employ(ctx context.Context, to *room) {
	if len(to.queue) == 0 || to.busy >= c.o.Workers || c.stopped {
		return
	}
	to.busy++
	c.workers.Go(func() { c.work(ctx, to) })
}

// work looks at one key after the other.
func (c *Completer) work(ctx context.Context, of *room) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(of.queue) > 0 && !c.stopped && ctx.Err() == nil {
		digest := of.queue[0]
		of.queue = of.queue[1:]
		c.keys[digest].stage = atWork
		c.mu.Unlock()
		c.look(ctx, of, digest)
		c.mu.Lock()
	}
	of.busy--
}

// sleep has the key looked at again after d.
func (c *Completer) sleep(digest semel.Digest, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.keys[digest]
	e.stage = resting
	if c.stopped {
		return
	}
	e.timer = time.AfterFunc(max(d, time.Millisecond), func() { c.Suspect(digest) })
}

// failed counts a look that failed before the store could count it.
func (c *Completer) failed(digest semel.Digest) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[digest].tries++
	return c.keys[digest].tries
}

func (c *Completer) forget(digest semel.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, digest)
}

// shortest is the least pause after so many looks; all processes observe it.
func (c *Completer) shortest(looks int) time.Duration {
	pause := c.o.Backoff
	for range looks - 1 {
		if pause >= c.o.BackoffCap/2 {
			pause = c.o.BackoffCap
			break
		}
		pause *= 2
	}
	return pause - pause/4
}

// pause is the pause after so many looks.
func (c *Completer) pause(looks int) time.Duration {
	least := c.shortest(looks)
	return least + rand.N(least*2/3+1)
}

// who names the resolver in what it settles.
func (c *Completer) who(p *semel.Policy) string {
	return fmt.Sprintf("resolver %s@%s", p.Name, c.o.Owner)
}
