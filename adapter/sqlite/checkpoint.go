package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
)

// Moving pages from the -wal file into the database costs as much as writing
// them did. SQLite would do it inside of some commit, while everybody waits.
// Here a goroutine does most of it on a connection of its own, beside the
// commits; then, between two commits, only what was written meanwhile is left.
// The commit after that begins the -wal file anew.
//
// If the goroutine cannot keep up or fails, SQLite's own checkpoint at
// checkpointPages does it.
const (
	// checkpointDue is after how many pages, about, the goroutine starts: 32 MiB.
	checkpointDue = 8192
	// checkpointPages is when a commit does it all: 256 MiB.
	checkpointPages = 65536
)

const sqlCheckpoint = "PRAGMA wal_checkpoint(PASSIVE)"

// checkpointer is the goroutine's share of a file.
type checkpointer struct {
	debt int           // pages written since the last one, about; guarded by file.mu
	due  chan struct{} // holds one; closed by close
	done chan struct{} // closed at the goroutine's end
}

// startCheckpoints starts the goroutine. stopCheckpoints ends it.
func (f *file) startCheckpoints() error {
	c, err := f.connect(f.options.CacheBytes / 64)
	if err != nil {
		return err
	}
	all, err := c.prepare(sqlCheckpoint)
	if err != nil {
		return errors.Join(f.explain("prepare", err), c.close())
	}
	f.due, f.done = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(f.done)
		// A checkpoint that fails has moved nothing that is not in the -wal file still;
		// the next one, or a commit, meets the same fault and tells it.
		defer func() { _ = c.close() }()
		for range f.due {
			if move(all) == nil {
				f.finishCheckpoint()
			}
		}
	}()
	return nil
}

func (f *file) stopCheckpoints() {
	if f.due != nil {
		close(f.due)
		<-f.done
	}
}

// finishCheckpoint moves what is left, while nobody commits.
func (f *file) finishCheckpoint() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = move(f.rest)
}

// owe adds up what was written. It is called with f.mu held.
func (f *file) owe(pages int) {
	if f.debt += pages; f.debt < checkpointDue {
		return
	}
	select {
	case f.due <- struct{}{}:
		f.debt = 0
	default: // one is under way
	}
}

func move(checkpoint *stmt) error {
	return checkpoint.query(context.Background(), func([]driver.Value) bool { return true })
}
