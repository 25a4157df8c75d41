package semel

import "errors"

// The errors that callers tell apart with errors.Is. Each names the caller's
// next step; semelhttp maps them to problem documents.
var (
	// ErrConflict, from a store: another version is held. Read the Reading that
	// came with it.
	ErrConflict = errors.New("semel: another version is held")
	// ErrDamaged, from a store: what is held cannot be decoded or authenticated.
	// The key is in doubt: it is neither replayed nor run (INVARIANTS S15).
	ErrDamaged = errors.New("semel: the stored record is damaged")
	// ErrRejected, from a store: this write can never succeed, and nothing was
	// written. Repeating it does not help.
	ErrRejected = errors.New("semel: the store rejects this record")
	// ErrUnavailable, from a guard: the store did not answer in time, or refuses for
	// now, so nothing was started (INVARIANTS S12). Try again later. HTTP 503. From a
	// store: this call wrote nothing, and repeating it soon does not help.
	ErrUnavailable = errors.New("semel: the store is not available")
	// ErrInDoubt: the operation started and nobody knows how it ended. Do not run
	// it again; ask again later, or look at its effect. HTTP 409.
	ErrInDoubt = errors.New("semel: the outcome is unknown")
	// ErrInProgress: another attempt is executing. Ask again later. HTTP 409.
	ErrInProgress = errors.New("semel: the operation is in progress")
	// ErrMismatch: the key was used with another payload. Use a new key for a new
	// operation. HTTP 422.
	ErrMismatch = errors.New("semel: the key was used with another payload")
	// ErrGone: the operation ran, and its result is no longer kept, or never was.
	// Do not run it again. HTTP 410.
	ErrGone = errors.New("semel: the operation ran and its result is not kept")
	// ErrExpired: the key's own time lies before the window in which keys are
	// accepted. Use a new key for a new operation. HTTP 410.
	ErrExpired = errors.New("semel: the key is older than keys are remembered")
	// ErrEarly: the key's own time lies in the future. Set the clock. HTTP 400.
	ErrEarly = errors.New("semel: the key's time lies in the future")
	// ErrOverQuota: the tenant has begun as much as it may for now, and nothing was
	// started. Try again later, with the same key. HTTP 429.
	ErrOverQuota = errors.New("semel: the quota of new keys is used up")
	// ErrSettled, from Claim.Complete: the key was settled by somebody else, whose
	// record is the answer.
	ErrSettled = errors.New("semel: the key was settled by another")
	// ErrNotDone, returned by an operation, promises that nothing happened: the key
	// is released and the next attempt runs.
	ErrNotDone = errors.New("semel: nothing was done")
	// ErrUndone, from a transaction: the database has undone it for another's sake,
	// as a deadlock's victim for example; nothing happened, and the same may succeed
	// when it is run again. From Claim.Complete: the claim is held anew, in another
	// transaction: execute again under its Context.
	ErrUndone = errors.New("semel: the transaction was undone, and is to be run again")
	// ErrClosed: the guard is closed.
	ErrClosed = errors.New("semel: the guard is closed")
)
