package tiered

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

const (
	// maxCalls bounds the calls of one cache that are under way, which are
	// goroutines: those of a cache that hangs are not given back.
	maxCalls = 256
	// patience is how many failures in a row make a tier rest.
	patience = 3
)

// tier is a cache with what protects requests from it.
type tier struct {
	cache         Cache
	prompt        bool
	timeout, rest time.Duration
	start         time.Time
	calls         chan struct{} // holds one for each call under way
	fills         filler

	failures atomic.Int32 // in a row
	until    atomic.Int64 // end of the rest, since start

	hits, errs, skipped, filled, dropped atomic.Uint64
}

// answer is what a call of a cache came to.
type answer struct {
	record semel.Record
	found  bool
	err    error
}

func newTier(c Cache, o *Options) *tier {
	_, prompt := c.(Prompt)
	t := &tier{cache: c, prompt: prompt, timeout: o.CacheTimeout, rest: o.CacheRest, start: time.Now()}
	if !prompt {
		t.calls = make(chan struct{}, maxCalls)
	}
	return t
}

// get asks the cache. Whatever is wrong with it is a miss.
func (t *tier) get(ctx context.Context, d semel.Digest) (semel.Record, bool) {
	if !t.ready() {
		t.skipped.Add(1)
		return semel.Record{}, false
	}
	var a answer
	if t.prompt {
		a = t.ask(ctx, d)
	} else {
		a = t.bounded(func(ctx context.Context) answer { return t.ask(ctx, d) })
	}
	if a.err == nil && a.found && !finished(&a.record, d) {
		a.err = errWrong
	}
	t.note(a.err)
	return a.record, a.found && a.err == nil
}

// put hands the cache a record.
func (t *tier) put(r *semel.Record, ttl time.Duration) {
	t.try(func() error {
		return t.bounded(func(ctx context.Context) answer { return answer{err: t.give(ctx, r, ttl)} }).err
	})
}

// putPromptly is put for a cache that is Prompt. It is apart from put so that
// r stays on the stack of who replays it.
func (t *tier) putPromptly(ctx context.Context, r *semel.Record, ttl time.Duration) {
	t.try(func() error { return t.give(ctx, r, ttl) })
}

func (t *tier) try(put func() error) {
	if !t.ready() {
		t.skipped.Add(1)
		return
	}
	err := put()
	t.note(err)
	if err == nil {
		t.filled.Add(1)
	}
}

func (t *tier) ask(ctx context.Context, d semel.Digest) (a answer) {
	defer survive(&a.err)
	a.record, a.found, a.err = t.cache.Get(ctx, d)
	return a
}

func (t *tier) give(ctx context.Context, r *semel.Record, ttl time.Duration) (err error) {
	defer survive(&err)
	return t.cache.Put(ctx, *r, ttl)
}

var (
	errBusy  = errors.New("tiered: too many calls of the cache have not come back")
	errSlow  = errors.New("tiered: the cache did not answer in time")
	errWrong = errors.New("tiered: the cache gave what it was never given")
)

// bounded makes a call that may hang, on a goroutine of its own, and leaves it
// alone at its deadline. The context is not the request's, which must not be
// used once the request has its answer.
func (t *tier) bounded(call func(context.Context) answer) answer {
	select {
	case t.calls <- struct{}{}:
	default:
		return answer{err: errBusy}
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	out := make(chan answer, 1)
	go func() {
		defer func() { <-t.calls }()
		defer cancel()
		out <- call(ctx)
	}()
	timer := time.NewTimer(t.timeout)
	defer timer.Stop()
	select {
	case a := <-out:
		return a
	case <-timer.C:
		return answer{err: errSlow}
	}
}

// ready tells whether the cache is to be asked. After a rest one call goes
// ahead and shows whether the cache is well again.
func (t *tier) ready() bool {
	if t.failures.Load() < patience {
		return true
	}
	until := t.until.Load()
	now := time.Since(t.start)
	return now >= time.Duration(until) && t.until.CompareAndSwap(until, int64(now+t.rest))
}

func (t *tier) note(err error) {
	if err == nil {
		if t.failures.Load() != 0 {
			t.failures.Store(0)
		}
		return
	}
	t.errs.Add(1)
	if t.failures.Add(1) >= patience {
		t.failures.Store(patience)
		t.until.Store(int64(time.Since(t.start) + t.rest))
	}
}

// lateness is how long beyond its time limit a call may come back, on a busy
// machine, before it is said to hang.
const lateness = time.Second

// close waits until all calls have come back.
func (t *tier) close() error {
	t.fills.close()
	timer := time.NewTimer(t.timeout + lateness)
	defer timer.Stop()
	for i := range cap(t.calls) {
		select {
		case t.calls <- struct{}{}:
		case <-timer.C:
			return fmt.Errorf("tiered: %d calls of the cache %T hang and were left behind; it must return when their context ends", len(t.calls)-i, t.cache)
		}
	}
	return nil
}

// finished tells whether r can be a finished record under d.
func finished(r *semel.Record, d semel.Digest) bool {
	return r.Digest == d && r.State == semel.Done && r.Version.Epoch > 0
}

// survive makes a cache's panic an error.
func survive(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("tiered: the cache panicked: %v", v)
	}
}
