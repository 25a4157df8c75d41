package redis

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/semelhq/semel"
)

// A slot is a part of the keys that a script can reach at once: all of them,
// but in a Cluster.
type slot struct {
	prefix string // of its records' keys; the digest follows
	meta   string // its meta hash

	term atomic.Pointer[term]

	looking chan struct{} // holds one while the term is looked at
	// The newest term and its counter that were seen, for when there is no term.
	seenEpoch, seenCounter uint64
}

// A term is the time during which one server process counts the versions of a
// slot: its epoch is in them. Another process, or the same after it was a
// replica, begins another term, since its counter may have gone back.
type term struct {
	swap  script
	field string // of the meta hash, with the counter
	epoch uint64
	text  string        // epoch in decimal
	seen  atomic.Uint64 // the greatest counter seen
}

// saw notes a counter that the server has given.
func (t *term) saw(counter uint64) {
	for {
		last := t.seen.Load()
		if counter <= last || t.seen.CompareAndSwap(last, counter) {
			return
		}
	}
}

// slotsOf divides keys among n slots.
func slotsOf(prefix string, n int) []*slot {
	slots := make([]*slot, n)
	for i := range slots {
		tag := "0"
		if n > 1 {
			tag = hex.EncodeToString([]byte{byte(i)})
		}
		slots[i] = &slot{prefix: prefix + "{" + tag + "}:", meta: prefix + "{" + tag + "}!", looking: make(chan struct{}, 1)}
	}
	return slots
}

func (c *client) slotOf(d *semel.Digest) *slot { return c.slots[int(d[0])%len(c.slots)] }

// current gives the slot's term, and begins or looks for one if there is none.
// ended names the term that has just turned out to be over, if any.
func (c *client) current(ctx context.Context, s *slot, ended *term) (*term, error) {
	if t := s.term.Load(); t != nil && t != ended {
		return t, nil
	}
	select {
	case s.looking <- struct{}{}:
	case <-ctx.Done():
		return nil, c.explain("look at the term of the keys", context.Cause(ctx))
	}
	defer func() { <-s.looking }()
	if t := s.term.Load(); t != nil && t != ended {
		return t, nil
	}
	return c.look(ctx, s, true)
}

// look asks the server for the slot's term, and has it load the script, in any
// case or if it is a new one. It is called while
// s.looking holds one.
func (c *client) look(ctx context.Context, s *slot, load bool) (*term, error) {
	old := s.term.Load()
	if old != nil {
		s.seenEpoch, s.seenCounter = old.epoch, old.seen.Load()
	}
	cmd := c.rueidis.B().Arbitrary("EVAL", termText, "1").Keys(s.meta).Args(
		strconv.FormatUint(s.seenEpoch, 10), strconv.FormatUint(s.seenCounter, 10), c.options.AcceptLoss, c.layout(),
	).Build()
	answer, err := c.rueidis.Do(ctx, cmd).AsStrSlice()
	if err != nil {
		return nil, c.explain("look at the term of the keys", err)
	}
	epoch, counter, run, err := c.judge(answer)
	if err != nil {
		s.term.Store(nil)
		return nil, err
	}
	swap := swapFor(run, c.major)
	if old != nil && old.epoch == epoch && old.swap == swap && !load {
		return old, nil
	}
	// EVAL, not SCRIPT LOAD, which old servers replicate. Without records it only loads.
	loading := c.rueidis.B().Arbitrary("EVAL", swap.text, "1").Keys(s.meta).Build()
	if err := c.rueidis.Do(ctx, loading).Error(); err != nil {
		return nil, c.explain("load a script", err)
	}
	if old != nil && old.epoch == epoch && old.swap == swap {
		return old, nil
	}
	t := &term{swap: swap, epoch: epoch, text: strconv.FormatUint(epoch, 10)}
	t.field = "c:" + t.text + ":" + run
	t.seen.Store(counter)
	s.term.Store(t)
	return t, nil
}

// judge reads the answer of the term's script.
func (c *client) judge(answer []string) (epoch, counter uint64, run string, err error) {
	switch {
	case len(answer) == 4 && answer[0] == "term":
		epoch, err = strconv.ParseUint(answer[1], 10, 64)
		if err == nil {
			counter, err = strconv.ParseUint(answer[2], 10, 64)
		}
		if err != nil {
			err = fmt.Errorf("%w: redis %s: the meta hash: %w", semel.ErrDamaged, c.name, err)
		}
		return epoch, counter, answer[3], err
	case len(answer) == 2 && answer[0] == "lost":
		return 0, 0, "", c.lost(answer[1])
	case len(answer) == 2 && answer[0] == "layout":
		return 0, 0, "", fmt.Errorf("redis %s: the keys under %q are laid out as %q, and %q was asked for: open it as it was made, or name another Prefix",
			c.name, c.options.Prefix, answer[1], c.layout())
	case len(answer) == 1 && answer[0] == "replica":
		return 0, 0, "", errReplica(c.name)
	}
	return 0, 0, "", fmt.Errorf("redis %s: the term's script answered %q, which nobody understands", c.name, strings.Join(answer, " "))
}

// layout says how keys are laid out: a store with other slots would look for
// them elsewhere.
func (c *client) layout() string { return fmt.Sprintf("1/%d", len(c.slots)) }
