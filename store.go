package semel

import (
	"bytes"
	"context"
	"iter"
	"time"
)

// Reading is what a store holds under one key, and when it was read.
type Reading struct {
	// Record is the zero Record where nothing is held.
	Record Record
	// Now is the store's clock at the read: whoever judges an expiry judges by it.
	Now time.Time
	// Unconfirmed tells that the authoritative store could not be asked: the record
	// is a copy, or binds this process alone until it is reconciled. Answers that
	// come from it are flagged.
	Unconfirmed bool
}

// Store is a linearizable map from key to record with one writing verb. It
// knows nothing of leases, expiry or classes: it compares versions and writes.
// The package storetest says in tests what is said here in words. A Store is
// safe for concurrent use. It does not use a call's context after the call has
// returned: its room is used again.
type Store interface {
	// Get reads what is held under the digest. Nothing held is no error.
	Get(ctx context.Context, digest Digest) (Reading, error)
	// CompareAndSwap writes next under next.Digest if the version held there is
	// old; the zero Version means "insert, if nothing is held". It gives back what
	// it wrote, with Version and WrittenAt as set by the store.
	//
	// If another version is held, the error is [ErrConflict] and the Reading is
	// what is held. If what is held cannot be decoded, the error is [ErrDamaged].
	// [ErrRejected] says that the write can never succeed and did not happen,
	// [ErrUnavailable] that it is refused for a while and did not happen. Any other
	// error means that nobody knows whether the write happened: the caller
	// repeats it with the same Nonce and recognises its own write by it.
	//
	// Nobody changes the bytes of a Result: the store may keep next.Result, and the
	// Result of a Reading may be the store's own.
	CompareAndSwap(ctx context.Context, old Version, next Record) (Reading, error)
}

// Swap is one call of CompareAndSwap, as data.
type Swap struct {
	Old  Version
	Next Record
}

// Swapped is what one Swap came to.
type Swapped struct {
	Reading Reading
	Err     error
}

// Batcher is a Store that can take many swaps in one commit. Each swap stands
// for itself, as if the swaps had come one after the other: a conflict of one
// does not undo another. An error of the commit is every swap's error.
type Batcher interface {
	SwapMany(ctx context.Context, swaps []Swap) []Swapped
}

// Sweeper is a Store that can forget what has expired by its own clock.
type Sweeper interface {
	// Sweep deletes records that are Done or Released and past their TTL, and makes
	// tombstones ([Record.Tombstone]) of those whose result is [Record.Spent]. It
	// touches no pending one (INVARIANTS X4). It tells how many it dealt with, at most
	// limit: as many as that mean that there may be more.
	Sweep(ctx context.Context, limit int) (int, error)
}

// Lister is a Store that can show its records to people.
type Lister interface {
	// List gives the records that match, ordered by digest, at most filter.Limit.
	// For the next page set filter.After to the last digest of this one.
	List(ctx context.Context, filter Filter) ([]Record, error)
}

// Filter says which records to list. The zero value of a field means "any".
type Filter struct {
	State State
	// InDoubt keeps only records that are in doubt by the store's clock.
	InDoubt bool
	// ID keeps only records whose key has this ID, in whichever scope.
	ID string
	// Scope keeps only records of this scope.
	Scope string
	// After keeps only digests greater than this one.
	After Digest
	// Limit is the longest list wanted; 0 means 100.
	Limit int
}

// Matches tells whether r passes the filter at now, a time on the store's clock.
// It is what List means, for stores that filter in Go.
func (f *Filter) Matches(r *Record, now time.Time) bool {
	return (f.State == 0 || r.State == f.State) &&
		(!f.InDoubt || r.InDoubt(now)) &&
		(f.ID == "" || r.Key.ID == f.ID) &&
		(f.Scope == "" || r.Key.Scope == f.Scope) &&
		bytes.Compare(r.Digest[:], f.After[:]) > 0
}

// Journal is a Store that writes down every transition in the same atomic step
// as the swap itself (INVARIANTS S16), and can read it back.
type Journal interface {
	// History gives the entries of one key, oldest first.
	History(ctx context.Context, digest Digest) ([]Entry, error)
}

// Days is a Journal that is kept by the day (UTC) of its lines, so that a whole day
// can be written elsewhere and dropped.
type Days interface {
	// Days gives the days that have lines, oldest first, each by its beginning. Today
	// may be among them.
	Days(ctx context.Context) ([]time.Time, error)
	// Lines gives the lines of a day; those of one key are in the order of their
	// versions. After an error there are no more. Lines that were written meanwhile
	// may be among them, or not; to a day that has been over for an hour none come.
	Lines(ctx context.Context, day time.Time) iter.Seq2[Entry, error]
	// DropDay drops all lines of a day. It refuses today, by the store's clock. A day
	// that has none is no error.
	DropDay(ctx context.Context, day time.Time) error
}

// Measurer is a Store that can tell how much it holds, at a cost that does not
// get in the way of requests.
type Measurer interface {
	Measure(ctx context.Context) (Measure, error)
}

