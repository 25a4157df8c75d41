// Package storetest says in tests what a semel.Store is. An adapter's whole
// test is a Maker and one call:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Maker{
//			Has: storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Durable,
//			Open: func(t testing.TB, at storetest.Place) semel.Store {
//				s, err := mystore.Open(filepath.Join(at.Dir, "semel.db"), mystore.Options{Now: at.Now})
//				if err != nil {
//					t.Fatal(err)
//				}
//				return s
//			},
//		})
//	}
//
// Each case is a subtest with a store of its own that holds nothing. What a
// store declares in Has is tested, what it does not declare is skipped with a
// reason, and a declaration that the store does not bear out fails.
//
// The package also has the faults that tests of other packages put in front of
// a store: see Faulty, LoseAnswers and LoseRequests. It is not a simulator: its
// concurrent cases look for races with real goroutines, and give no proof.
//
// It may be imported by tests only. It imports the root package and the
// standard library.
package storetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// Ability is what a store can do beyond Get and CompareAndSwap. Abilities are
// combined with |.
type Ability uint8

const (
	// Batches: the store is a semel.Batcher.
	Batches Ability = 1 << iota
	// Sweeps: the store is a semel.Sweeper.
	Sweeps
	// Lists: the store is a semel.Lister.
	Lists
	// Journals: the store is a semel.Journal.
	Journals
	// Durable: closing a store and opening it again at the same Place loses nothing.
	Durable
	// Shared: several stores can be open at the same Place at once and see each
	// other's writes, as processes that share a database do.
	Shared
)

// String gives the names of the abilities, joined by a plus sign.
func (a Ability) String() string {
	var names []string
	for i, name := range [...]string{"Batches", "Sweeps", "Lists", "Journals", "Durable", "Shared"} {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// Place is where a case has its store. Each case gets a new one; a case that
// reopens a store, or opens a second one on the same data, passes it again.
type Place struct {
	// Dir is a directory that was empty when the case began, and is removed after it.
	Dir string
	// Name is 20 lower-case letters and digits, beginning with a letter, that no
	// other Place has: a name for a schema or a prefix for keys.
	Name string
	// Now is the clock that the store has to use, unless Maker.RealTime is set. It
	// stands still until the case moves it. It is not the process' time.
	Now func() time.Time
}

// Maker tells Run how to make the store under test.
type Maker struct {
	// Open opens the store at a place, and fails the test if it cannot. The first
	// store at a place must hold nothing.
	Open func(t testing.TB, at Place) semel.Store
	// Close ends a store so that its place can be opened again, and is called for
	// every store that was opened. Default: the Close method of the first store
	// along Unwrap that has one.
	Close func(t testing.TB, s semel.Store)
	// Has is what the store can do.
	Has Ability
	// RealTime says that the store's clock cannot be set, as a database server's
	// cannot: Place.Now is then not used. Cases that have to see a lease or a
	// retention end use Short and wait for it; those that need to hit an instant
	// are skipped.
	RealTime bool
	// Short is a TTL that the store can tell from zero, for RealTime. Default 30 ms.
	Short time.Duration
	// Forget makes a store that is no Sweeper drop a record that is finished and
	// past its TTL, as its housekeeping would. Without it such stores skip the cases
	// that need a forgotten record.
	Forget func(t testing.TB, s semel.Store, digest semel.Digest)
	// Seed begins the random operations. Default: a new one each time. A failure
	// prints the one that it came from.
	Seed uint64
}

// check is one case of the suite.
type check struct {
	name  string
	needs Ability
	run   func(e *env)
}

// group is the cases of one subject.
type group struct {
	name   string
	checks []check
}

// groups is the suite.
func groups() []group {
	return []group{
		{"version", versionChecks()},
		{"lost", lostChecks()},
		{"get", getChecks()},
		{"insert", insertChecks()},
		{"swap", swapChecks()},
		{"fields", fieldChecks()},
		{"digest", digestChecks()},
		{"clock", clockChecks()},
		{"cancel", cancelChecks()},
		{"race", raceChecks()},
		{"batch", batchChecks()},
		{"sweep", sweepChecks()},
		{"tombstone", tombstoneChecks()},
		{"days", daysChecks()},
		{"measure", measureChecks()},
		{"list", listChecks()},
		{"journal", journalChecks()},
		{"reopen", reopenChecks()},
		{"shared", sharedChecks()},
		{"guard", guardChecks()},
		{"random", randomChecks()},
	}
}

// Run tests the store that m makes. Every case is a subtest of its own, named
// subject/case, so that -run finds it.
func Run(t *testing.T, m Maker) {
	t.Helper()
	t.Run("abilities", func(t *testing.T) { abilities(newEnv(t, &m)) })
	for _, g := range groups() {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.checks {
				t.Run(c.name, func(t *testing.T) { runCheck(t, &m, c) })
			}
		})
	}
}

