package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel/store/batch"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// Prefix begins every key. Stores with different prefixes know nothing of each
	// other. Default "semel:", or what prefix= in the URL says.
	Prefix string
	// TLS is for rediss URLs. Default: TLS 1.2 or later, the system's roots, the
	// URL's host.
	TLS *tls.Config
	// Timeout bounds one call, connecting included. Default 5 s.
	Timeout time.Duration
	// Margin is how much longer than its TTL the server keeps a finished record, in
	// case another server's clock is ahead after a failover. Default 1 min.
	Margin time.Duration
	// Replicas is how many replicas must have a write before it is acknowledged, by
	// WAIT; also before a duplicate is answered. It narrows what a failover can
	// lose, and does not close it: Sentinel may promote a replica that was not among
	// them. Default 0.
	Replicas int
	// Slots is into how many parts the keys of a Cluster are divided. One part lies
	// on one server, and one call reaches one part. It cannot be changed later, and
	// is 1 without a Cluster. Default 64, at most 256.
	Slots int
	// AcceptLoss names a loss of writes, as the error has it that refuses to go on
	// after it; "any" accepts each loss, also later ones, in silence. Default: none,
	// or what accept-loss= in the URL says.
	AcceptLoss string
	// TrustFsync asserts that appendfsync is always, where the server does not let
	// this user read it (CONFIG GET). Default: not.
	TrustFsync bool
	// CheckEvery is how often the servers' settings and terms are looked at again.
	// Default 1 s.
	CheckEvery time.Duration
	// Results is how often results are looked for that cannot be replayed any more,
	// and taken away: all records are looked at, in a twentieth of the time, by one
	// process at a time. Negative: never; they then go with their keys. Default 10 min.
	Results time.Duration
	// Batch sets how swaps are collected into calls. Default: two calls under way,
	// at most 256 swaps in each.
	Batch batch.Options
}

func (o Options) filled(t *target) Options {
	o.Prefix = cmp.Or(o.Prefix, t.prefix, "semel:")
	o.AcceptLoss = cmp.Or(o.AcceptLoss, t.acceptLoss)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Margin = cmp.Or(o.Margin, time.Minute)
	o.Slots = cmp.Or(o.Slots, 64)
	if !t.cluster {
		o.Slots = 1
	}
	o.CheckEvery = cmp.Or(o.CheckEvery, time.Second)
	o.Results = cmp.Or(o.Results, 10*time.Minute)
	o.Batch.MaxBatch = cmp.Or(o.Batch.MaxBatch, 256)
	o.Batch.Workers = cmp.Or(o.Batch.Workers, 2)
	o.Batch.MaxBytes = cmp.Or(o.Batch.MaxBytes, 1<<20)
	o.Batch.Timeout = cmp.Or(o.Batch.Timeout, o.Timeout)
	return o
}

func (o *Options) check() error {
	switch {
	case strings.ContainsAny(o.Prefix, "{}"):
		return fmt.Errorf("redis: the prefix %q has a brace in it, and braces say which keys of a Cluster lie together: take another", o.Prefix)
	case o.Slots < 1 || o.Slots > 256:
		return fmt.Errorf("redis: %d slots: 1 to 256 are wanted", o.Slots)
	case o.Timeout < time.Millisecond || o.Margin < time.Millisecond || o.CheckEvery < time.Millisecond:
		return errors.New("redis: Timeout, Margin and CheckEvery are at least 1 ms")
	case o.Replicas < 0:
		return fmt.Errorf("redis: %d replicas: 0 or more are wanted", o.Replicas)
	}
	return nil
}

// client is the connections to the servers and what is known of them.
type client struct {
	name    string
	options Options
	cluster bool
	rueidis rueidis.Client
	major   int    // of the oldest server
	channel string // of news
	slots   []*slot
	facts   facts // as read when the store was opened
	hub     hub
	// refused is why nothing may be done at present; nil if all is well.
	refused atomic.Pointer[error]

	end     context.Context // ends with the store
	endNow  context.CancelFunc
	patrols sync.WaitGroup
	evicted map[string]int64 // by server process; only for the patrol
}

