package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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

// What one measure reads of the records. It costs them little, and 1,000,000
// records are looked at in fifty measures.
const (
	measureMost  = 20_000
	measureBytes = 16 << 20
)

// rounds is what measures have seen: each looks at some records, and the next goes
// on from there. In a store whose records are all looked at in one, it keeps nothing.
type rounds struct {
	mu     sync.Mutex
	most   int // records for one measure
	after  semel.Digest
	oldest semel.Record // of this round so far, and of the one before
	last   semel.Record
}

// Measure is part of semel.Measurer. The servers count; bytes are reckoned from a
// sample, and leave out old revisions that are not compacted. Up to 20,000 records
// the oldest pending one is found; of more, each measure looks at as many, and the
// oldest that the last round has found and that is still pending is told.
func (s *Store) Measure(ctx context.Context) (semel.Measure, error) {
	if err := s.ready(ctx); err != nil {
		return semel.Measure{}, err
	}
	c := s.cluster
	at, err := c.clock.read(ctx)
	if err != nil {
		return semel.Measure{}, fmt.Errorf("etcd: cannot measure: %w", err)
	}
	m := semel.Measure{At: at.time}
	lines, err1 := c.get(ctx, c.prefix+"j/", etcd.WithPrefix(), etcd.WithLimit(pageFirst))
	index, err2 := c.get(ctx, c.prefix+"x/", etcd.WithPrefix(), etcd.WithLimit(pageFirst))
	records, err3 := c.get(ctx, c.prefix+"r/", etcd.WithPrefix(), etcd.WithLimit(pageFirst))
	if err := errors.Join(err1, err2, err3); err != nil {
		return semel.Measure{}, err
	}
	m.Records = records.Count
	m.Bytes, m.JournalBytes = bytesOf(records)+bytesOf(index), bytesOf(lines)
	if len(index.Kvs) > 0 {
		first, err := c.parseDue(index.Kvs[0])
		if err != nil {
			return semel.Measure{}, err
		}
		if t := c.dueAt(&first); !t.After(at.time) {
			m.Overdue = t
		}
	}
	m.OldestPending, err = s.oldest(ctx)
	return m, err
}

// bytesOf reckons what all keys of a range take, of which some were read.
func bytesOf(found *etcd.GetResponse) int64 {
	if len(found.Kvs) == 0 {
		return 0
	}
	size := 0
	for _, kv := range found.Kvs {
		size += len(kv.Key) + len(kv.Value)
	}
	return int64(size) * found.Count / int64(len(found.Kvs))
}

// oldest gives when the oldest pending record that it knows was written.
func (s *Store) oldest(ctx context.Context) (time.Time, error) {
	c, r := s.cluster, &s.rounds
	r.mu.Lock()
	defer r.mu.Unlock()
	end := etcd.GetPrefixRangeEnd(c.prefix + "r/")
	looked, size, page, more := 0, 0, min(pageFirst, r.most), true
	for more && looked < r.most && size < measureBytes {
		found, err := c.get(ctx, c.recordKey(&r.after)+"\x00", etcd.WithRange(end), etcd.WithLimit(int64(page)))
		if err != nil {
			return time.Time{}, err
		}
		for _, kv := range found.Kvs {
			copy(r.after[:], kv.Key[len(c.prefix)+2:])
			looked, size = looked+1, size+len(kv.Value)
			held, _, err := decodeRecord(r.after, kv.Value)
			if err == nil && held.State == semel.Pending && (!r.oldest.Held() || held.WrittenAt.Before(r.oldest.WrittenAt)) {
				r.oldest = held
			}
		}
		more = found.More
		page = min(pageMost, r.most, max(1, pageBytes/max(1, size/max(1, looked))))
	}
	if !more {
		r.after, r.last, r.oldest = semel.Digest{}, r.oldest, semel.Record{}
	}
	for _, candidate := range [...]*semel.Record{&r.last, &r.oldest} {
		if !candidate.Held() {
			continue
		}
		held, err := c.get(ctx, c.recordKey(&candidate.Digest))
		switch {
		case err != nil:
			return time.Time{}, err
		case len(held.Kvs) > 0 && len(held.Kvs[0].Value) > 16 && parseVersion(held.Kvs[0].Value) == candidate.Version:
			return candidate.WrittenAt, nil
		}
		*candidate = semel.Record{} // it is over, or was renewed
	}
	return time.Time{}, nil
}
