package mysql

import (
	"context"
	"database/sql/driver"
	"embed"
	"io/fs"
	"strings"
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
