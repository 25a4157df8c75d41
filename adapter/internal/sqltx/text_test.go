package sqltx

import (
	"strings"
	"testing"
)

func TestControl(t *testing.T) {
	mysqlEnds := func(w []string) bool { return strings.EqualFold(w[0], "ALTER") }
	for _, c := range []struct {
		syntax Syntax
		text   string
		verb   verb
		name   string
	}{
		{SQLite, "SELECT 1", plain, ""},
		{SQLite, "", plain, ""},
		{SQLite, " -- COMMIT\n SELECT 1", plain, ""},
		{SQLite, "commit", ends, "commit"},
		{SQLite, ";;/* x */ COMMIT", ends, "COMMIT"},
		{SQLite, "END TRANSACTION", ends, "END TRANSACTION"},
		{SQLite, "INSERT INTO t VALUES ('a; COMMIT'); SELECT \"; COMMIT\"", plain, ""},
		{SQLite, "INSERT INTO t VALUES ('it''s'); COMMIT", ends, "COMMIT"},
		{SQLite, `INSERT INTO t VALUES ('\'); COMMIT; --'`, ends, "COMMIT"},
		{MySQL, `INSERT INTO t VALUES ('\'); COMMIT; -- '`, plain, ""},
		{MySQL, "SELECT 1--1; COMMIT", ends, "COMMIT"},
		{MySQL, "SELECT 1 # ; COMMIT", plain, ""},
		{MySQL, "/*!40000 COMMIT */", ends, "COMMIT"},
		{MySQL, "/*M! COMMIT */", ends, "COMMIT"},
		{MySQL, "alter table t ADD x int", ends, "alter table"},
		{SQLite, "ALTER TABLE t ADD x int", plain, ""},
		{SQLite, "SELECT [; COMMIT]", plain, ""},
		{PostgreSQL, "SELECT $1; COMMIT", ends, "COMMIT"},
		{PostgreSQL, "SELECT $$; COMMIT$$, $a$; COMMIT $$ $a$", plain, ""},
		{PostgreSQL, "SELECT $1, $2; ROLLBACK", ends, "ROLLBACK"},
		{PostgreSQL, "/* /* */ ; COMMIT */ SELECT 1", plain, ""},
		{SQLite, "/* /* */ ; COMMIT -- */ SELECT 1", ends, "COMMIT"},
		{PostgreSQL, `SELECT E'\'; COMMIT'`, plain, ""},
		{PostgreSQL, `SELECT '\'; COMMIT`, ends, "COMMIT"},
		{PostgreSQL, "PREPARE TRANSACTION 'x'", ends, "PREPARE TRANSACTION"},
		{PostgreSQL, "PREPARE p AS SELECT 1", plain, ""},
		{SQLite, "SELECT CASE WHEN 1 THEN 2 END", plain, ""},
		{SQLite, "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END", plain, ""},
		{SQLite, "SAVEPOINT a", savepoint, "a"},
		{SQLite, "ROLLBACK TO a", rollbackTo, "a"},
		{SQLite, `rollback transaction to savepoint "A b"`, rollbackTo, "A b"},
		{MySQL, "ROLLBACK WORK TO `a`", rollbackTo, "a"},
		{SQLite, "RELEASE SAVEPOINT a", release, "a"},
		{SQLite, "ROLLBACK", ends, "ROLLBACK"},
		{SQLite, "SELECT 'open", plain, ""},
		{SQLite, "SELECT 1 /* open", plain, ""},
	} {
		r := Rules{Syntax: c.syntax, Ends: func([]string) bool { return false }}
		if c.syntax == MySQL {
			r.Ends = mysqlEnds
		}
		if got := r.control(c.text); got.verb != c.verb || got.name != c.name {
			t.Errorf("%d %q: %+v, want verb %d, name %q", c.syntax, c.text, got, c.verb, c.name)
		}
	}
}

// FuzzControl looks for texts on which the reading does not end or fails.
func FuzzControl(f *testing.F) {
	for _, s := range []string{"/*!1 COMMIT", "$a$", "$", "E'\\", "[", "'", "--", "/* /*", "SAVEPOINT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for syntax := SQLite; syntax <= PostgreSQL; syntax++ {
			r := Rules{Syntax: syntax, Ends: func([]string) bool { return false }}
			if with := r.control("COMMIT;" + s); with.verb != ends {
				t.Errorf("a COMMIT before %q is not seen", s)
			}
			r.control(s)
		}
	})
}
