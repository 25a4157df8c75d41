package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

// The floor is the version that each write of the store must exceed, compared
// by the servers within the write's own transaction. It only grows:
//
//   - Sweep raises it over what it deletes, so a key that comes again has a
//     greater version than in the life before.
//   - Opening a store begins a new epoch, and so does a store that sees the
//     cluster's revision go back: somebody put a snapshot back, and versions given
//     out since are forgotten.
//   - Every few seconds it follows the clock, so a process that was paused cannot
//     write with the time of before.
//
// A prefix without a floor was wiped: nothing can be written there until it is
// opened anew.
const (
	floorLayout = 1
	floorLength = 16 + 1
	floorTries  = 16
	floorPace   = 5 * time.Second
	floorLag    = time.Second
)

func (c *cluster) floorKey() string { return c.prefix + "floor" }

func floorValue(v semel.Version) string { return versionBytes(v) + string(rune(floorLayout)) }

// above compares in a transaction: the floor is there, and below v.
func (c *cluster) above(v semel.Version) etcd.Cmp {
	return etcd.Compare(etcd.Value(c.floorKey()), "<", versionBytes(v))
}

// atFloor compares in a transaction: the floor is v.
func (c *cluster) atFloor(v semel.Version) etcd.Cmp {
	return etcd.Compare(etcd.Value(c.floorKey()), "=", floorValue(v))
}

// known gives the floor as far as this process knows.
func (c *cluster) known() semel.Version {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// learn takes in what a transaction that failed has read. ahead is true if the
// floor is so far ahead of our clock that the clock must be wrong.
func (c *cluster) learn(kvs []*mvccpb.KeyValue, at time.Time) (ahead bool, err error) {
	if len(kvs) == 0 {
		return false, fmt.Errorf("etcd: %sfloor is gone: the prefix was wiped while stores had it open; nothing is written until they are opened anew", c.prefix)
	}
	v, err := parseFloor(kvs[0])
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.Compare(c.floor) <= 0 {
		return false, nil
	}
	c.floor = v
	return v.Counter > counterAt(at.Add(floorLag)), nil
}

func parseFloor(kv *mvccpb.KeyValue) (semel.Version, error) {
	switch {
	case len(kv.Value) != floorLength:
		return semel.Version{}, fmt.Errorf("etcd: the value of %s is not a store's; take another prefix", kv.Key)
	case kv.Value[16] != floorLayout:
		return semel.Version{}, fmt.Errorf("etcd: %s says that the prefix has the layout %d of another release of Semel; this one knows %d: use that release, or take another prefix",
			kv.Key, kv.Value[16], floorLayout)
	}
	return parseVersion(kv.Value), nil
}

// counterAt is the counter of a write at t that nothing else pushes up:
// microseconds, since nanoseconds take more bits than a JSON number has.
func counterAt(t time.Time) uint64 { return uint64(max(t.UnixMicro(), 1)) }

// version is for the next write of a key that holds old, at a time.
func (c *cluster) version(old semel.Version, at time.Time) semel.Version {
	v := c.known()
	v.Counter = max(v.Counter+1, counterAt(at))
	if v.Compare(old) <= 0 {
		v = semel.Version{Epoch: old.Epoch, Counter: old.Counter + 1}
	}
	return v
}

// begin starts a new epoch, and makes the floor where there is none yet.
func (c *cluster) begin(ctx context.Context, at time.Time) error {
	for range floorTries {
		held, err := c.get(ctx, c.floorKey())
		if err != nil {
			return err
		}
		epoch := uint64(max(at.UnixMilli(), 1))
		compare := etcd.Compare(etcd.CreateRevision(c.floorKey()), "=", 0)
		if len(held.Kvs) > 0 {
			old, err := parseFloor(held.Kvs[0])
			if err != nil {
				return err
			}
			epoch = max(epoch, old.Epoch+1)
			compare = c.atFloor(old)
		} else if err := c.unused(ctx); err != nil {
			return err
		}
		next := semel.Version{Epoch: epoch}
		done, err := c.txn(ctx, []etcd.Cmp{compare}, []etcd.Op{etcd.OpPut(c.floorKey(), floorValue(next))}, nil)
		if err != nil {
			return err
		}
		if done.Succeeded {
			c.mu.Lock()
			c.floor = next
			c.mu.Unlock()
			return nil
		}
	}
	return fmt.Errorf("etcd: %s: others kept raising the floor; try again", c.prefix)
}

// unused refuses a prefix that holds anything, but no floor.
func (c *cluster) unused(ctx context.Context) error {
	some, err := c.get(ctx, c.prefix, etcd.WithPrefix(), etcd.WithLimit(1), etcd.WithKeysOnly())
	if err != nil || len(some.Kvs) == 0 {
		return err
	}
	return fmt.Errorf("etcd: the prefix %s holds %q and %d other keys, but no floor: another program has it, or a part of a store was deleted, and its versions with it; take another prefix",
		c.prefix, some.Kvs[0].Key, some.Count-1)
}

// follow moves the floor after the clock, for a goroutine that does so now and
// then.
func (c *cluster) follow(ctx context.Context) error {
	at, err := c.clock.read(ctx)
	if err != nil {
		return err
	}
	held, err := c.get(ctx, c.floorKey())
	if err != nil {
		return err
	}
	if _, err := c.learn(held.Kvs, at.time); err != nil {
		return err
	}
	old := c.known()
	next := semel.Version{Epoch: old.Epoch, Counter: counterAt(at.time.Add(-floorLag))}
	if next.Counter < old.Counter+uint64((floorPace-floorLag).Microseconds()) {
		return nil // another did, or the clock was set back
	}
	_, err = c.txn(ctx, []etcd.Cmp{c.atFloor(old)}, []etcd.Op{etcd.OpPut(c.floorKey(), floorValue(next))}, nil)
	return err
}
