package etcd

import (
	"context"
	"errors"
	"fmt"

	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

const (
	// pageBytes is about how much one read of a list brings.
	pageBytes = 4 << 20
	pageMost  = 1000
	pageFirst = 32
)

// List is part of semel.Lister. It reads through all keys from filter.After on,
// results included. If records are damaged, the error is semel.ErrDamaged and
// names them, and the list has the others.
func (s *Store) List(ctx context.Context, filter semel.Filter) ([]semel.Record, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	c := s.cluster
	at, err := c.clock.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd: cannot list: %w", err)
	}
	if filter.Limit == 0 {
		filter.Limit = 100
	}
	var out []semel.Record
	var damage []error
	from, end := c.recordKey(&filter.After)+"\x00", etcd.GetPrefixRangeEnd(c.prefix+"r/")
	for page := pageFirst; ; {
		found, err := c.get(ctx, from, etcd.WithRange(end), etcd.WithLimit(int64(page)))
		if err != nil {
			return nil, err
		}
		size := 0
		for _, kv := range found.Kvs {
			size += len(kv.Value)
			var digest semel.Digest
			if copy(digest[:], kv.Key[len(c.prefix)+2:]); len(kv.Key) != len(c.prefix)+2+len(digest) {
				damage = append(damage, fmt.Errorf("the key %q has no digest", kv.Key))
				continue
			}
			r, by, err := decodeRecord(digest, kv.Value)
			if err != nil {
				damage = append(damage, err)
			} else if filter.Matches(&r, c.reading(r, by, at).Now) {
				out = append(out, r)
			}
			if len(out) >= filter.Limit || len(damage) >= filter.Limit {
				return out, errors.Join(damage...)
			}
		}
		if !found.More {
			break
		}
		from = string(found.Kvs[len(found.Kvs)-1].Key) + "\x00"
		page = min(pageMost, max(1, pageBytes/max(1, size/len(found.Kvs))))
	}
	if len(damage) > 0 {
		return out, fmt.Errorf("%w under %s: %w", semel.ErrDamaged, c.prefix, errors.Join(damage...))
	}
	return out, nil
}

// History is part of semel.Journal. The journal's keys are ordered by day, then
// by key, so this reads the key's lines of each day and nothing else.
func (s *Store) History(ctx context.Context, digest semel.Digest) ([]semel.Entry, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	c := s.cluster
	first, last, ok, err := c.journalDays(ctx)
	if err != nil || !ok {
		return nil, err
	}
	var out []semel.Entry
	var damage []error
	for d := uint64(first); d <= uint64(last); d++ {
		key := c.journalDay(uint32(d), digest[:])
		lines, err := c.get(ctx, key, etcd.WithPrefix())
		if err != nil {
			return nil, err
		}
		for _, kv := range lines.Kvs {
			e, err := semel.ParseEntry(digest, kv.Value)
			if err == nil && string(kv.Key[len(key):]) != versionBytes(e.Record.Version) {
				err = fmt.Errorf("%w: it has the version %v, and its key another", semel.ErrDamaged, e.Record.Version)
			}
			if err != nil {
				damage = append(damage, fmt.Errorf("etcd: journal of %v: %w", digest, err))
				continue
			}
			out = append(out, e)
		}
	}
	return out, errors.Join(damage...)
}
