// Package sim runs Semel's attempt machine against everything that can go
// wrong, in virtual time, and checks what must always hold. A seed stands for
// one small deployment: two to five processes with clocks of their own, a
// store, and dozens of clients that retry. Same seed, same events, whatever
// the machine it runs on; a failure is replayed by one line.
//
//	report, err := sim.Run(ctx, sim.Options{Seed: 1, Seeds: 1000})
//
// # What is shared with production
//
// [semel.Attempt], [semel.Decide], [semel.Admit] and [semel.Policy] are the
// code that runs in production, not a model of it. Both are free of I/O, clock
// and chance, so here as there they are told the time and the store's replies
// and say what to do next.
//
// # What is mirrored
//
// What the Guard and the Claim do with goroutines, contexts and timers is
// written again with events, in driver.go and claim.go, step by step after
// guard.go, claim.go, keeper.go and flight.go of the root: joining the flight of a
// process, the five seconds for a call, renewal timers, the handler's context
// that ends at Safe, the limit on waiting for a result to be stored, storing
// behind the caller, taking back a claim that was given up. What semelhttp
// makes of a handler's return is mirrored as well: a panic is a stored 500.
// A bug in these places of the root is not found here; a change of them has to
// be made here, too.
//
// The store is a model of what the root package says a store is: a
// linearizable map with one writing verb. That stores keep to this is tested by
// storetest.
//
// # What goes wrong
//
// [Faults] lists the kinds. Each seed draws which of them it has and how often,
// so some seeds have one fault only and some have all. At the end of every seed
// the faults stop, and what was promised for then has to come true: nothing
// pending, an answer for every request, a grant or "unknown" for every key
// whose holder died. Last, keys are asked for again after they were forgotten.
//
// # What is checked
//
// A ledger that no driver reads notes each write, start, effect and answer, and
// judges them by the invariants S1 to S5, S7, S8, S10 to S13, X1, X2, X4, X5,
// L1, L2 (as STUCK), and the counts that must be zero: LOST, SWALLOWED, DOUBLE,
// FLIP, LEAK, STUCK and SILENT. A second start breaks S5 before its second effect
// could count as DOUBLE. Checks that cannot fail prove nothing: [Mutants] lists planted bugs,
// each of which has to be found.
//
// # What is not simulated
//
// The class Transactional, whose effect commits in the database; stores that
// lose acknowledged writes, except as planted bugs; tiers, regions, journals;
// the closing of a Guard; a client that waits in a flight while its process
// runs out of memory, and other ends of the machine; the exact order in which
// the Go scheduler runs goroutines inside one process.
//
// Use it to look for errors in policy and control flow, and after each change
// of them. It is no benchmark and no test of a store. Programs have no need to
// import it; cmd/semel and tests do. It imports the root package only.
package sim
