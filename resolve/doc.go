// Package resolve finds out what became of operations whose outcome nobody
// knows, and settles them.
//
// A Completer looks for keys that are in doubt, asks the resolver of their policy
// (see semel.Policy.Resolve), and settles them as done or as not done; the next
// retry then replays the answer, or executes. It goes on asking, less and less
// often, while a resolver does not know. It is for the class AtMostOnce: in the
// others nothing stays in doubt. Without a resolver that can tell, leave it away,
// and let people decide (semel resolve).
//
// Any number of processes may run one over the same store. One at a time asks
// for a key; how often it was asked, and when, is kept in the store, so the
// processes together ask no more often than one.
//
// It may be imported by programs, by the gateway and by tests. It imports the
// root package and the standard library.
package resolve
