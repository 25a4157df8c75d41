// Package lifecycle bounds what is kept: for how long a result and a key stay, who
// forgets them, where the journal goes, and how much there will be.
//
// A [Tier] gives the two retentions of a policy. A [Sweeper] forgets what is over:
// it calls the store's Sweep in small batches, writes the days of the journal that
// are old enough to an [Archive], drops them, and measures [Growth]. It never
// touches a pending record. Any number of processes may run one over the same
// store; one of them works. Leave it away where the store's records end by
// themselves, or where somebody else calls Sweep.
//
// It may be imported by programs, by the gateway, by the command line and by
// adapters. It imports the root package and the standard library.
package lifecycle
