package sqlite

import (
	"errors"
	"fmt"

	modernc "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/semelhq/semel"
)

// explain says in an error's words what SQLite's code means for this file, and
// what to do. It gives nil for nil. A database whose pages contradict each other
// is semel.ErrDamaged: what it holds is in doubt, and nothing in it is absent.
func (f *file) explain(verb string, err error) error { return explain(f.path, verb, err) }

func explain(path, verb string, err error) error {
	var coded *modernc.Error
	if !errors.As(err, &coded) {
		return err
	}
	fail := func(advice string) error { return fmt.Errorf("sqlite: %s: cannot %s: %s: %w", path, verb, advice, err) }
	switch coded.Code() & 0xff {
	case codes.SQLITE_FULL:
		return fail("the disk or the quota is full; what is stored is safe; make room, and swaps go on by themselves")
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return fail("another process holds the write lock for longer than Options.BusyTimeout; find it with `fuser`, or raise the timeout")
	case codes.SQLITE_READONLY, codes.SQLITE_PERM:
		return fail("this user may not write the file, its -wal and -shm files, or its directory; give it the right to, or open it ReadOnly")
	case codes.SQLITE_CANTOPEN:
		return fail("the file, or its -wal and -shm files beside it, cannot be opened; the directory must exist and be writable for this user")
	case codes.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", semel.ErrDamaged, fail("this is no SQLite database, or its start was overwritten; take another path, or put a backup back"))
	case codes.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %w", semel.ErrDamaged, fail("the database is corrupt; keep a copy of it, then restore a backup or try the sqlite3 shell's .recover"))
	case codes.SQLITE_IOERR:
		return fail("the operating system reports an error of the disk; see its log, and do not trust the disk until it is explained")
	}
	return fail("SQLite reports an error")
}

// damaged is the error for one key whose row does not decode.
func damaged(path string, digest semel.Digest, why error) error {
	return fmt.Errorf("%w: %s, digest %v: %w", semel.ErrDamaged, path, digest, why)
}

// isConstraint tells whether a row could not be written because its key is
// taken.
func isConstraint(err error) bool {
	var coded *modernc.Error
	return errors.As(err, &coded) && coded.Code()&0xff == codes.SQLITE_CONSTRAINT
}

func isBusy(err error) bool {
	var coded *modernc.Error
	return errors.As(err, &coded) && (coded.Code()&0xff == codes.SQLITE_BUSY || coded.Code()&0xff == codes.SQLITE_LOCKED)
}