// runCheck runs one case, or skips it with a reason.
func runCheck(t testing.TB, m *Maker, c check) {
	t.Helper()
	if missing := c.needs &^ m.Has; missing != 0 {
		t.Skipf("left out: Maker.Has does not declare %v", missing)
	}
	c.run(newEnv(t, m))
}

// abilities compares what is declared with what the store is.
func abilities(e *env) {
	_, batches := semel.As[semel.Batcher](e.store)
	_, sweeps := semel.As[semel.Sweeper](e.store)
	_, lists := semel.As[semel.Lister](e.store)
	_, journals := semel.As[semel.Journal](e.store)
	for i, is := range [...]bool{batches, sweeps, lists, journals} {
		a := Ability(1 << i)
		if declared := e.maker.Has&a != 0; declared != is {
			e.Errorf("Maker.Has declares %v: %t; the store, or one along Unwrap, has the methods: %t", a, declared, is)
		}
	}
	if s, ok := semel.As[semel.Store](e.store); !ok || s != e.store {
		e.Errorf("As[Store] gave %T, %t; want the store itself", s, ok)
	}
	s := e.store
	for range 16 {
		u, ok := s.(semel.Unwrapper)
		if !ok {
			return
		}
		if s = u.Unwrap(); s == nil {
			e.Fatal("Unwrap gave nil: a store that stands in front of nothing must not have the method")
		}
	}
	e.Error("Unwrap does not come to an end within 16 stores")
}

// newPlace makes a place for one case.
func newPlace(t testing.TB, now func() time.Time) Place {
	var raw [9]byte
	if _, err := io.ReadFull(rand.Reader, raw[:]); err != nil {
		t.Fatal(err)
	}
	return Place{Dir: t.TempDir(), Name: "st" + hex.EncodeToString(raw[:]), Now: now}
}

// open opens a store at the place of the case and closes it when the case ends.
func (e *env) open() semel.Store {
	s := e.maker.Open(e.TB, e.place)
	if s == nil {
		e.Fatal("Maker.Open gave no store")
	}
	closed := false
	end := func() {
		if !closed {
			closed = true
			e.maker.end(e.TB, s)
		}
	}
	e.closers = append(e.closers, end)
	e.Cleanup(end)
	return s
}

// reopen closes all stores of the case and opens one at the same place.
func (e *env) reopen() {
	for _, end := range e.closers {
		end()
	}
	e.closers = nil
	e.store = e.open()
}

func (m *Maker) end(t testing.TB, s semel.Store) {
	if m.Close != nil {
		m.Close(t, s)
		return
	}
	if c, ok := semel.As[interface{ Close() error }](s); ok {
		if err := c.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	} else if c, ok := semel.As[interface{ Close(context.Context) error }](s); ok {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	}
}

// short is a TTL that a case can wait for.
func (m *Maker) short() time.Duration {
	switch {
	case !m.RealTime:
		return time.Minute
	case m.Short > 0:
		return m.Short
	}
	return 30 * time.Millisecond
}

// describe says how a record differs from what is wanted, "" if it does not.
func describe(got, want semel.Record) string {
	var out strings.Builder
	differ := func(field string, same bool, got, want any) {
		if !same {
			fmt.Fprintf(&out, "\n\t%s: got %.80q, want %.80q", field, fmt.Sprint(got), fmt.Sprint(want))
		}
	}
	differ("Digest", got.Digest == want.Digest, got.Digest, want.Digest)
	differ("Fingerprint", got.Fingerprint == want.Fingerprint, got.Fingerprint, want.Fingerprint)
	differ("State", got.State == want.State, got.State, want.State)
	differ("Class", got.Class == want.Class, got.Class, want.Class)
	differ("Version", got.Version == want.Version, got.Version, want.Version)
	differ("Nonce", got.Nonce == want.Nonce, got.Nonce, want.Nonce)
	differ("Attempt", got.Attempt == want.Attempt, got.Attempt, want.Attempt)
	differ("Code", got.Code == want.Code, got.Code, want.Code)
	differ("Result", string(got.Result) == string(want.Result), sum(got.Result), sum(want.Result))
	differ("WrittenAt", got.WrittenAt.Equal(want.WrittenAt), got.WrittenAt.UnixNano(), want.WrittenAt.UnixNano())
	differ("TTL", got.TTL == want.TTL, int64(got.TTL), int64(want.TTL))
	differ("Replay", got.Replay == want.Replay, int64(got.Replay), int64(want.Replay))
	differ("Key.Scope", got.Key.Scope == want.Key.Scope, got.Key.Scope, want.Key.Scope)
	differ("Key.ID", got.Key.ID == want.Key.ID, got.Key.ID, want.Key.ID)
	differ("Owner", got.Owner == want.Owner, got.Owner, want.Owner)
	return out.String()
}

// sum is a result as a failure prints it.
func sum(result []byte) string {
	return fmt.Sprintf("%d bytes %.40x", len(result), result)
}
