// Package tiered puts caches in front of a durable store, so that replaying a
// finished operation costs the durable store nothing and goes on while it is
// down.
//
//	store, err := tiered.New(database, tiered.Options{
//		Caches: []tiered.Cache{processMemory, sharedRedis}, // nearest first
//	})
//	…
//	defer store.Close() // before database is closed
//
// The durable store alone grants. A cache holds finished records only, each of
// which the durable store has acknowledged or returned, and none longer than its
// answer may be replayed. What is absent from a cache says nothing. So a cache
// that is empty, slow, down or damaged changes how long an answer takes, never the
// answer (INVARIANTS C1-C6). Who can write into a shared cache can forge answers:
// protect it as you protect the database.
//
// Do not use it in front of a store that is in process memory already. Do not
// put a cache behind it: whatever is behind it is the truth.
//
// It may be imported by everyone; it imports the root only.
package tiered
