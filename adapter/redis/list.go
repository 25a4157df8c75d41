package redis

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
)

// scanCount is how many keys one SCAN looks at.
const scanCount = 500

// List is part of semel.Lister. It goes through all keys of the servers (SCAN)
// and reads every record, for each page: some 100,000 a second, of the time that
// requests have as well. If records are damaged, the error is semel.ErrDamaged
// and names them, and the list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	c := s.client
	if err := c.may(ctx); err != nil {
		return nil, err
	}
	if filter.Limit == 0 {
		filter.Limit = 100
	}
	l := &listing{client: c, filter: filter, found: map[semel.Digest]semel.Record{}}
	nodes, err := c.masters(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if err := l.scan(ctx, node); err != nil {
			return nil, err
		}
	}
	l.trim()
	out := l.sorted()
	if len(l.damage) > 0 {
		return out, fmt.Errorf("%w in redis %s: %s", semel.ErrDamaged, c.name, strings.Join(l.damage, "; "))
	}
	return out, nil
}

// masters gives the servers that have the records, by address.
func (c *client) masters(ctx context.Context) (map[string]rueidis.Client, error) {
	if !c.cluster {
		return map[string]rueidis.Client{"": c.rueidis}, nil
	}
	nodes := make(map[string]rueidis.Client)
	for address, node := range c.rueidis.Nodes() {
		f, err := c.askOne(ctx, address, node)
		if err != nil {
			return nil, err
		}
		if f.role == "master" {
			nodes[address] = node
		}
	}
	return nodes, nil
}

// scan gives some keys of a server: all, or those that may be records'.
func (c *client) scan(ctx context.Context, node rueidis.Client, cursor uint64, ours bool) (rueidis.ScanEntry, error) {
	pattern := "*"
	if ours {
		pattern = globs().Replace(c.options.Prefix) + "{*}:*"
	}
	return node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()).AsScanEntry()
}

// timeOf reads the answer to TIME.
func timeOf(answer rueidis.RedisResult) (time.Time, error) {
	clock, err := answer.AsStrSlice()
	if err != nil {
		return time.Time{}, err
	}
	var seconds, micros int64
	if _, err := fmt.Sscan(strings.Join(clock, " "), &seconds, &micros); err != nil {
		return time.Time{}, err
	}
	return time.Unix(seconds, micros*1000), nil
}

// listing is one page on its way. It keeps no more than twice the page.
type listing struct {
	client *client
	filter semel.Filter
	found  map[semel.Digest]semel.Record
	damage []string
}

func (l *listing) scan(ctx context.Context, node rueidis.Client) error {
	c := l.client
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		within, cancel := context.WithTimeout(ctx, c.options.Timeout)
		entry, err := c.scan(within, node, cursor, true)
		if err == nil {
			cursor, err = entry.Cursor, l.read(within, node, entry.Elements)
		}
		cancel()
		if err != nil {
			return c.explain("list", err)
		}
	}
	return nil
}

// read reads the records of some keys.
func (l *listing) read(ctx context.Context, node rueidis.Client, keys []string) error {
	var commands []rueidis.Completed
	var digests []semel.Digest
	for _, key := range keys {
		if d, ok := l.client.digestOf(key); ok && bytes.Compare(d[:], l.filter.After[:]) > 0 {
			commands = append(commands, node.B().Get().Key(key).Build())
			digests = append(digests, d)
		}
	}
	if len(commands) == 0 {
		return nil
	}
	// The time comes last: no record is newer than it.
	answers := node.DoMulti(ctx, append(commands, node.B().Time().Build())...)
	now, err := timeOf(answers[len(digests)])
	if err != nil {
		return err
	}
	for i, d := range digests {
		value, err := answers[i].ToString()
		if rueidis.IsRedisNil(err) {
			delete(l.found, d)
			continue
		}
		var r semel.Record
		if err == nil {
			r, err = decode(d, value)
			if err != nil && len(l.damage) < 10 {
				l.damage = append(l.damage, fmt.Sprintf("digest %v: %v", d, err))
			}
		} else if ctx.Err() != nil {
			return err
		}
		// A scan may come by twice; the later look is the truer.
		delete(l.found, d)
		if err == nil && l.filter.Matches(&r, now) {
			l.found[d] = r
		}
	}
	if len(l.found) > 2*l.filter.Limit+scanCount {
		l.trim()
	}
	return nil
}

// sorted gives what was found, ordered by digest.
func (l *listing) sorted() []semel.Record {
	out := make([]semel.Record, 0, len(l.found))
	for _, r := range l.found {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b semel.Record) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return out
}

// trim drops what lies behind the page.
func (l *listing) trim() {
	if all := l.sorted(); len(all) > l.filter.Limit {
		for i := range all[l.filter.Limit:] {
			delete(l.found, all[l.filter.Limit+i].Digest)
		}
	}
}

