// Package available lets a route go on while its store cannot be reached: keys
// are then claimed in this process alone, every such answer is flagged, and what
// was done meanwhile is brought into the store when it is back.
//
//	store, err := available.New(database, available.Options{
//		Local:    memory.New(memory.Options{}), // or a SQLite file, which outlives the process
//		Conflict: func(c available.Conflict) { log.Print("ran twice: ", c.Main.Key) },
//	})
//	…
//	defer store.Close(ctx) // before database is closed
//
// Do not use it where an operation must not run twice: two processes that
// cannot reach their store both run the same key, and so does one that can no
// longer see what was finished before. That is found when the store is back,
// told once, and cannot be undone here (INVARIANTS S12, M5, M6). It suits
// telemetry and whatever else is better done twice than not at all. A guard over
// the database itself stays strict, also beside this one.
//
// A cache stands in front of this store, not behind it: then finished keys are
// replayed during an outage, and not run again.
//
// It may be imported by everyone; it imports the root only.
package available
