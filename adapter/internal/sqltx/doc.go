// Package sqltx runs operations in transactions of database/sql, for the
// adapters whose databases have a driver for it: sqlite, mysql and postgres.
//
// Wrap puts a connection of ours around each of the driver's. While a
// transaction of a scope is open, it notes the first statement that failed, so
// that the transaction is not committed even if the operation did not report it,
// and refuses to let the operation end the transaction itself (INVARIANTS T3).
// Everything else goes through to the driver, prepared statements included. What
// fails in database/sql before the driver is asked is not seen here: a statement
// under a context that has ended already, or with too few parameters.
//
// Scope is the rest: what a semel.Transactor is, on top of a Dialect, which is the
// adapter's own SQL. The Dialect works on the driver's connection itself, so what
// it sends costs what the driver takes for it, and nothing is repeated behind its
// back: database/sql repeats only what is not in a transaction.
//
// Adapters alone import it.
package sqltx
