package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
)

// CacheOptions are a cache's settings. The zero value is usable.
type CacheOptions struct {
	// Prefix begins every key. Default "semel-cache:", or what prefix= in the URL
	// says.
	Prefix string
	// TLS is for rediss URLs, as in Options.
	TLS *tls.Config
	// Timeout bounds one Get and one Put: whoever waits for a server that hangs
	// could have asked the durable store meanwhile. Default 50 ms.
	Timeout time.Duration
	// MaxBytes is the longest result that is kept; a record with a longer one is
	// not put. Default 1 MiB.
	MaxBytes int
}

// Cache keeps copies of finished records in Redis or Valkey, for the store
// tiered. It grants nothing and promises nothing: the server may evict, lose and
// falsify what it holds. What does not decode, or has another checksum, is a
// miss. It is safe for concurrent use.
type Cache struct {
	rueidis rueidis.Client
	name    string
	options CacheOptions
}

// OpenCache connects to the server that the URL names; its forms are those of
// Open. The server's settings do not matter: one that evicts is what a cache
// wants, with a maxmemory-policy of allkeys-lru or volatile-ttl.
func OpenCache(ctx context.Context, url string, o CacheOptions) (*Cache, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	if t.acceptLoss != "" {
		return nil, fmt.Errorf("redis %s: a cache has nothing to lose: drop accept-loss= from the URL", t.name)
	}
	o.Prefix = cmp.Or(o.Prefix, t.prefix, "semel-cache:")
	o.Timeout = cmp.Or(o.Timeout, 50*time.Millisecond)
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<20)
	c := &Cache{name: t.name, options: o}
	// To connect may take longer than to ask.
	c.rueidis, err = connect(ctx, t, &Options{TLS: o.TLS, Timeout: 5 * time.Second})
	if err == nil {
		err = c.ping(ctx)
		if err != nil {
			c.rueidis.Close()
		}
	}
	if err != nil {
		return nil, explain(t.name, "connect", err)
	}
	return c, nil
}

func (c *Cache) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// A key, so that a Cluster is asked as well, and a right to read is missed now.
	err := c.rueidis.Do(ctx, c.rueidis.B().Get().Key(c.options.Prefix).Build()).Error()
	if rueidis.IsRedisNil(err) {
		return nil
	}
	return err
}

// Get gives the record under digest, and false if there is none. An error is a
// miss with a reason.
func (c *Cache) Get(ctx context.Context, digest semel.Digest) (semel.Record, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	value, err := c.rueidis.Do(ctx, c.rueidis.B().Get().Key(c.options.Prefix+string(digest[:])).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return semel.Record{}, false, nil
	}
	if err != nil {
		return semel.Record{}, false, explain(c.name, "read the cache", err)
	}
	r, err := decodeCopy(digest, value)
	if err != nil || r.State != semel.Done {
		return semel.Record{}, false, err
	}
	return r, true, nil
}

// Put keeps record under its digest for at most ttl. What is not Done, or too
// long, is not kept, and that is no error.
func (c *Cache) Put(ctx context.Context, record semel.Record, ttl time.Duration) error {
	keep := ttl.Milliseconds() // rounded down: at most ttl
	if record.State != semel.Done || len(record.Result) > c.options.MaxBytes || keep <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	value := rueidis.BinaryString(appendCopy(make([]byte, 0, 256+len(record.Result)), &record))
	cmd := c.rueidis.B().Set().Key(c.options.Prefix + string(record.Digest[:])).Value(value).PxMilliseconds(keep).Build()
	return explain(c.name, "write the cache", c.rueidis.Do(ctx, cmd).Error())
}

// Close closes the connections.
func (c *Cache) Close() error {
	c.rueidis.Close()
	return nil
}
