package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// patrol looks now and then whether the servers are still what they were when
// the store was opened. What it finds wrong closes the store to all calls until
// it is right again.
func (c *client) patrol() {
	tick := time.NewTicker(c.options.CheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.round(c.end)
		case <-c.end.Done():
			return
		}
	}
}

// round is one round of the patrol. A server that cannot be reached is no
// finding: calls meet that themselves.
func (c *client) round(ctx context.Context) {
	all, err := c.ask(ctx)
	if err != nil {
		return
	}
	var refused error
	for i := range all {
		if err := c.refuse(&all[i]); err != nil {
			refused = fmt.Errorf("%w: %w", semel.ErrUnavailable, err)
		}
	}
	if refused != nil {
		c.refused.Store(&refused)
	} else {
		c.refused.Store(nil)
	}
	c.noteEvictions(ctx, all)
	for _, s := range c.slots {
		within, cancel := context.WithTimeout(ctx, c.options.Timeout)
		select {
		case s.looking <- struct{}{}:
			// A term that has ended or a loss is noted in the slot; calls tell it.
			_, _ = c.look(within, s, false)
			<-s.looking
		case <-within.Done():
		}
		cancel()
	}
}

// evictions gives how many keys each server process has evicted.
func evictions(all []facts) map[string]int64 {
	m := make(map[string]int64, len(all))
	for i := range all {
		m[all[i].run] = all[i].evicted
	}
	return m
}

// noteEvictions declares a loss when a server has evicted keys meanwhile.
func (c *client) noteEvictions(ctx context.Context, all []facts) {
	grown := false
	now := evictions(all)
	for run, n := range now {
		if before, ok := c.evicted[run]; ok && n > before {
			grown = true
		}
	}
	c.evicted = now
	if !grown {
		return
	}
	for _, s := range c.slots {
		within, cancel := context.WithTimeout(ctx, c.options.Timeout)
		name := "evicted-" + time.Now().UTC().Format("20060102T150405.000000Z")
		_ = c.rueidis.Do(within, c.rueidis.B().Hsetnx().Key(s.meta).Field("lost").Value(name).Build()).Error()
		s.term.Store(nil)
		cancel()
	}
}
