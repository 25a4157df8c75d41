package mysql

import (
	"context"
	"database/sql/driver"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed migrations/*.sql
var files embed.FS

// newest is the version of the last file in migrations.
const newest = 1

// Migrations gives the schema as files of SQL in the form of the migrator goose,
// one for each version, for those who run their own.
func Migrations() fs.FS {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // the directory is embedded
	}
	return sub
}

// Migrate makes the tables of the store in the database at url, or brings them up
// to date, and makes the days of the journal. It needs the rights to CREATE,
// ALTER and DROP tables. It may be called again, by several processes at once, and
// after it was cut short. It returns when it is done or ctx ends.
func Migrate(ctx context.Context, url string) error {
	a, err := parseURL(url)
	if err != nil {
		return err
	}
	e, err := connect(a, Options{Connections: 1}.filled())
	if err != nil {
		return err
	}
	defer func() { _ = e.pool.Close() }() // nothing is under way
	return a.explain("migrate", e.with(ctx, func(s *session) error {
		if err := s.facts.check(Options{AllowGalera: true}); err != nil {
			return err
		}
		if err := migrate(ctx, s); err != nil {
			return err
		}
		return makeDays(ctx, s, true)
	}))
}

// schemaVersion is the version of the tables, 0 if there are none.
func schemaVersion(ctx context.Context, s *session) (version uint64, err error) {
	err = s.each(ctx, "SELECT MAX(version) FROM semel_schema", func(_ int, row []driver.Value) { version = unsigned(row[0]) })
	if code(err) == codeNoTable {
		return 0, nil
	}
	return version, err
}

// checkSchema refuses tables of another version.
func checkSchema(version uint64) error {
	switch {
	case version == 0:
		return refused("the database has no tables of Semel; is it the right one? `semel migrate` makes them")
	case version < newest:
		return refusedf("the tables have version %d, and %d is needed; run `semel migrate`", version, newest)
	case version > newest:
		return refusedf("the tables were made by a newer Semel (version %d, this one knows %d); nothing was changed; run that newer version", version, newest)
	}
	return nil
}

// migrate runs the files that were not run yet, alone.
func migrate(ctx context.Context, s *session) error {
	return alone(ctx, s, "semel migrate", func() error {
		version, err := schemaVersion(ctx, s)
		if err != nil {
			return err
		}
		if version > newest {
			return checkSchema(version)
		}
		names, err := fs.Glob(Migrations(), "*.sql") // in order
		if err != nil {
			return err
		}
		for _, name := range names[min(int(version), len(names)):] {
			text, err := fs.ReadFile(Migrations(), name)
			if err != nil {
				return err
			}
			for _, statement := range up(string(text)) {
				if err := s.do(ctx, statement); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// up gives the statements of a file that lead to its version. None of them has
// a semicolon at the end of a line but its own.
func up(text string) []string {
	_, text, _ = strings.Cut(text, "-- +goose Up")
	text, _, _ = strings.Cut(text, "-- +goose Down")
	var out []string
	for statement := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(statement) != "" {
			out = append(out, statement)
		}
	}
	return out
}

// alone runs fn while nobody else runs one under this name for the database.
func alone(ctx context.Context, s *session, name string, fn func() error) error {
	// The name of a lock is the server's, and has 64 characters at most.
	lock := "CONCAT(LEFT(SHA1(DATABASE()),20),'" + name + "')"
	got := false
	err := s.each(ctx, "SELECT GET_LOCK("+lock+",30)", func(_ int, row []driver.Value) { got = unsigned(row[0]) == 1 })
	switch {
	case err != nil:
		return err
	case !got:
		return refusedf("another process has held the lock %q for 30 s; see that it is not stuck, and try again", name)
	}
	if err := fn(); err != nil {
		_ = s.Close() // which lets go of the lock
		return err
	}
	return s.do(ctx, "DO RELEASE_LOCK("+lock+")")
}

// The journal has a partition for each day, named d20261121, and one at the end,
// named rest, for what finds no day. Days are made ahead; to make one, rest is
// divided, which is quick only while it is empty.
const (
	daysAhead = 7 // made
	daysLeft  = 4 // or more: none are made
)

// days is when they were last looked after.
type days struct {
	mu   sync.Mutex
	next time.Time
}

// look makes days, if it is time to, once in six hours. What goes wrong is for
// the next look, or for Open: the journal goes on in its last partition.
func (d *days) look(ctx context.Context, e *engine) {
	d.mu.Lock()
	due := time.Now().After(d.next)
	if due {
		d.next = time.Now().Add(6 * time.Hour)
	}
	d.mu.Unlock()
	if due {
		_ = e.with(ctx, func(s *session) error { return makeDays(ctx, s, false) })
	}
}

// day is a partition of the journal.
type day struct {
	name string
	end  time.Time // zero for rest
	rows bool      // whether rest has any
}

// readDays gives the partitions in order, and the server's time.
func readDays(ctx context.Context, s *session) (all []day, now time.Time, err error) {
	err = s.each(ctx, "SELECT "+sqlNow+";SELECT PARTITION_NAME, PARTITION_DESCRIPTION FROM information_schema.PARTITIONS"+
		" WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME='semel_journal' AND PARTITION_NAME IS NOT NULL ORDER BY PARTITION_ORDINAL_POSITION;"+
		"SELECT 1 FROM semel_journal PARTITION (rest) LIMIT 1",
		func(set int, row []driver.Value) {
			switch set {
			case 0:
				now = instant(row[0])
			case 1:
				d := day{name: text(row[0])}
				if micros, err := strconv.ParseInt(text(row[1]), 10, 64); err == nil {
					d.end = time.UnixMicro(micros).UTC()
				}
				all = append(all, d)
			case 2:
				all[len(all)-1].rows = true
			}
		})
	if err == nil && (len(all) == 0 || all[len(all)-1].name != "rest") {
		err = refused("the table semel_journal has not the partitions that it was made with, the last named rest; swaps go on, days are not made")
	}
	return all, now, err
}

// text reads a column of characters.
func text(v driver.Value) string {
	switch b := v.(type) {
	case []byte:
		return string(b)
	case string:
		return b
	}
	return ""
}

// makeDays makes the journal's days up to daysAhead from now. Unless it may take
// its time, it leaves a last partition alone that has rows, since they would be
// copied while swaps wait.
func makeDays(ctx context.Context, s *session, slow bool) error {
	all, now, err := readDays(ctx, s)
	if err != nil {
		return err
	}
	var last time.Time
	if len(all) > 1 {
		last = all[len(all)-2].end
	}
	today := now.UTC().Truncate(24 * time.Hour)
	if last.After(today.AddDate(0, 0, daysLeft)) {
		return nil
	}
	if all[len(all)-1].rows && !slow {
		return fmt.Errorf("the last partition has rows already")
	}
	return alone(ctx, s, "semel days", func() error {
		again, _, err := readDays(ctx, s)
		if err != nil || len(again) != len(all) {
			return err // another has made them
		}
		t := (&script{}).add("SET SESSION lock_wait_timeout=2;ALTER TABLE semel_journal REORGANIZE PARTITION rest INTO (")
		for end := today.AddDate(0, 0, 1); !end.After(today.AddDate(0, 0, daysAhead)); end = end.AddDate(0, 0, 1) {
			if end.After(last) {
				t.add("PARTITION d" + end.AddDate(0, 0, -1).Format("20060102") + " VALUES LESS THAN (").integer(end.UnixMicro()).add("),")
			}
		}
		return s.do(ctx, string(t.add("PARTITION rest VALUES LESS THAN MAXVALUE)").b))
	})
}

// DropDays takes those days out of the journal that ended before a time, each at
// once however long it is, and tells how many. It needs the right to DROP. The
// records are not touched; the history of keys before that time is gone.
func (s *Store) DropDays(ctx context.Context, before time.Time) (int, error) {
	e, dropped := s.engine, 0
	err := e.with(ctx, func(c *session) error {
		all, _, err := readDays(ctx, c)
		if err != nil {
			return err
		}
		for _, d := range all {
			if d.end.IsZero() || d.end.After(before) {
				break
			}
			if err := c.do(ctx, "ALTER TABLE semel_journal DROP PARTITION `"+d.name+"`"); err != nil {
				return err
			}
			dropped++
		}
		return nil
	})
	return dropped, e.address.explain("drop days of the journal", err)
}
