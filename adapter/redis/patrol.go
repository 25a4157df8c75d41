package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

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

// buryScript replaces a record by its tombstone, over the version that was meant,
// and leaves head and expiry as they are.
//
// KEYS: the record. ARGV: the 16 bytes of its version, and what follows the head.
const buryScript = `local head = redis.call('GETRANGE', KEYS[1], 0, 31)
if string.sub(head, 1, 16) ~= ARGV[1] or #head < 32 then return 0 end
redis.call('SET', KEYS[1], head .. ARGV[2], 'KEEPTTL')
return 1`

const (
	// buryShare is which part of its time a round of bury works; the rest it rests.
	buryShare = 20
	// peekBytes is how much of a record is read at first: all but the result of most.
	peekBytes = 768
)

// undertake looks now and then for results that cannot be replayed any more, and
// takes them away: the server's own expiry ends a key, and not a part of one. Of all
// processes one does so at a time, as far as that goes; two do no harm.
func (c *client) undertake() {
	tick := time.NewTicker(c.options.Results)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.end.Done():
			return
		}
		turn := c.rueidis.B().Arbitrary("SET").Keys(c.slots[0].meta+"turn").Args("1", "NX", "PX", strconv.FormatInt(c.options.Results.Milliseconds()*9/10, 10)).Build()
		if err := c.rueidis.Do(c.end, turn).Error(); err == nil && c.may(c.end) == nil {
			_, _ = c.bury(c.end, buryShare) // what is left is for the next round
		}
	}
}

// bury goes once through all records. Between some and the next it rests share
// times as long as they took.
func (c *client) bury(ctx context.Context, share int) (buried int, err error) {
	nodes, err := c.masters(ctx)
	if err != nil {
		return 0, err
	}
	for _, node := range nodes {
		for cursor, first := uint64(0), true; first || cursor != 0; first = false {
			began := time.Now()
			within, cancel := context.WithTimeout(ctx, c.options.Timeout)
			entry, err := c.scan(within, node, cursor, true)
			some := 0
			if err == nil {
				some, err = c.burySome(within, node, entry.Elements)
			}
			cancel()
			buried, cursor = buried+some, entry.Cursor
			if err != nil {
				return buried, c.explain("drop results", err)
			}
			rest := time.NewTimer(time.Since(began) * time.Duration(share))
			select {
			case <-rest.C:
			case <-ctx.Done():
				rest.Stop()
				return buried, context.Cause(ctx)
			}
		}
	}
	return buried, nil
}

// burySome makes tombstones of those of some keys whose results are spent.
func (c *client) burySome(ctx context.Context, node rueidis.Client, keys []string) (buried int, err error) {
	some, now, err := c.peek(ctx, node, keys)
	if err != nil {
		return 0, err
	}
	var commands []rueidis.Completed
	for i := range some {
		r := &some[i].record
		if !r.Spent(now) {
			continue
		}
		grave := r.Tombstone()
		version, body := appendVersion(nil, r.Version), appendBody(nil, &grave)
		commands = append(commands, c.rueidis.B().Arbitrary("EVAL", buryScript, "1").Keys(some[i].key).
			Args(rueidis.BinaryString(version), rueidis.BinaryString(body)).Build())
	}
	for _, answer := range c.rueidis.DoMulti(ctx, commands...) {
		n, failed := answer.AsInt64()
		if failed != nil {
			err = failed // the others are done all the same
		}
		buried += int(n)
	}
	return buried, err
}

// peeked is a record without its result.
type peeked struct {
	key    string
	record semel.Record
}

// peek reads records without their results, and when: none of them was written
// before it by what it tells. What is no record, or damaged, is left out.
func (c *client) peek(ctx context.Context, node rueidis.Client, keys []string) (out []peeked, now time.Time, err error) {
	commands := []rueidis.Completed{node.B().Time().Build()}
	var names []string
	for _, key := range keys {
		if _, ok := c.digestOf(key); ok {
			commands = append(commands, node.B().Getrange().Key(key).Start(0).End(peekBytes-1).Build())
			names = append(names, key)
		}
	}
	answers := node.DoMulti(ctx, commands...)
	if now, err = timeOf(answers[0]); err != nil {
		return nil, now, err
	}
	for i, key := range names {
		value, err := answers[i+1].ToString()
		if size := entryEnd(value); err == nil && size > len(value) && len(value) == peekBytes {
			value, err = node.Do(ctx, node.B().Getrange().Key(key).Start(0).End(int64(size)-1).Build()).ToString()
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, now, err
			}
			continue // it moved, or is no string
		}
		d, _ := c.digestOf(key)
		if r, err := decodeHead(d, value); err == nil {
			out = append(out, peeked{key, r})
		}
	}
	return out, now, nil
}
