// Package mysql is a store in MySQL 8 or MariaDB: records and their journal in
// a database that several machines share.
//
//	store, err := mysql.Open(ctx, "mysql://user:password@host:3306/database", mysql.Options{})
//	…
//	defer store.Close()
//	guard, err := semel.NewGuard(store, semel.Options{})
//
// What CompareAndSwap has answered is committed by the server; how much that
// survives is the server's setting, which Open reads and Describe tells. Concurrent
// swaps share commits (package batch is inside; do not add another). Each swap
// writes its line of the journal in the same transaction.
//
// Tested with MariaDB 10.11. It keeps to what MySQL 8 has as well, but MySQL was
// not there to test with. Do not use it with Galera where a class counts on one
// order of commits, see Options.AllowGalera.
//
// README.md tells how it swaps, whose clock it uses, what it costs and what it
// cannot do. Programs that compose a gateway import this package; libraries
// take a semel.Store.
package mysql
