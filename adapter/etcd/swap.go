package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

const (
	// mostSwaps is how many swaps fit into one transaction: etcd allows 128
	// operations (--max-txn-ops), and counts those of the largest swap on top.
	mostSwaps = 120
	// mostBytes is the size of the results in one transaction above which no more
	// swaps are added: etcd allows 1.5 MiB (--max-request-bytes).
	mostBytes = 512 << 10
)

// plan is one swap as a transaction would do it.
type plan struct {
	old      semel.Version
	next     semel.Record
	compares []etcd.Cmp
	then     []etcd.Op
	read     etcd.Op
}

// plan fills in version and time. The compares leave out the floor.
func (c *cluster) plan(w *semel.Swap, at reading) plan {
	p := plan{old: w.Old, next: w.Next}
	p.next.Version, p.next.WrittenAt = c.version(w.Old, at.time), at.time
	key := c.recordKey(&p.next.Digest)
	value, entry := encodeRecord(&p.next, stamp{c.writer, at.err})
	p.compares, p.read = c.holds(key, w.Old), etcd.OpGet(key)
	line := c.journalDay(dayOf(at.time), p.next.Digest[:]) + versionBytes(p.next.Version)
	p.then = []etcd.Op{etcd.OpPut(key, value), etcd.OpPut(line, entry)}
	if p.next.State != semel.Pending {
		p.then = append(p.then, etcd.OpPut(c.due(&p.next)))
	}
	return p
}

// holds compares in a transaction: the key holds this version. A record's value
// begins with it, and values are compared byte by byte.
func (c *cluster) holds(key string, v semel.Version) []etcd.Cmp {
	if v.IsZero() {
		return []etcd.Cmp{etcd.Compare(etcd.CreateRevision(key), "=", 0)}
	}
	out := []etcd.Cmp{etcd.Compare(etcd.Value(key), ">", versionBytes(v))}
	switch {
	case v.Counter < math.MaxUint64:
		v.Counter++
	case v.Epoch < math.MaxUint64:
		v = semel.Version{Epoch: v.Epoch + 1}
	default:
		return out
	}
	return append(out, etcd.Compare(etcd.Value(key), "<", versionBytes(v)))
}

// CompareAndSwap is one transaction. It is repeated only if it surely did not
// happen, because the floor had risen.
func (c *cluster) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	w := semel.Swap{Old: old, Next: next}
	for range floorTries {
		at, err := c.time(ctx)
		if err != nil {
			return semel.Reading{}, err
		}
		p := c.plan(&w, at)
		out, err := c.txn(ctx, append(p.compares, c.above(p.next.Version)), p.then, []etcd.Op{p.read, etcd.OpGet(c.floorKey())})
		if err != nil {
			return semel.Reading{}, err
		}
		if out.Succeeded {
			return c.reading(p.next, stamp{writer: c.writer}, at), nil
		}
		r, err := c.refused(&p, out.Responses[0].GetResponseRange().GetKvs(), at)
		if err != nil {
			return r, err
		}
		if err := c.rise(ctx, out.Responses[1].GetResponseRange().GetKvs(), at.time); err != nil {
			return semel.Reading{}, err
		}
	}
	return semel.Reading{}, errRising
}

var errRising = errors.New("etcd: nothing was written: the floor rose faster than we could follow; is a server's clock being set?")

// refused is the answer to a swap that did not happen. The error is nil if what
// is held is what the swap goes over: then the floor was the reason.
func (c *cluster) refused(p *plan, held []*mvccpb.KeyValue, at reading) (semel.Reading, error) {
	if len(held) == 0 {
		if p.old.IsZero() {
			return semel.Reading{}, nil
		}
		return c.reading(semel.Record{}, stamp{}, at), semel.ErrConflict
	}
	if len(held[0].Value) > 16 && parseVersion(held[0].Value) == p.old {
		return semel.Reading{}, nil
	}
	r, by, err := decodeRecord(p.next.Digest, held[0].Value)
	if err != nil {
		return semel.Reading{}, err
	}
	return c.reading(r, by, at), semel.ErrConflict
}

// rise learns the floor, and asks the servers for the time if it is ahead of our
// clock: we may have been paused.
func (c *cluster) rise(ctx context.Context, kvs []*mvccpb.KeyValue, at time.Time) error {
	ahead, err := c.learn(kvs, at)
	if err == nil && ahead {
		err = c.clock.narrow(ctx, true)
	}
	return err
}

// SwapMany is part of semel.Batcher. As many swaps as etcd allows go into one
// transaction, each as a transaction within it.
func (c *cluster) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	todo := make([]int, len(swaps))
	for i := range todo {
		todo[i] = i
	}
	for len(todo) > 0 {
		now, later := c.choose(swaps, todo)
		err := c.swapSome(ctx, swaps, now, out)
		if err != nil {
			for _, i := range later {
				out[i].Err = err
			}
			return out
		}
		todo = answerKnown(swaps, now, later, out)
	}
	return out
}

