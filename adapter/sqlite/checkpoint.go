package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
)

// Moving pages from the -wal file into the database costs as much as writing
// them did. SQLite would do it inside of some commit, while everybody waits.
// Here a goroutine does most of it on a connection of its own, beside the
// commits: once for all, and again for what was written meanwhile. Then, between
// two commits, only a little is left. The commit after that begins the -wal file
// anew.
//
// If the goroutine cannot keep up or fails, SQLite's own checkpoint at
// checkpointPages does it.
const (
	// checkpointLook is after how many swaps, or pages of results, the goroutine
	// looks how long the -wal file is.
	checkpointLook = 4096
	// checkpointDue is how many pages in the -wal file are moved: 64 MiB. Pages that
	// are written often are then moved once and not sixteen times, as they would be
	// at SQLite's default.
	checkpointDue = 16384
	// checkpointPages is when a commit does it all: 256 MiB.
	checkpointPages = 65536
)

const (
	sqlWALSize    = "PRAGMA wal_checkpoint(NOOP)"
	sqlCheckpoint = "PRAGMA wal_checkpoint(PASSIVE)"
)

// checkpointer is the goroutine's share of a file. The goroutine also keeps the
// filter of known keys.
type checkpointer struct {
	debt int           // written since it last looked; guarded by file.mu
	due  chan struct{} // holds one; closed by close
	quit func()        // ends what it is at, if that can be ended
	done chan struct{} // closed at the goroutine's end
}

// startCheckpoints starts the goroutine. stopCheckpoints ends it.
func (f *file) startCheckpoints() error {
	c, err := f.connect(f.options.CacheBytes / 64)
	if err != nil {
		return err
	}
	size, err := c.prepare(sqlWALSize)
	all, err2 := c.prepare(sqlCheckpoint)
	if err := errors.Join(err, err2); err != nil {
		return errors.Join(f.explain("prepare", err), c.close())
	}
	f.due, f.done = make(chan struct{}, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	f.quit = cancel
	go func() {
		defer close(f.done)
		// A checkpoint that fails has moved nothing that is not in the -wal file still;
		// the next one, or a commit, meets the same fault and tells it.
		defer func() { _ = c.close() }()
		f.learn(ctx, c)
		for range f.due {
			if pages, err := move(size); err == nil && pages >= checkpointDue {
				_, _ = move(all)
				_, _ = move(all)
				f.finishCheckpoint()
			}
			f.learn(ctx, c)
		}
	}()
	return nil
}

func (f *file) stopCheckpoints() {
	if f.due != nil {
		close(f.due)
		f.quit()
		<-f.done
	}
}

// finishCheckpoint moves what is left, while nobody commits.
func (f *file) finishCheckpoint() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		_, _ = move(f.rest)
	}
}

// owe adds up what was written. It is called with f.mu held.
func (f *file) owe(pages int) {
	if f.debt += pages; f.debt < checkpointLook {
		return
	}
	select {
	case f.due <- struct{}{}:
		f.debt = 0
	default: // one is under way
	}
}

// move does a checkpoint, and tells how many pages the -wal file has.
func move(checkpoint *stmt) (pages int64, err error) {
	err = checkpoint.query(context.Background(), func(row []driver.Value) bool {
		pages, _ = row[1].(int64)
		return true
	})
	return pages, err
}
