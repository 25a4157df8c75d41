package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

const (
	// sweepSome is how many index entries one transaction of the sweeper looks at:
	// few, so that the requests' transactions wait little for it (INVARIANTS X7).
	sweepSome = 64
	// sweepBytes bounds the results that are read at once to take them away.
	sweepBytes = 4 << 20
)

// Sweep is part of semel.Sweeper. It reads the index of what is due, oldest
// first, and so costs as much as there is to do, whatever is held. To take a
// result away it reads and writes the record.
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
		looked, some, err := s.cluster.sweep(ctx, want)
		swept += some
		if err != nil {
			return swept, err
		}
		if looked < want {
			break
		}
	}
	return swept, nil
}

// sweep looks at the oldest entries of the index that are due. An entry goes in
// any case; what it says happens if the record is still the one that was meant.
func (c *cluster) sweep(ctx context.Context, most int) (looked, swept int, err error) {
	at, err := c.time(ctx)
	if err != nil {
		return 0, 0, err
	}
	now := at.time.UnixNano()
	found, err := c.get(ctx, c.prefix+"x/", etcd.WithRange(c.dueKey(now+1, &semel.Digest{})), etcd.WithLimit(int64(most)))
	if err != nil || len(found.Kvs) == 0 {
		return 0, 0, err
	}
	var over, spent []due
	for _, kv := range found.Kvs {
		d, err := c.parseDue(kv)
		switch {
		case err != nil:
			return 0, 0, err
		case d.spent && d.expires > now:
			spent = append(spent, d)
		default:
			over = append(over, d)
		}
	}
	some, err := c.inParts(over, func(part []due) (int, error) { return c.forget(ctx, part, at.time) })
	if err != nil {
		return len(found.Kvs), some, err
	}
	buried, err := c.inParts(spent, func(part []due) (int, error) { return c.bury(ctx, part) })
	return len(found.Kvs), some + buried, err
}

// inParts does a list in as many transactions as the servers want.
func (c *cluster) inParts(list []due, do func(part []due) (int, error)) (swept int, err error) {
	for len(list) > 0 && err == nil {
		n, size := 0, 0
		for n < min(len(list), int(c.most.Load())) && (n == 0 || size+list[n].size <= sweepBytes) {
			size += list[n].size
			n++
		}
		var some int
		some, err = do(list[:n])
		if errors.Is(err, rpctypes.ErrTooManyOps) && n > 1 {
			c.most.Store(int64(n / 2))
			err = nil
			continue
		}
		swept, list = swept+some, list[n:]
	}
	return swept, err
}

// bury makes tombstones in one transaction, each over the version that was meant
// and only once: of two sweepers the second finds the entry of the index gone. A
// record that does not decode is left as it is until it expires.
func (c *cluster) bury(ctx context.Context, list []due) (buried int, err error) {
	reads := make([]etcd.Op, len(list))
	for i, d := range list {
		reads[i] = etcd.OpGet(c.recordKey(&d.digest))
	}
	held, err := c.txn(ctx, nil, reads, nil)
	if err != nil {
		return 0, err
	}
	ops, graves := make([]etcd.Op, len(list)), make([]bool, len(list))
	for i, d := range list {
		gone := etcd.OpDelete(d.key)
		then := []etcd.Op{gone, etcd.OpPut(c.dueKey(d.expires, &d.digest), versionBytes(d.version))}
		if kvs := held.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			if r, by, err := decodeRecord(d.digest, kvs[0].Value); err == nil && r.Version == d.version {
				grave := r.Tombstone()
				value, _ := encodeRecord(&grave, by)
				then = append(then, etcd.OpPut(c.recordKey(&d.digest), value))
				graves[i] = true
			}
		}
		meant := append(c.holds(c.recordKey(&d.digest), d.version), etcd.Compare(etcd.CreateRevision(d.key), ">", 0))
		ops[i] = etcd.OpTxn(meant, then, []etcd.Op{gone})
	}
	done, err := c.txn(ctx, nil, ops, nil)
	if err != nil {
		return 0, err
	}
	for i := range list {
		if graves[i] && done.Responses[i].GetResponseTxn().GetSucceeded() {
			buried++
		}
	}
	return buried, nil
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
