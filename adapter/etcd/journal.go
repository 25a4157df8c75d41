package etcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

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

// journalDays gives the first and the last day that the journal has.
func (c *cluster) journalDays(ctx context.Context) (first, last uint32, ok bool, err error) {
	key := c.prefix + "j/"
	for i, order := range [...]etcd.SortOrder{etcd.SortAscend, etcd.SortDescend} {
		out, err := c.get(ctx, key, etcd.WithPrefix(), etcd.WithKeysOnly(), etcd.WithLimit(1), etcd.WithSort(etcd.SortByKey, order))
		if err != nil || len(out.Kvs) == 0 {
			return 0, 0, false, err
		}
		rest := out.Kvs[0].Key[len(key):]
		if len(rest) < 4 {
			return 0, 0, false, fmt.Errorf("etcd: %w: the journal has the key %q, which is not of a store", semel.ErrDamaged, out.Kvs[0].Key)
		}
		if *[...]*uint32{&first, &last}[i] = binary.BigEndian.Uint32(rest); i == 0 {
			last = first
		}
	}
	return first, last, true, nil
}

// Days is part of semel.Days. It asks once for each day that there is.
func (s *Store) Days(ctx context.Context) ([]time.Time, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	c := s.cluster
	var out []time.Time
	key := c.prefix + "j/"
	for from := key; ; {
		found, err := c.get(ctx, from, etcd.WithRange(etcd.GetPrefixRangeEnd(key)), etcd.WithKeysOnly(), etcd.WithLimit(1))
		if err != nil || len(found.Kvs) == 0 {
			return out, err
		}
		rest := found.Kvs[0].Key[len(key):]
		if len(rest) < 4 {
			return nil, fmt.Errorf("etcd: %w: the journal has the key %q, which is not of a store", semel.ErrDamaged, found.Kvs[0].Key)
		}
		d := binary.BigEndian.Uint32(rest)
		out = append(out, time.Unix(0, 0).UTC().AddDate(0, 0, int(d)))
		from = c.journalDay(d+1, nil)
	}
}

// Lines is part of semel.Days. The lines come by key, some at a time.
func (s *Store) Lines(ctx context.Context, of time.Time) iter.Seq2[semel.Entry, error] {
	return func(yield func(semel.Entry, error) bool) {
		c, d := s.cluster, dayOf(of)
		begin, end := c.journalDay(d, nil), c.journalDay(d+1, nil)
		err := s.ready(ctx)
		for from := begin; err == nil; {
			found, failed := c.get(ctx, from, etcd.WithRange(end), etcd.WithLimit(pageMost))
			if err = failed; err != nil {
				break
			}
			for _, kv := range found.Kvs {
				e, bad := parseLine(kv.Key[len(begin):], kv.Value)
				if bad != nil {
					yield(semel.Entry{}, bad)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
			if !found.More {
				return
			}
			from = string(found.Kvs[len(found.Kvs)-1].Key) + "\x00"
		}
		yield(semel.Entry{}, err)
	}
}

// parseLine reads a line of the journal; key is what follows the day in its key.
func parseLine(key, value []byte) (semel.Entry, error) {
	var digest semel.Digest
	if len(key) != len(digest)+16 {
		return semel.Entry{}, fmt.Errorf("etcd: %w: the journal has the key %q, which is not of a store", semel.ErrDamaged, key)
	}
	copy(digest[:], key)
	e, err := semel.ParseEntry(digest, value)
	if err == nil && e.Record.Version != parseVersion(key[len(digest):]) {
		err = fmt.Errorf("%w: it has the version %v, and its key another", semel.ErrDamaged, e.Record.Version)
	}
	if err != nil {
		return semel.Entry{}, fmt.Errorf("etcd: journal of %v: %w", digest, err)
	}
	return e, nil
}

// DropDay is part of semel.Days. It deletes in 256 pieces, and rests for as long
// after each as it took, so that requests wait little for it.
func (s *Store) DropDay(ctx context.Context, of time.Time) error {
	if s.batch == nil {
		return errReadOnly
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	c, d := s.cluster, dayOf(of)
	at, err := c.time(ctx)
	switch {
	case err != nil:
		return err
	case d >= dayOf(at.time.Add(-2*at.err)):
		return fmt.Errorf("etcd: the day %s is not over, and its lines of the journal stay", of.UTC().Format(time.DateOnly))
	}
	found, err := c.get(ctx, c.journalDay(d, nil), etcd.WithRange(c.journalDay(d+1, nil)), etcd.WithCountOnly())
	pieces := 256
	if err == nil && found.Count <= pageMost {
		pieces = 1
	}
	for i := 0; err == nil && i < pieces; i++ {
		from, end := c.journalDay(d, []byte{byte(i)}), c.journalDay(d, []byte{byte(i + 1)})
		if i+1 == pieces {
			end = c.journalDay(d+1, nil)
		}
		began := time.Now()
		_, err = c.txn(ctx, nil, []etcd.Op{etcd.OpDelete(from, etcd.WithRange(end))}, nil)
		if err == nil {
			err = sleep(ctx, min(time.Since(began), time.Second))
		}
	}
	return err
}
