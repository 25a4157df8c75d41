package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcd "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel"
)

// cluster is the store without the batch in front of it.
type cluster struct {
	client  *etcd.Client
	clock   *clock
	prefix  string
	timeout time.Duration
	writer  uint64
	most    atomic.Int64 // swaps in one transaction

	mu       sync.Mutex // guards what follows
	floor    semel.Version
	id       uint64 // the cluster's
	revision int64  // the greatest seen
	restored bool   // the revision has gone back
}

// limited gives ctx a deadline if it has none, and has a member that is cut off
// from the others say so at once.
func (c *cluster) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = etcd.WithRequireLeader(ctx)
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// get reads. A read is repeated: that changes nothing.
func (c *cluster) get(ctx context.Context, key string, o ...etcd.OpOption) (*etcd.GetResponse, error) {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		before := c.seen()
		out, err := c.client.Get(ctx, key, o...)
		if err == nil {
			c.observe(before, out.Header)
			return out, nil
		}
		if pause > time.Second || !temporary(err) || sleep(ctx, pause) != nil {
			return nil, c.explain("read", err)
		}
	}
}

// txn sends a transaction once: an error may mean that it happened all the
// same. Only what a server refused before looking at it is sent again.
func (c *cluster) txn(ctx context.Context, compares []etcd.Cmp, then, otherwise []etcd.Op) (*etcd.TxnResponse, error) {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	before := c.seen()
	send := func() (*etcd.TxnResponse, error) {
		return c.client.Txn(ctx).If(compares...).Then(then...).Else(otherwise...).Commit()
	}
	out, err := send()
	if errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) {
		out, err = send() // the client has a new token by now
	}
	if err != nil {
		return nil, c.explain("write", err)
	}
	c.observe(before, out.Header)
	return out, nil
}

// temporary tells whether reading again may help.
func temporary(err error) bool {
	return status.Code(err) == codes.Unavailable || errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrNoLeader) || errors.Is(err, rpctypes.ErrLeaderChanged) || errors.Is(err, rpctypes.ErrTimeout) ||
		errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail) || errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost)
}

func (c *cluster) seen() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// observe looks at an answer to what was asked when the revision was before.
// All that we ask is linearizable, so a smaller revision is of another history.
func (c *cluster) observe(before int64, h *etcdserverpb.ResponseHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == 0 {
		c.id = h.ClusterId
	}
	if h.Revision < before || h.ClusterId != c.id {
		c.restored, c.id, c.revision = true, h.ClusterId, h.Revision
	}
	c.revision = max(c.revision, h.Revision)
}

// settle begins a new epoch if the cluster was put back to an earlier state.
func (c *cluster) settle(ctx context.Context, at time.Time) error {
	c.mu.Lock()
	restored := c.restored
	c.restored = false
	c.mu.Unlock()
	if !restored {
		return nil
	}
	err := c.begin(ctx, at)
	if err != nil {
		c.mu.Lock()
		c.restored = true
		c.mu.Unlock()
	}
	return err
}

// time gives the servers' time to write by.
func (c *cluster) time(ctx context.Context) (reading, error) {
	at, err := c.clock.read(ctx)
	if err == nil {
		err = c.settle(ctx, at.time)
	}
	if err != nil {
		return at, fmt.Errorf("etcd: nothing was written: %w", err)
	}
	return at, nil
}

// reading is what is held, at a time. Who stamped a record itself judges it to
// the nanosecond; another's stamp may be off by as much as both clocks are, and is
// judged by the earliest time that it may be, so that no lease ends too early.
func (c *cluster) reading(r semel.Record, by stamp, at reading) semel.Reading {
	now := at.time
	if r.Held() {
		if by.writer != c.writer {
			now = now.Add(-at.err - by.err)
		}
		if now.Before(r.WrittenAt) {
			now = r.WrittenAt
		}
	}
	return semel.Reading{Record: r, Now: now}
}

// Get is part of semel.Store.
func (c *cluster) Get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	at, err := c.clock.read(ctx)
	if err != nil {
		return semel.Reading{}, fmt.Errorf("etcd: cannot read: %w", err)
	}
	held, err := c.get(ctx, c.recordKey(&digest))
	if err != nil {
		return semel.Reading{}, err
	}
	if len(held.Kvs) == 0 {
		return c.reading(semel.Record{}, stamp{}, at), nil
	}
	r, by, err := decodeRecord(digest, held.Kvs[0].Value)
	if err != nil {
		return semel.Reading{}, err
	}
	return c.reading(r, by, at), nil
}