// digestOf gives the digest in a record's key.
func (c *client) digestOf(key string) (semel.Digest, bool) {
	var d semel.Digest
	if len(key) < len(d) {
		return d, false
	}
	copy(d[:], key[len(key)-len(d):])
	return d, key[:len(key)-len(d)] == c.slotOf(&d).prefix
}

// globs quotes what has a meaning in SCAN's patterns.
func globs() *strings.Replacer {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`)
}

const (
	// measureKeys is how many keys of each server one measure looks at.
	measureKeys = 50_000
	// measureSizes is how many records one measure asks the size of.
	measureSizes = 200
)

// rounds is what measures have seen of one server: each looks at some keys, and
// the next goes on from there.
type rounds struct {
	cursor uint64
	oldest semel.Record // pending, of this round so far, and of the one before
	last   semel.Record
}

// Measure is part of semel.Measurer. Where a server has up to 50,000 keys, all are
// looked at, and the count is exact; else the share of the store's among as many,
// and the oldest pending record of the last round that is still pending. Bytes are
// reckoned from what MEMORY USAGE says of some; -1 if it is forbidden.
func (s *Store) Measure(ctx context.Context) (semel.Measure, error) {
	c := s.client
	if err := c.may(ctx); err != nil {
		return semel.Measure{}, err
	}
	s.measuring.Lock()
	defer s.measuring.Unlock()
	nodes, err := c.masters(ctx)
	if err != nil {
		return semel.Measure{}, err
	}
	m := semel.Measure{JournalBytes: -1}
	for address, node := range nodes {
		if s.rounds[address] == nil {
			s.rounds[address] = new(rounds)
		}
		if err := c.measure(ctx, node, s.rounds[address], &m); err != nil {
			return semel.Measure{}, c.explain("measure", err)
		}
	}
	return m, nil
}

// measure adds one server's share.
func (c *client) measure(ctx context.Context, node rueidis.Client, of *rounds, m *semel.Measure) error {
	all, err := node.Do(ctx, node.B().Dbsize().Build()).AsInt64()
	if err != nil {
		return err
	}
	whole := all <= measureKeys
	if whole {
		of.cursor = 0
	}
	var ours, sized, bytes int64
	looked, ended := int64(0), false
	seen := make(map[semel.Digest]bool)
	for (whole || looked < measureKeys) && !ended {
		within, cancel := context.WithTimeout(ctx, c.options.Timeout)
		entry, err := c.scan(within, node, of.cursor, false)
		var some []peeked
		if err == nil {
			some, m.At, err = c.peek(within, node, entry.Elements)
		}
		for i := range some {
			p := &some[i]
			if !whole || !seen[p.record.Digest] {
				ours++
			}
			if whole {
				seen[p.record.Digest] = true
			}
			if sized < measureSizes && bytes >= 0 {
				sized++
				n, err := node.Do(within, node.B().MemoryUsage().Key(p.key).Build()).AsInt64()
				if err != nil && !rueidis.IsRedisNil(err) {
					bytes = math.MinInt64 / 2
				}
				bytes += n
			}
			if p.record.State == semel.Pending && (!of.oldest.Held() || p.record.WrittenAt.Before(of.oldest.WrittenAt)) {
				of.oldest = p.record
			}
		}
		cancel()
		if err != nil {
			return err
		}
		looked += int64(len(entry.Elements))
		of.cursor = entry.Cursor
		ended = of.cursor == 0
	}
	if ended {
		of.last, of.oldest = of.oldest, semel.Record{}
	}
	if !whole {
		ours = min(all, ours*all/max(looked, 1))
		m.Estimated = true
	}
	m.Records += ours
	switch {
	case bytes < 0:
		m.Bytes = -1
	case m.Bytes >= 0 && sized > 0:
		m.Bytes += bytes * ours / sized
	}
	return c.oldest(ctx, node, of, m)
}

// oldest notes the oldest pending record that is known and still so.
func (c *client) oldest(ctx context.Context, node rueidis.Client, of *rounds, m *semel.Measure) error {
	for _, candidate := range [...]*semel.Record{&of.last, &of.oldest} {
		if !candidate.Held() {
			continue
		}
		d := candidate.Digest
		some, _, err := c.peek(ctx, node, []string{c.slotOf(&d).prefix + string(d[:])})
		if err != nil {
			return err
		}
		if len(some) == 1 && some[0].record.Version == candidate.Version {
			if at := candidate.WrittenAt; m.OldestPending.IsZero() || at.Before(m.OldestPending) {
				m.OldestPending = at
			}
			return nil
		}
		*candidate = semel.Record{} // it is over, or was renewed
	}
	return nil
}
