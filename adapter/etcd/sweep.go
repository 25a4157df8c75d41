package etcd

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

// sweepSome is how many index entries one transaction of the sweeper looks at:
// few, so that the requests' transactions wait little for it (INVARIANTS X7).
const sweepSome = 64

// Sweep is part of semel.Sweeper. It reads the index of what expires, oldest
// first, and so costs as much as there is to delete, whatever is held. It also
// drops the days of the journal that are older than Options.Journal.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	if s.batch == nil {
		return 0, errReadOnly
	}
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	swept := 0
	for swept < limit {
		want := min(limit-swept, sweepSome)
		looked, deleted, err := s.cluster.sweep(ctx, want)
		swept += deleted
		if err != nil {
			return swept, err
		}
		if looked < want {
			break
		}
	}
	if limit == 0 || s.options.Journal < 0 {
		return swept, nil
	}
	return swept, s.cluster.dropJournal(ctx, s.options.Journal)
}

// due is one entry of the index.
type due struct {
	key     string
	digest  semel.Digest
	version semel.Version
}

// sweep looks at the oldest entries of the index that are due. An entry goes in
// any case; the record goes with it if it is still the one that was meant.
func (c *cluster) sweep(ctx context.Context, most int) (looked, deleted int, err error) {
	at, err := c.time(ctx)
	if err != nil {
		return 0, 0, err
	}
	begin := c.prefix + "x/"
	end := c.expiryKey(at.time.UnixNano()+1, &semel.Digest{})
	found, err := c.get(ctx, begin, etcd.WithRange(end), etcd.WithLimit(int64(most)))
	if err != nil || len(found.Kvs) == 0 {
		return 0, 0, err
	}
	list := make([]due, 0, len(found.Kvs))
	for _, kv := range found.Kvs {
		d, err := c.parseDue(kv)
		if err != nil {
			return 0, 0, err
		}
		list = append(list, d)
	}
	most = int(c.most.Load())
	for len(list) > 0 && err == nil {
		n := min(len(list), most)
		var gone int
		gone, err = c.forget(ctx, list[:n], at.time)
		looked, deleted, list = looked+n, deleted+gone, list[n:]
	}
	return looked, deleted, err
}

func (c *cluster) parseDue(kv *mvccpb.KeyValue) (due, error) {
	d := due{key: string(kv.Key)}
	rest := kv.Key[len(c.prefix)+2:]
	if len(rest) != 8+len(d.digest) || len(kv.Value) != 16 {
		return d, fmt.Errorf("etcd: %w: the index has the entry %q, which is not of a store", semel.ErrDamaged, kv.Key)
	}
	copy(d.digest[:], rest[8:])
	d.version = parseVersion(kv.Value)
	return d, nil
}

// forget deletes in one transaction, and raises the floor over what goes.
func (c *cluster) forget(ctx context.Context, list []due, at time.Time) (deleted int, err error) {
	ops := make([]etcd.Op, 0, len(list)+1)
	var highest semel.Version
	for _, d := range list {
		key := c.recordKey(&d.digest)
		both := []etcd.Op{etcd.OpDelete(key), etcd.OpDelete(d.key)}
		ops = append(ops, etcd.OpTxn(c.holds(key, d.version), both, both[1:]))
		if d.version.Compare(highest) > 0 {
			highest = d.version
		}
	}
	for range floorTries {
		old, then := c.known(), ops
		if highest.Compare(old) > 0 {
			then = append(ops, etcd.OpPut(c.floorKey(), floorValue(highest)))
		}
		done, err := c.txn(ctx, []etcd.Cmp{c.atFloor(old)}, then, []etcd.Op{etcd.OpGet(c.floorKey())})
		if err != nil {
			return 0, err
		}
		if !done.Succeeded {
			if err := c.rise(ctx, done.Responses[0].GetResponseRange().GetKvs(), at); err != nil {
				return 0, err
			}
			continue
		}
		if highest.Compare(old) > 0 {
			c.mu.Lock()
			if highest.Compare(c.floor) > 0 {
				c.floor = highest
			}
			c.mu.Unlock()
		}
		for i := range list {
			if done.Responses[i].GetResponseTxn().GetSucceeded() {
				deleted++
			}
		}
		return deleted, nil
	}
	return 0, errRising
}

// dropJournal deletes the oldest day of the journal if all of it is older than
// keep, in pieces.
func (c *cluster) dropJournal(ctx context.Context, keep time.Duration) error {
	at, err := c.time(ctx)
	if err != nil {
		return err
	}
	first, _, ok, err := c.journalDays(ctx)
	if err != nil || !ok || int64(first) >= at.time.Add(-keep).Unix()/int64(day/time.Second) {
		return err
	}
	for piece := range 256 {
		from := c.journalDay(first, []byte{byte(piece)})
		end := c.journalDay(first+1, nil)
		if piece < math.MaxUint8 {
			end = c.journalDay(first, []byte{byte(piece + 1)})
		}
		if _, err := c.txn(ctx, nil, []etcd.Op{etcd.OpDelete(from, etcd.WithRange(end))}, nil); err != nil {
			return err
		}
	}
	return nil
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
