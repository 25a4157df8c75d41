// Package sqlite is the durable store for one machine: records and their
// journal in one SQLite file, without cgo.
//
//	store, err := sqlite.Open("semel.db", sqlite.Options{})
//	…
//	defer store.Close()
//	guard, err := semel.NewGuard(store, semel.Options{})
//
// What CompareAndSwap has answered is on the disk: WAL with synchronous FULL, and
// concurrent swaps share a commit (package batch is inside; do not add another).
// Each swap writes its line of the journal in the same transaction. Several
// processes on one machine may have the file open at once.
//
// Do not use it for several machines: a network file system breaks SQLite's
// locks. Take a database server there.
//
// README.md tells how it swaps, whose clock it uses, what it costs and what it
// cannot do. Programs that compose a gateway import this package; libraries
// take a semel.Store.
package sqlite
