// Package etcd is the store for several places that must agree: records and
// their journal in an etcd cluster, where a claim is granted by a majority of
// the members or by nobody.
//
//	store, err := etcd.Open(ctx, "etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379/payments", etcd.Options{})
//	…
//	defer store.Close()
//	guard, err := semel.NewGuard(store, semel.Options{})
//
// A swap is one transaction, and concurrent swaps share one (package batch is
// inside; do not add another). There are no locks and no leases of etcd's: the
// transaction compares the version that the record holds. Every read is
// linearizable.
//
// Do not use it for much data: etcd keeps its keys in memory, its database has a
// quota of 2 GiB by default, and a record has 1.5 MiB at most. Where one database
// serves anyway, take that.
//
// README.md tells how it swaps, whose clock it uses, what it costs and what it
// cannot do. Programs that compose a gateway import this package; libraries
// take a semel.Store.
package etcd
