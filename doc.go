// Package semel lets a request arrive many times and take effect as its
// guarantee class says.
//
// A [Key] names one intended operation. A [Record] is all that is remembered
// of it. A [Store] is a linearizable map from key to record with one writing
// verb, compare-and-swap. [Decide] is a pure function from what is held and
// what is asked to a verdict: execute, replay, wait or refuse. A [Guard] joins
// the two and hands a [Claim] to whoever must execute. A [Policy] holds a
// route's numbers and its guarantee class. An [Event] tells what happened;
// nothing reads events to decide. A [Fingerprint] tells one payload from
// another under the same key.
//
//	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
//	…
//	answer, err := guard.Do(ctx, ask, func(ctx context.Context) (semel.Result, error) {
//		return semel.Result{Data: []byte("charged")}, charge(ctx)
//	})
//
// HTTP servers want the package semelhttp, which is built on this one. Use
// this package directly for jobs, commands and other calls that have a name.
//
// What it cannot do: an opaque function that dies halfway through has an
// outcome that nobody knows. Semel says so ([ErrInDoubt]) where others run the
// function again. Only an effect that commits together with its record
// (class Transactional) happens exactly once without help from its target.
//
// The package requires the standard library only, and may be imported by all.
package semel