// choose takes the swaps for the next transaction: each key once.
func (c *cluster) choose(swaps []semel.Swap, todo []int) (now, later []int) {
	size, most := 0, int(c.most.Load())
	taken := make(map[semel.Digest]bool, min(len(todo), most))
	for n, i := range todo {
		size += len(swaps[i].Next.Result)
		if len(now) == most || len(now) > 0 && size > mostBytes {
			return now, append(later, todo[n:]...)
		}
		if d := swaps[i].Next.Digest; taken[d] {
			size -= len(swaps[i].Next.Result)
			later = append(later, i)
		} else {
			taken[d] = true
			now = append(now, i)
		}
	}
	return now, later
}

// answerKnown answers the swaps of keys that were just written or read, if they
// go over another version: they conflict with that. It gives the rest.
func answerKnown(swaps []semel.Swap, now, later []int, out []semel.Swapped) (rest []int) {
	if len(later) == 0 {
		return nil
	}
	held := make(map[semel.Digest]int, len(now))
	for _, i := range now {
		held[swaps[i].Next.Digest] = i
	}
	for _, i := range later {
		j, ok := held[swaps[i].Next.Digest]
		known := ok && (out[j].Err == nil || errors.Is(out[j].Err, semel.ErrConflict))
		if known && out[j].Reading.Record.Version != swaps[i].Old {
			out[i] = semel.Swapped{Reading: out[j].Reading, Err: semel.ErrConflict}
			continue
		}
		delete(held, swaps[i].Next.Digest) // this one may change what the next one meets
		rest = append(rest, i)
	}
	return rest
}

// swapSome does the swaps named by now, of different keys, in one transaction.
// Its error is that of the commit, and then also theirs.
func (c *cluster) swapSome(ctx context.Context, swaps []semel.Swap, now []int, out []semel.Swapped) error {
	if len(now) == 1 {
		w := &out[now[0]]
		w.Reading, w.Err = c.CompareAndSwap(ctx, swaps[now[0]].Old, swaps[now[0]].Next)
		return unclear(w.Err)
	}
	err := c.swapTogether(ctx, swaps, now, out)
	tooMany := errors.Is(err, rpctypes.ErrTooManyOps)
	if tooMany {
		c.most.Store(int64(max(len(now)/2, 1)))
	}
	if tooMany || errors.Is(err, semel.ErrRejected) {
		half := len(now) / 2
		err = c.swapSome(ctx, swaps, now[:half], out)
		if err == nil {
			return c.swapSome(ctx, swaps, now[half:], out)
		}
		now = now[half:]
	}
	if err != nil {
		for _, i := range now {
			out[i].Err = err
		}
	}
	return err
}

// unclear gives err if it leaves open what was written.
func unclear(err error) error {
	for _, clear := range [...]error{semel.ErrConflict, semel.ErrRejected, semel.ErrDamaged} {
		if errors.Is(err, clear) {
			return nil
		}
	}
	return err
}

func (c *cluster) swapTogether(ctx context.Context, swaps []semel.Swap, now []int, out []semel.Swapped) error {
	for range floorTries {
		at, err := c.time(ctx)
		if err != nil {
			return err
		}
		plans := make([]plan, len(now))
		ops := make([]etcd.Op, len(now))
		lowest := semel.Version{Epoch: math.MaxUint64}
		for n, i := range now {
			p := c.plan(&swaps[i], at)
			plans[n], ops[n] = p, etcd.OpTxn(p.compares, p.then, []etcd.Op{p.read})
			if p.next.Version.Compare(lowest) < 0 {
				lowest = p.next.Version
			}
		}
		done, err := c.txn(ctx, []etcd.Cmp{c.above(lowest)}, ops, []etcd.Op{etcd.OpGet(c.floorKey())})
		switch {
		case err != nil:
			return err
		case done.Succeeded:
			return c.told(plans, done.Responses, at, now, out)
		}
		if err := c.rise(ctx, done.Responses[0].GetResponseRange().GetKvs(), at.time); err != nil {
			return err
		}
	}
	return errRising
}

// told hands out the answers of a transaction.
func (c *cluster) told(plans []plan, answers []*etcdserverpb.ResponseOp, at reading, now []int, out []semel.Swapped) error {
	for n, i := range now {
		p, answer := &plans[n], answers[n].GetResponseTxn()
		if answer.GetSucceeded() {
			out[i].Reading, out[i].Err = c.reading(p.next, stamp{writer: c.writer}, at), nil
			continue
		}
		out[i].Reading, out[i].Err = c.refused(p, answer.GetResponses()[0].GetResponseRange().GetKvs(), at)
		if out[i].Err == nil {
			return fmt.Errorf("etcd: the servers refused to write over the version %v of %v, and hold it", p.old, p.next.Digest)
		}
	}
	return nil
}
