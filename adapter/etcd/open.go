package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/semelhq/semel/store/batch"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// Timeout bounds each call whose context has no deadline. Default 5 s.
	Timeout time.Duration
	// Times are the http:// or https:// addresses of the servers whose answers tell
	// the time. Default: the endpoints of the URL. Name them if etcd has
	// --listen-client-http-urls, or if a proxy passes gRPC only.
	Times []string
	// ReadOnly writes nothing, not even at the start: every swap is
	// [semel.ErrRejected], and a user who may only read will do.
	ReadOnly bool
	// Batch sets how swaps are collected into transactions. The zero value suits: more workers
	// than one make more transactions of fewer swaps.
	Batch batch.Options

	// ClockOf is a store of the same cluster that is open and stays so for longer
	// than this one: its clock is used, and opening does not wait for a second to
	// change. Default: a clock of the store's own.
	ClockOf *Store

	local func() time.Time // nil: time.Now
	dial  []grpc.DialOption
}

func (o Options) filled() Options {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	return o
}

// Open opens the store at a URL:
//
//	etcd://[user:password@]host:port[,host:port…]/prefix[?tls=true&ca=FILE&cert=FILE&key=FILE&server-name=NAME]
//
// The prefix is where its keys are; the default is /semel. ca, cert, key and
// server-name imply tls=true; without ca the system's certificates are trusted.
//
// It takes up to a second: that is how long it takes to see the servers' clocks
// tick. It fails if no server answers, if one is too old, if a majority is
// missing, if this user may not write under the prefix, if the prefix belongs to
// another program or to another release's layout, and if the members' clocks are more than a
// second apart (of three and more, only the odd one out is left aside).
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	a, err := parseAddress(url)
	if err != nil {
		return nil, err
	}
	o = o.filled()
	s := &Store{options: o, rounds: rounds{most: measureMost}, cluster: &cluster{prefix: a.prefix, timeout: o.Timeout, writer: rand.Uint64()}}
	s.cluster.most.Store(mostSwaps)
	if err := s.open(ctx, &a); err != nil {
		return nil, errors.Join(err, s.cluster.close())
	}
	if !o.ReadOnly {
		s.batch = batch.New(s.cluster, o.Batch)
	}
	tending, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.tending.Go(func() { s.tend(tending) })
	return s, nil
}

func (s *Store) open(ctx context.Context, a *address) error {
	c, o := s.cluster, &s.options
	questions := newHTTP(a.tls)
	times := o.Times
	if len(times) == 0 {
		times = a.endpoints
	}
	if err := s.probe(ctx, questions, times); err != nil {
		return err
	}
	if o.ClockOf != nil {
		c.clock = o.ClockOf.cluster.clock
	} else {
		c.clock = newClock(questions, times, o.local)
	}
	at, err := c.clock.read(ctx)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if err := c.dial(ctx, a, o); err != nil {
		return err
	}
	if err := c.inspect(ctx, &s.told); err != nil {
		return err
	}
	if !o.ReadOnly {
		return c.begin(ctx, at.time)
	}
	held, err := c.get(ctx, c.floorKey())
	if err == nil && len(held.Kvs) == 0 {
		return fmt.Errorf("etcd: there is no store under %s to read; the gateway makes it at its first start", c.prefix)
	}
	if err == nil {
		_, err = parseFloor(held.Kvs[0])
	}
	return err
}

// probe asks each server for its version: the first contact, whose errors say
// most.
func (s *Store) probe(ctx context.Context, client *http.Client, urls []string) error {
	errs, cautions := make([]error, len(urls)), make([]string, len(urls))
	old := make([]error, len(urls))
	var wg sync.WaitGroup
	for i, url := range urls {
		wg.Go(func() {
			v, err := version(ctx, client, url)
			if errs[i] = err; err == nil {
				cautions[i], old[i] = tooOld(v)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(old...); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if !slices.Contains(errs, nil) {
		return fmt.Errorf("etcd: no server answers as it should; check address and port, and tls and ca in the store's URL: %w", errors.Join(errs...))
	}
	for i := range urls {
		if errs[i] != nil {
			s.told.Cautions = append(s.told.Cautions, fmt.Sprintf("%s does not answer: %v", urls[i], errs[i]))
		} else if cautions[i] != "" && !slices.Contains(s.told.Cautions, cautions[i]) {
			s.told.Cautions = append(s.told.Cautions, cautions[i])
		}
	}
	return nil
}

// dial makes the client. It repeats nothing by itself: neither a write, nor a
// read for longer than we want.
func (c *cluster) dial(ctx context.Context, a *address, o *Options) error {
	var err error
	c.client, err = etcd.New(etcd.Config{
		Endpoints: a.endpoints, TLS: a.tls, Username: a.user, Password: a.password,
		DialTimeout: o.Timeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		MaxUnaryRetries: 1, Logger: zap.NewNop(), DialOptions: o.dial,
	})
	if err != nil {
		c.client = nil
		return c.explain("log in", err)
	}
	return nil
}

func (c *cluster) close() error {
	if c.client == nil {
		return nil
	}
	err := c.client.Close()
	if errors.Is(err, context.Canceled) {
		return nil // what Close gives when all went well
	}
	return err
}

// tend keeps the clock and the floor until ctx ends.
func (s *Store) tend(ctx context.Context) {
	for sleep(ctx, floorPace) == nil {
		one, cancel := context.WithTimeout(ctx, floorPace)
		if s.options.ClockOf == nil {
			s.cluster.clock.tend(one)
		}
		if s.batch != nil {
			// If it fails, so do the swaps, and those tell why.
			_ = s.cluster.follow(one)
		}
		cancel()
	}
}
