package mysql

import (
	"context"
	"database/sql/driver"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/semelhq/semel"
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
		return e.makeDays(ctx, s, true)
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

// oneDay is how long a day is, in UTC.
const oneDay = 24 * time.Hour

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(oneDay) }

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
		_ = e.with(ctx, func(s *session) error { return e.makeDays(ctx, s, false) })
	}
}

// calendar is the journal's partitions, in order, and the time. A line is in that
// of its day; where days were dropped or never made, in the next that is there.
type calendar struct {
	days  []partition
	stray bool // whether rest has lines
	now   time.Time
}

type partition struct {
	name string
	day  time.Time
}

// last is the end of the last day.
func (c *calendar) last() time.Time {
	if len(c.days) == 0 {
		return time.Time{}
	}
	return c.days[len(c.days)-1].day.Add(oneDay)
}

// of gives the name of the partition in which a day's lines are, whether it has
// only those.
func (c *calendar) of(day time.Time) (name string, alone bool) {
	for _, p := range c.days {
		if p.day.Equal(day) {
			return p.name, true
		}
	}
	return rest, false
}

const rest = "rest"

// calendar reads the partitions.
func (e *engine) calendar(ctx context.Context, s *session) (c calendar, err error) {
	final := ""
	err = s.each(ctx, "SELECT "+e.now()+";SELECT PARTITION_NAME, PARTITION_DESCRIPTION FROM information_schema.PARTITIONS"+
		" WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME='semel_journal' AND PARTITION_NAME IS NOT NULL ORDER BY PARTITION_ORDINAL_POSITION;"+
		"SELECT 1 FROM semel_journal PARTITION (rest) LIMIT 1",
		func(set int, row []driver.Value) {
			switch set {
			case 0:
				c.now = instant(row[0])
			case 1:
				final = text(row[0])
				if micros, err := strconv.ParseInt(text(row[1]), 10, 64); err == nil {
					c.days = append(c.days, partition{final, time.UnixMicro(micros).UTC().Add(-oneDay)})
				}
			case 2:
				c.stray = true
			}
		})
	if err == nil && final != rest {
		err = refused("the table semel_journal has not the partitions that it was made with, the last named rest; swaps go on, days are not made")
	}
	return c, err
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

// strays gives the days that have lines in rest, oldest first. It reads all of it.
func strays(ctx context.Context, s *session) (found []time.Time, err error) {
	err = s.each(ctx, "SELECT DISTINCT written DIV "+strconv.FormatInt(oneDay.Microseconds(), 10)+" FROM semel_journal PARTITION (rest) ORDER BY 1",
		func(_ int, row []driver.Value) {
			found = append(found, time.UnixMicro(signed(row[0])*oneDay.Microseconds()).UTC())
		})
	return found, err
}

// makeDays makes the journal's days up to daysAhead from now. Unless it may take
// its time, it leaves a last partition alone that has rows, since they would be
// copied while swaps wait; else it makes days for those, too.
func (e *engine) makeDays(ctx context.Context, s *session, slow bool) error {
	c, err := e.calendar(ctx, s)
	if err != nil {
		return err
	}
	today := dayOf(c.now)
	if c.last().After(today.AddDate(0, 0, daysLeft)) {
		return nil
	}
	if c.stray && !slow {
		return fmt.Errorf("the last partition has rows already")
	}
	return alone(ctx, s, "semel days", func() error {
		again, err := e.calendar(ctx, s)
		if err != nil || len(again.days) != len(c.days) {
			return err // another has made them
		}
		var made []time.Time
		if c.stray {
			if made, err = strays(ctx, s); err != nil {
				return err
			}
			made = slices.DeleteFunc(made, func(d time.Time) bool { return !d.Before(today) })
		}
		for i := range daysAhead {
			made = append(made, today.AddDate(0, 0, i))
		}
		t := (&script{}).add("ALTER TABLE semel_journal REORGANIZE PARTITION rest INTO (")
		for _, d := range made {
			if !d.Before(c.last()) {
				t.add("PARTITION d" + d.Format("20060102") + " VALUES LESS THAN (").integer(d.Add(oneDay).UnixMicro()).add("),")
			}
		}
		return reshape(ctx, s, string(t.add("PARTITION rest VALUES LESS THAN MAXVALUE)").b))
	})
}

// How partitions are made and dropped: whoever wants the journal alone has to wait
// for the transactions that have written to it, and all who come later wait behind.
// So on MariaDB it waits for less than anybody notices, rests, and tries again. On
// MySQL the shortest wait is a second, and there it is tried once.
const (
	aloneFor   = "0.03" // seconds
	aloneTries = 12
	aloneRest  = 250 * time.Millisecond
)

// reshape changes the journal's partitions. semel.ErrUnavailable says that the
// same may succeed later. After an error the session is not to be used again.
func reshape(ctx context.Context, s *session, statement string) error {
	take, give, tries := "SET SESSION lock_wait_timeout=1", "SET SESSION lock_wait_timeout=DEFAULT", 1
	if s.facts.mariadb() {
		// Only the wait for the lock is cut short, not what is done under it.
		take = "SET SESSION max_statement_time=" + aloneFor + ";LOCK TABLES semel_journal WRITE;SET SESSION max_statement_time=0"
		give, tries = "UNLOCK TABLES;SET SESSION max_statement_time=DEFAULT", aloneTries
	}
	for try := 1; ; try++ {
		err := s.do(ctx, take)
		if err == nil {
			err = s.do(ctx, statement)
		}
		switch n := code(err); {
		case err == nil:
			return s.do(ctx, give)
		case n != codeTimeout && n != codeLockWait:
			return err
		case try == tries:
			return fmt.Errorf("%w: mysql: a transaction that stays open has used the journal, and requests shall not wait behind this; try again later: %w", semel.ErrUnavailable, err)
		}
		select {
		case <-time.After(aloneRest):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
