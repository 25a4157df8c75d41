package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/semelhq/semel"
)

// raceChecks: what holds one after the other holds at once. Run them with
// -race as well.
func raceChecks() []check {
	return []check{
		{"16 inserts of one key: one wins", 0, raceInsert},
		{"16 inserts of 16 keys: all win", 0, raceInsertApart},
		{"8 by 20 increments of one key: none is lost", 0, raceIncrement},
		{"one version, 8 endings: one wins", 0, raceEndings},
		{"one dead owner, 8 heirs: one wins", 0, raceTakeover},
		{"versions of one key grow in the order of its writes", 0, raceVersions},
		{"readers see whole records", 0, raceTorn},
		{"batches of the same keys: one wins each", Batches, raceBatches},
		{"sweeps and claims: no claim is swept", Sweeps, raceSweep},
		{"a list during writes has whole records, in order", Lists, raceList},
	}
}

// together runs fn n times at once and fails the case with the errors.
func (e *env) together(n int, fn func(i int) error) {
	e.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		e.Fatal(err)
	}
}

// rivals has n swaps of one key tried at once. Exactly one must win, and every
// other must be told of a record that was held, never of nothing.
func (e *env) rivals(swaps []semel.Swap) semel.Record {
	e.Helper()
	answers := make([]semel.Reading, len(swaps))
	won := make([]bool, len(swaps))
	e.together(len(swaps), func(i int) error {
		r, err := e.store.CompareAndSwap(e.ctx, swaps[i].Old, swaps[i].Next)
		answers[i], won[i] = r, err == nil
		if err != nil && !errors.Is(err, semel.ErrConflict) {
			return fmt.Errorf("rival %d: %w", i, err)
		}
		return nil
	})
	var winner semel.Record
	wins := 0
	for i := range swaps {
		if won[i] {
			wins++
			winner = answers[i].Record
			e.written(swaps[i].Old, swaps[i].Next, answers[i])
		}
	}
	if wins != 1 {
		e.Fatalf("%d of %d rivals won, want exactly one", wins, len(swaps))
	}
	for i := range swaps {
		if d := describe(answers[i].Record, winner); d != "" {
			e.Fatalf("rival %d was not told who won:%s", i, d)
		}
	}
	e.holds(winner)
	return winner
}

func raceInsert(e *env) {
	for round := range 5 {
		swaps := make([]semel.Swap, 16)
		for i := range swaps {
			swaps[i].Next = e.pending(fmt.Sprint("k", round))
		}
		e.rivals(swaps)
	}
}

func raceInsertApart(e *env) {
	next := make([]semel.Record, 16)
	for i := range next {
		next[i] = e.pending(fmt.Sprint("k", i))
	}
	e.together(len(next), func(i int) error {
		_, err := e.store.CompareAndSwap(e.ctx, semel.Version{}, next[i])
		return err
	})
	for _, n := range next {
		e.recognised(n, e.get(n.Digest), semel.ErrConflict)
	}
}

func raceIncrement(e *env) {
	const writers, each = 8, 20
	first := e.pending("k")
	first.Attempt = 0
	first = e.insert(first)
	e.together(writers, func(int) error { return e.increment(first.Digest, each) })
	if got := e.get(first.Digest).Record.Attempt; got != writers*each {
		e.Fatalf("%d increments, the record counts %d", writers*each, got)
	}
}

// increment adds one to Attempt n times, by compare-and-swap.
func (e *env) increment(d semel.Digest, n int) error {
	r, err := e.store.Get(e.ctx, d)
	for n > 0 {
		if err != nil && !errors.Is(err, semel.ErrConflict) {
			return err
		}
		if e.ctx.Err() != nil {
			return fmt.Errorf("%d increments to go: %w", n, context.Cause(e.ctx))
		}
		next := r.Record
		next.Attempt++
		next.Nonce = e.nonce()
		r, err = e.store.CompareAndSwap(e.ctx, next.Version, next)
		if err == nil {
			n--
		}
	}
	return nil
}

func raceEndings(e *env) {
	for round := range 5 {
		claim := e.insert(e.pending(fmt.Sprint("k", round)))
		swaps := make([]semel.Swap, 8)
		for i := range swaps {
			next := e.done(claim, fmt.Sprint("receipt ", i))
			if i%2 == 1 {
				next = e.released(claim)
			}
			swaps[i] = semel.Swap{Old: claim.Version, Next: next}
		}
		e.rivals(swaps)
	}
}

func raceTakeover(e *env) {
	dead := e.insert(expired(e.pending("k")))
	swaps := make([]semel.Swap, 8)
	for i := range swaps {
		swaps[i] = semel.Swap{Old: dead.Version, Next: e.heir(dead)}
	}
	winner := e.rivals(swaps)
	e.refuse(dead.Version, e.complete(dead), winner)
}

func raceVersions(e *env) {
	const writers, each = 4, 15
	first := e.pending("k")
	first.Attempt = 0
	first = e.insert(first)
	versions := make([]semel.Version, writers*each+1) // by Attempt, which each write raises by one
	versions[0] = first.Version
	var mu sync.Mutex
	e.together(writers, func(int) error {
		r := semel.Reading{Record: first}
		for won := 0; won < each && e.ctx.Err() == nil; {
			next := r.Record
			next.Attempt++
			next.Nonce = e.nonce()
			var err error
			r, err = e.store.CompareAndSwap(e.ctx, next.Version, next)
			switch {
			case err == nil:
				won++
				mu.Lock()
				versions[r.Record.Attempt] = r.Record.Version
				mu.Unlock()
			case !errors.Is(err, semel.ErrConflict):
				return err
			}
		}
		return e.ctx.Err()
	})
	for i := 1; i < len(versions); i++ {
		if versions[i].Compare(versions[i-1]) <= 0 {
			e.Fatalf("write %d has version %v, the one before it %v", i, versions[i], versions[i-1])
		}
	}
}

