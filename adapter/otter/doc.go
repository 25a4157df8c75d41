// Package otter is the cache in the process' own memory for store/tiered: a
// bound in bytes, an end for each record, and what was put is there at once.
//
//	memory, err := otter.New(otter.Options{MaxBytes: 64 << 20})
//	…
//	defer memory.Close()
//	store, err := tiered.New(database, tiered.Options{Caches: []tiered.Cache{memory}})
//
// It copies nothing: a record is immutable, and so are the bytes of its result.
// Which records stay when room is short is decided by how often and how recently
// they were asked for.
//
// Do not use it as a store: what it drops would run again. README.md tells what
// it costs. Programs that compose a gateway import it; libraries take a
// tiered.Cache.
package otter
