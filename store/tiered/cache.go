package tiered

import (
	"context"
	"time"

	"github.com/semelhq/semel"
)

// Cache keeps copies of finished records. It may lose any of them at any time,
// be slow and fail; it must not give a record that it was not given. One that
// other processes or a network have a part in checks what it gives, for example
// by [semel.ParseEntry] and Restore: an error is a miss.
//
// It is safe for concurrent use and does not use a call's context after the
// call has returned.
type Cache interface {
	// Get gives the record under digest, and false if there is none. Nobody changes
	// the bytes of its Result.
	Get(ctx context.Context, digest semel.Digest) (semel.Record, bool, error)
	// Put keeps record under its digest, in place of what was there, for at most ttl,
	// which is greater than zero. The cache may keep record.Result as it is.
	Put(ctx context.Context, record semel.Record, ttl time.Duration) error
}

// Prompt is a Cache in the process' own memory, which never waits for anything.
// It is called on the request's goroutine and without a time limit, which saves a
// change of goroutines; and a record is in it before the answer leaves.
type Prompt interface {
	Cache
	// Prompt does nothing: to have it is the promise.
	Prompt()
}
