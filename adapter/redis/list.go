package redis

import (
	"bytes"
	"context"
	"fmt"
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
	nodes := []rueidis.Client{c.rueidis}
	if c.cluster {
		nodes = nodes[:0]
		for address, node := range c.rueidis.Nodes() {
			f, err := c.askOne(ctx, address, node)
			if err != nil {
				return nil, err
			}
			if f.role == "master" {
				nodes = append(nodes, node)
			}
		}
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

// listing is one page on its way. It keeps no more than twice the page.
type listing struct {
	client *client
	filter semel.Filter
	found  map[semel.Digest]semel.Record
	damage []string
}

func (l *listing) scan(ctx context.Context, node rueidis.Client) error {
	c := l.client
	pattern := globs().Replace(c.options.Prefix) + "{*}:*"
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		within, cancel := context.WithTimeout(ctx, c.options.Timeout)
		entry, err := node.Do(within, node.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()).AsScanEntry()
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
	clock, err := answers[len(digests)].AsStrSlice()
	if err != nil {
		return err
	}
	var seconds, micros int64
	if _, err := fmt.Sscan(strings.Join(clock, " "), &seconds, &micros); err != nil {
		return err
	}
	now := time.Unix(seconds, micros*1000)
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