// marked is a record whose fields all follow from n.
func (e *env) marked(r semel.Record, n int) semel.Record {
	r = e.done(r, "")
	r.Attempt, r.Code, r.Owner = n, n, fmt.Sprint("owner ", n)
	r.Result = bytes.Repeat([]byte{byte(n)}, 8<<10)
	r.Fingerprint = semel.FingerprintOf(r.Result[:1])
	return r
}

// torn tells whether a marked record is of two writes.
func torn(r semel.Record) error {
	n := r.Attempt
	if r.Code != n || r.Owner != fmt.Sprint("owner ", n) || r.Fingerprint != semel.FingerprintOf([]byte{byte(n)}) ||
		!bytes.Equal(r.Result, bytes.Repeat([]byte{byte(n)}, 8<<10)) {
		return fmt.Errorf("a reader saw parts of two writes: attempt %d, code %d, owner %q, result of %d",
			n, r.Code, r.Owner, r.Result[:min(1, len(r.Result))])
	}
	return nil
}

func raceTorn(e *env) {
	first := e.insert(e.marked(e.pending("k"), 0))
	done, stop := context.WithCancel(e.ctx)
	defer stop()
	e.together(5, func(i int) error {
		if i > 0 {
			return e.readWhole(done, first)
		}
		defer stop()
		r := semel.Reading{Record: first}
		for n := 1; n <= 40; n++ {
			var err error
			if r, err = e.store.CompareAndSwap(e.ctx, r.Record.Version, e.marked(r.Record, n)); err != nil {
				return err
			}
		}
		return nil
	})
}

// readWhole reads until done ends: each record must be of one write, and no
// older than the one before.
func (e *env) readWhole(done context.Context, first semel.Record) error {
	last := first.Version
	for done.Err() == nil {
		r, err := e.store.Get(e.ctx, first.Digest)
		if err == nil {
			err = torn(r.Record)
		}
		if err == nil && r.Record.Version.Compare(last) < 0 {
			err = fmt.Errorf("a reader saw version %v and then %v", last, r.Record.Version)
		}
		if err != nil {
			return err
		}
		last = r.Record.Version
	}
	return nil
}

func raceBatches(e *env) {
	const rivals, keys = 6, 10
	wins := make([][keys]bool, rivals)
	e.together(rivals, func(i int) error {
		swaps := make([]semel.Swap, keys)
		for k := range swaps {
			swaps[k].Next = e.pending(fmt.Sprint("k", (k+i)%keys)) // each in another order
		}
		b, _ := semel.As[semel.Batcher](e.store)
		for k, s := range b.SwapMany(e.ctx, swaps) {
			if s.Err != nil && !errors.Is(s.Err, semel.ErrConflict) {
				return s.Err
			}
			wins[i][(k+i)%keys] = s.Err == nil
		}
		return nil
	})
	for k := range keys {
		n := 0
		for i := range rivals {
			if wins[i][k] {
				n++
			}
		}
		if n != 1 {
			e.Errorf("key %d was claimed by %d batches, want one", k, n)
		}
	}
}

func raceSweep(e *env) {
	done, stop := context.WithCancel(e.ctx)
	defer stop()
	s, _ := semel.As[semel.Sweeper](e.store)
	e.together(4, func(i int) error {
		if i == 0 {
			for done.Err() == nil {
				if _, err := s.Sweep(e.ctx, 100); err != nil {
					return err
				}
			}
			return nil
		}
		defer stop()
		return e.lives(fmt.Sprint("k", i), 20)
	})
}

// lives has a key claimed, released and swept again and again: whoever claims
// must find its claim held until it ends it.
func (e *env) lives(id string, n int) error {
	var last semel.Version
	for range n {
		next := expired(e.pending(id))
		r, err := e.store.CompareAndSwap(e.ctx, semel.Version{}, next)
		if errors.Is(err, semel.ErrConflict) { // not swept yet
			r, err = e.store.CompareAndSwap(e.ctx, r.Record.Version, next)
		}
		if errors.Is(err, semel.ErrConflict) && !r.Record.Held() { // swept between the two
			r, err = e.store.CompareAndSwap(e.ctx, semel.Version{}, next)
		}
		if err != nil {
			return fmt.Errorf("claiming %s: %w", id, err)
		}
		if r.Record.Version.Compare(last) <= 0 {
			return fmt.Errorf("%s: version %v after %v", id, r.Record.Version, last)
		}
		r, err = e.store.CompareAndSwap(e.ctx, r.Record.Version, expired(e.released(r.Record)))
		if err != nil {
			return fmt.Errorf("the claim on %s was gone before it ended: %w", id, err)
		}
		last = r.Record.Version
	}
	return nil
}

func raceList(e *env) {
	done, stop := context.WithCancel(e.ctx)
	defer stop()
	l, _ := semel.As[semel.Lister](e.store)
	e.together(3, func(i int) error {
		if i > 0 {
			for done.Err() == nil {
				records, err := l.List(e.ctx, semel.Filter{Limit: 1000})
				if err != nil {
					return err
				}
				for _, r := range records {
					if err := torn(r); err != nil {
						return err
					}
				}
				if err := ordered(records); err != nil {
					return err
				}
			}
			return nil
		}
		defer stop()
		for n := range 40 {
			if _, err := e.store.CompareAndSwap(e.ctx, semel.Version{}, e.marked(e.pending(fmt.Sprint("k", n)), n)); err != nil {
				return err
			}
		}
		return nil
	})
}