// Measure is how much a store holds.
type Measure struct {
	// At is the store's clock.
	At time.Time
	// Records counts records, tombstones among them. Estimated tells that it is the
	// store's own estimate, since counting would read them all.
	Records   int64
	Estimated bool
	// Bytes is what the records take, with their indexes and with room that is free
	// inside; JournalBytes is what the journal takes; -1 where the store cannot tell.
	Bytes, JournalBytes int64
	// OldestPending is when the pending record was written that was written first; the
	// zero time if there is none.
	OldestPending time.Time
	// Overdue is when the record was due that has waited longest for the sweeper; the
	// zero time if nothing is due.
	Overdue time.Time
}

// Watcher is a Store that can tell when a key may have changed, so that whoever
// waits for another attempt looks at once and not at the next poll. What it
// tells is a hint: it may come for nothing, and it may not come at all.
type Watcher interface {
	// Watch gives a channel that receives when the key's record may have changed
	// since Watch was called. stop ends it and must be called; the channel is never
	// closed. Watch does not wait for the store.
	Watch(digest Digest) (changed <-chan struct{}, stop func())
}

// Describer is a Store that knows what its records survive, from the settings
// of the servers behind it, which it reads when it is opened.
type Describer interface {
	Describe() Description
}

// Description is what a store tells about itself to whoever starts it.
type Description struct {
	// Survives is the worst event after which what the store has acknowledged is
	// still there.
	Survives Survival
	// Durability says the same to people, in one sentence and with its reason.
	Durability string
	// Clock says whose clock decides expiry.
	Clock string
	// Cautions name settings that weaken the store, one sentence each, with what to
	// do about it.
	Cautions []string
	// Traits are facts about the store by which a program judges whether it suits,
	// as lifecycle.Lint does. What a store does not know of itself is not among them.
	Traits []Trait
}

// Trait is a fact that weakens a store.
type Trait string

const (
	// TraitEvicts: the server deletes records to make room, or has done so.
	TraitEvicts Trait = "evicts"
	// TraitLossyFailover: a standby that may lack what was acknowledged can take over.
	TraitLossyFailover Trait = "lossy-failover"
	// TraitReplica: what is reached is a replica, which lags behind.
	TraitReplica Trait = "replica"
	// TraitClockOff: the store's clock and this machine's are more than a minute apart.
	TraitClockOff Trait = "clock-off"
	// TraitTornPages: loss of power may leave a page half written.
	TraitTornPages Trait = "torn-pages"
	// TraitDiverges: while the store is away, each process decides by itself.
	TraitDiverges Trait = "diverges"
)

// Survival is a scale of events, each worse than the one before.
type Survival uint8

const (
	// SurvivesNothing: records end with the process, or whenever the store likes.
	SurvivesNothing Survival = iota
	// SurvivesProcess: records outlive every process of ours, not a crash of the
	// server's machine.
	SurvivesProcess
	// SurvivesCrash: records outlive kill -9 and loss of power of the machine.
	SurvivesCrash
	// SurvivesFailover: records outlive the loss of the machine that took them.
	SurvivesFailover
)

// String gives the scale's word.
func (s Survival) String() string {
	names := [...]string{"nothing", "process", "crash", "failover"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Transactor is a Store that lives in the application's own database, and can
// take a key, and finish it, in a transaction of the application's. The class
// Transactional needs one.
type Transactor interface {
	// Begin starts a transaction and does the first thing in it, in one round trip
	// where the driver can: CompareAndSwap of first, or Get of digest if first is nil.
	// The transaction goes on if the error is nil or [ErrConflict]; else there is
	// none, and nothing happened. [ErrInProgress] says that another transaction holds
	// the key and did not end in the time that the Transactor gives it, which is
	// short. ctx bounds the call, not the transaction.
	Begin(ctx context.Context, digest Digest, first *Swap) (Transaction, Reading, error)
}

// Transaction is one that a Transactor began. It is used by one goroutine.
type Transaction interface {
	// Context gives parent with the transaction in it, for the operation to take
	// from there.
	Context(parent context.Context) context.Context
	// CompareAndSwap is that of Store, in the transaction. After any error but
	// [ErrConflict] the transaction is rolled back by its user.
	CompareAndSwap(ctx context.Context, old Version, next Record) (Reading, error)
	// Commit does the last swap and commits, in one round trip where the driver can.
	// It ends the transaction, whatever the error. [ErrConflict]: another version is
	// held, and all is undone. [ErrNotDone]: all is undone, and the same would fail
	// again, as after an error that the operation did not report. [ErrUndone]: all is
	// undone. Any other error: nobody knows. The COMMIT is not cut off by ctx
	// (INVARIANTS T6).
	Commit(ctx context.Context, last Swap) (Reading, error)
	// Rollback undoes all.
	Rollback()
	// Undone tells whether err, from a statement of the operation's own, says that
	// the database has undone the transaction for another's sake, or has to. If err
	// is nil: whether a statement failed like that, and the operation kept it to
	// itself.
	Undone(err error) bool
}

// Unwrapper is a Store that stands in front of another.
type Unwrapper interface {
	Unwrap() Store
}

// As finds the first store that is a T, from s inwards along Unwrap. It is how
// an optional ability is reached: As[Lister](store).
func As[T any](s Store) (T, bool) {
	for s != nil {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(Unwrapper)
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	var none T
	return none, false
}
