// Package scopetest says in tests what a transaction scope is: a
// semel.Transactor, and what an adapter puts around it, on a real database. Its
// cases carry the numbers of INVARIANTS, T1 to T8, and each runs twice: with the
// claim taken first, and optimistic. An adapter's whole test is Options and one
// call for each isolation level:
//
//	func TestScope(t *testing.T) {
//		scopetest.Run(t, scopetest.Options{
//			New: func(t testing.TB, at scopetest.Place, s scopetest.Settings) *scopetest.Bench { … },
//		})
//	}
//
// What a Bench leaves nil is skipped with a reason. The answers of HTTP handlers,
// kill -9 of processes and servers, and what goes over the wire are for the
// adapter's own tests.
//
// It may be imported by tests only. It imports the root package and the standard
// library.
package scopetest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// Options tell Run about the scope under test.
type Options struct {
	// New opens a scope as a process of its own would, and fails the test if it
	// cannot. The first at a place finds no keys and no effects there; one that is
	// opened later at the same place sees what the others have committed. What it opens
	// is closed by t's Cleanup.
	New func(t testing.TB, at Place, s Settings) *Bench
	// OneWriter says that the database lets one transaction write at a time, whatever
	// it writes: cases in which two are under way at once are skipped.
	OneWriter bool
}

// Place is where the scopes of one case have their database. Each case gets a
// new one.
type Place struct {
	// Dir is a directory that was empty when the case began, and is removed after it.
	Dir string
	// Name is 20 lower-case letters and digits, beginning with a letter, that no
	// other Place has: a name for a schema or a database.
	Name string
}

// Settings are those with which a scope is to be opened.
type Settings struct {
	// Policy is for the scope. Its class is Transactional.
	Policy semel.Policy
	// Conns is how many connections the application's pool has. Default 8.
	Conns int
	// LockWait bounds how long a claim waits for another's transaction; 0 means the
	// adapter's default.
	LockWait time.Duration
}

// Operation is what runs in a transaction; its context has it in it.
type Operation = func(ctx context.Context) (semel.Result, error)

// Bench is one scope, and what its database can do for the test.
type Bench struct {
	// Guard is the scope's.
	Guard *semel.Guard
	// Policy is the scope's, filled in.
	Policy semel.Policy
	// Do is the scope's. fn's context is the one that the scope gave it.
	Do func(ctx context.Context, key semel.Key, fingerprint semel.Fingerprint, fn Operation) (semel.Answer, error)
	// Effect writes one effect of this name, in the transaction that is in ctx: a row
	// of a table in which the name is not unique. It gives the driver's error.
	Effect func(ctx context.Context, name string) error
	// Count tells how many effects of this name are committed, seen from outside of
	// all transactions.
	Count func(name string) int
	// Fail has a statement fail in the transaction that is in ctx, and gives the
	// driver's error.
	Fail func(ctx context.Context) error
	// Ends are the ways in which an operation can try to end the transaction that is
	// in ctx by itself: by the driver's methods and as text of SQL. They have to be
	// refused.
	Ends map[string]func(ctx context.Context) error
	// Undo has the database undo the transaction that is in ctx for another's sake,
	// or say that it has to, and gives the driver's error. Default: the database
	// never does.
	Undo func(ctx context.Context) error
	// Own begins a transaction of the caller's own, for Guard.Within. Default: not tested.
	Own func(t testing.TB) *Own
	// Elsewhere is Own in another database than the store's. Default: not tested.
	Elsewhere func(t testing.TB) *Own
	// Lose breaks the connection of the next transaction that commits. Default: not tested.
	Lose func(when Loss)
}

// Own is a transaction of the caller's own.
type Own struct {
	// Store is the scope's store, bound to the transaction.
	Store semel.Store
	// Effect, Fail, Commit and Rollback are the transaction's.
	Effect   func(name string) error
	Fail     func() error
	Commit   func() error
	Rollback func() error
}

// Loss is when a connection breaks.
type Loss uint8

const (
	// BeforeCommit: the COMMIT does not reach the server.
	BeforeCommit Loss = iota + 1
	// AfterCommit: the server carries the COMMIT out, and its answer is lost.
	AfterCommit
)

// check is one case of the suite.
type check struct {
	name string
	run  func(e *env)
}

// checks is the suite.
func checks() []check {
	var all []check
	for _, part := range [...][]check{atomicChecks(), failureChecks(), duplicateChecks(), retryChecks(), commitChecks(), poolChecks(), withinChecks()} {
		all = append(all, part...)
	}
	return all
}

// Run tests the scopes that o makes. Every case is a subtest, named
// variant/case, so that -run finds it.
func Run(t *testing.T, o Options) {
	t.Helper()
	for _, variant := range [...]string{"claim", "optimistic"} {
		t.Run(variant, func(t *testing.T) {
			for _, c := range checks() {
				t.Run(c.name, func(t *testing.T) {
					c.run(&env{T: t, options: &o, optimistic: variant == "optimistic", at: newPlace(t)})
				})
			}
		})
	}
}

func newPlace(t *testing.T) Place {
	return Place{Dir: t.TempDir(), Name: "s" + strings.ToLower(rand.Text())[:19]}
}
