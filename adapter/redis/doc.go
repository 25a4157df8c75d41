// Package redis is a store in Redis 6.2 or later, or Valkey: one server, a
// Sentinel group or a Cluster. It is also the cache in front of a durable store
// (see OpenCache).
//
//	store, err := redis.Open(ctx, "redis://127.0.0.1:6379", redis.Options{})
//	…
//	defer store.Close()
//	guard, err := semel.NewGuard(store, semel.Options{})
//
// As an arbiter Redis is weaker than a database: it acknowledges before its
// replicas have a write, and often before its disk has. Open reads the server's
// settings, refuses those under which records vanish, and Describe tells what
// the rest survives. A loss that can be proved is refused, not passed over. Do
// not use it as an arbiter where a lost claim costs money; put OpenCache in front
// of a database there.
//
// README.md tells how it swaps, whose clock it uses, what it costs and what it
// cannot do. Programs that compose a gateway import this package; libraries
// take a semel.Store.
package redis