// Open connects to the server that the URL names, reads its settings, and
// refuses those under which records would vanish: a maxmemory-policy that
// evicts, a replica, a Cluster under a redis:// URL, a data set that has lost
// writes. Forms of the URL:
//
//	redis://user:password@host:6379/0?prefix=semel:
//	redis+sentinel://user:password@host1:26379,host2:26379/0?master=mymaster
//	redis+cluster://user:password@host1:6379,host2:6379
//
// With rediss in place of redis the connections are TLS. User and password are
// those of the servers; Sentinel's own are sentinel-user= and sentinel-password=.
//
// Open takes no longer than ctx and a few times Options.Timeout.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	o = o.filled(t)
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &client{name: t.name, options: o, cluster: t.cluster, slots: slotsOf(o.Prefix, o.Slots)}
	c.channel = fmt.Sprintf("%snews:%d", o.Prefix, t.client.SelectDB)
	if c.rueidis, err = connect(ctx, t, &o); err != nil {
		return nil, c.explain("connect", err)
	}
	c.end, c.endNow = context.WithCancel(context.Background())
	if err := c.begin(ctx); err != nil {
		c.close()
		return nil, err
	}
	return &Store{client: c, batch: batch.New(c, o.Batch), rounds: map[string]*rounds{}}, nil
}

// connect opens the connections. Nothing below may send again what was sent:
// the guard does that, and knows its own write by the nonce.
func connect(ctx context.Context, t *target, o *Options) (rueidis.Client, error) {
	option := t.client
	if o.TLS != nil {
		if option.TLSConfig == nil {
			return nil, errors.New("Options.TLS is set and the URL is not rediss")
		}
		option.TLSConfig = o.TLS
	}
	option.Sentinel.TLSConfig = option.TLSConfig
	option.Dialer = net.Dialer{Timeout: o.Timeout, KeepAlive: time.Second}
	option.Sentinel.Dialer = option.Dialer
	option.Sentinel.TopologyRefreshInterval = 2 * time.Second
	option.ClusterOption.ShardsRefreshInterval = 2 * time.Second
	option.ConnWriteTimeout = o.Timeout
	option.ClientName = "semel"
	option.ForceSingleClient = !t.cluster && !t.sentinel
	option.DisableRetry = true
	option.DisableCache = true
	if !t.sentinel {
		option.Sentinel = rueidis.SentinelOption{}
	}
	type made struct {
		client rueidis.Client
		err    error
	}
	done := make(chan made, 1)
	go func() {
		client, err := rueidis.NewClient(option)
		done <- made{client, err}
	}()
	select {
	case m := <-done:
		return m.client, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.err == nil {
				m.client.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// begin reads the settings, begins a term in every slot, and starts the patrol.
func (c *client) begin(ctx context.Context) error {
	all, err := c.ask(ctx)
	if err != nil {
		return err
	}
	if err := c.accept(all); err != nil {
		return err
	}
	c.facts, c.evicted = worst(all), evictions(all)
	for _, s := range c.slots {
		within, cancel := context.WithTimeout(ctx, c.options.Timeout)
		_, err := c.current(within, s, nil)
		cancel()
		if err != nil {
			return err
		}
	}
	c.patrols.Go(c.patrol)
	if c.options.Results > 0 {
		// Who may not look, says so now: a round has nobody to tell it to.
		if err := c.rueidis.Do(ctx, c.rueidis.B().Getrange().Key(c.slots[0].meta+"turn").Start(0).End(0).Build()).Error(); err != nil {
			return c.explain("look for results to take away", err)
		}
		c.patrols.Go(c.undertake)
	}
	return nil
}

// close ends what runs behind the store, and the connections.
func (c *client) close() {
	c.endNow()
	c.hub.close()
	c.patrols.Wait()
	c.rueidis.Close()
}
