// Package postgres is the store for several machines that share a PostgreSQL
// server, 14 or newer, directly or through a pooler.
//
//	store, err := postgres.Open(ctx, "postgres://semel@db/app", postgres.Options{})
//	…
//	defer store.Close()
//	guard, err := semel.NewGuard(store, semel.Options{})
//
// A swap is one statement in one round trip, with its line of the journal;
// swaps that come together share a commit (package batch is inside; do not add
// another). The server's clock decides expiry. What CompareAndSwap has answered
// is on the server's disk, and on its standby's if commits wait for one.
//
// Do not use it on one machine for the sake of having a database: package sqlite
// is faster there and needs no server.
//
// README.md tells how it swaps, what it costs, which settings it needs and what
// it cannot do. Programs that compose a gateway import this package; libraries
// take a semel.Store.
package postgres
