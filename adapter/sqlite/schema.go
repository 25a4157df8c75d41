package sqlite

import (
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

//go:embed schema.sql
var schema string

const (
	// applicationID marks a file as ours: "SEML".
	applicationID = 0x53454d4c
	// schemaVersion is what schema.sql makes.
	schemaVersion = 1
)

// oldest is the first SQLite whose WAL cannot be corrupted by a reset that
// races with a checkpoint.
var oldest = [...]int{3, 51, 3}

// checkVersion refuses an SQLite that is known to corrupt databases in WAL mode.
func checkVersion(version string) error {
	parts := strings.Split(version, ".")
	for i, least := range oldest {
		n := -1
		if i < len(parts) {
			if got, err := strconv.Atoi(parts[i]); err == nil {
				n = got
			}
		}
		if n > least {
			return nil
		}
		if n < least {
			return fmt.Errorf("sqlite: the program was built with SQLite %s, which can corrupt a database in WAL mode; "+
				"build it with modernc.org/sqlite v1.60.1 or newer, which has at least %d.%d.%d", version, oldest[0], oldest[1], oldest[2])
		}
	}
	return nil
}

// identify tells whether the file is still empty. It refuses what is not ours.
// With mustExist an empty file is refused, too.
func (f *file) identify(c *conn, mustExist bool) (fresh bool, err error) {
	row, err := c.row("SELECT sqlite_version(), (SELECT count(*) FROM sqlite_schema), (SELECT group_concat(name, ', ') FROM sqlite_schema WHERE type = 'table')")
	if err != nil {
		return false, f.explain("open", err)
	}
	version, _ := row[0].(string)
	if err := checkVersion(version); err != nil {
		return false, err
	}
	application, err1 := c.number("PRAGMA application_id")
	user, err2 := c.number("PRAGMA user_version")
	if err := errors.Join(err1, err2); err != nil {
		return false, f.explain("open", err)
	}
	tables, _ := row[1].(int64)
	switch {
	case application == 0 && user == 0 && tables == 0 && !mustExist:
		return true, nil
	case application == 0 && user == 0 && tables == 0:
		return false, fmt.Errorf("sqlite: %s is an empty database: nothing was ever stored in it; is the path right?", f.path)
	case application != applicationID:
		return false, fmt.Errorf("sqlite: %s is a database of another application (application_id %#x, tables: %v); "+
			"it was not changed; take another path", f.path, application, row[2])
	case user > schemaVersion:
		return false, fmt.Errorf("sqlite: %s was written by a newer Semel (schema %d, this one knows %d); "+
			"it was not changed; run that newer version, or put back the backup made before the upgrade", f.path, user, schemaVersion)
	case user != schemaVersion:
		return false, fmt.Errorf("sqlite: %s has schema %d, which no version of Semel wrote; put a backup back", f.path, user)
	}
	return false, nil
}

// prepareFile makes the file ready to be written: WAL, the schema if it is
// empty, and a new epoch.
func (f *file) prepareFile() error {
	c := f.conn
	if _, err := f.identify(c, false); err != nil {
		return err
	}
	// A change of the mode is not covered by SQLite's own timeout.
	err := f.options.waitFor(func() error {
		row, err := c.row("PRAGMA journal_mode = WAL")
		if mode, _ := append(row, nil)[0].(string); err == nil && mode != "wal" {
			return fmt.Errorf("sqlite: %s: the file system gives no shared memory for WAL (journal mode stays %q); put the file on a local disk", f.path, mode)
		}
		return err
	})
	if err != nil {
		return f.explain("open", err)
	}
	if err := c.run("BEGIN IMMEDIATE"); err != nil {
		return f.explain("open", err)
	}
	err = f.begun(c)
	if err == nil {
		err = c.run("COMMIT")
	}
	if err != nil {
		_ = c.run("ROLLBACK") // which SQLite may have done by itself
		return f.explain("open", err)
	}
	return nil
}

// sqlMark puts a line of nobody's behind the last one.
const sqlMark = "INSERT INTO journal (n, digest, meta) VALUES ((SELECT ifnull(max(n), 0) FROM journal) + 1, x'', x'')"

// begun does what must happen in one transaction at each opening. Another
// process may have made the schema in the meantime.
func (f *file) begun(c *conn) error {
	fresh, err := f.identify(c, false)
	if err != nil {
		return err
	}
	if fresh {
		err := c.run(schema + fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion))
		if err != nil {
			return err
		}
	}
	// The clock makes the epoch of a restored copy greater than any that was used
	// since the copy was made; adding one keeps two openings in one millisecond apart.
	return errors.Join(
		c.run(fmt.Sprintf("UPDATE store SET epoch = max(epoch + 1, %d)", f.now().UnixMilli())),
		c.run(sqlMark),
	)
}
