package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/internal/server"
)

// refuses checks that a store is not opened, for a reason that people understand.
func refuses(t *testing.T, url string, o mysql.Options, words ...string) {
	t.Helper()
	s, err := mysql.Open(t.Context(), url, o)
	if err == nil {
		s.Close()
		t.Errorf("opened; want an error with %q", words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %q; want %q in it", err, word)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error shows the password: %q", err)
	}
}

func TestOpenURL(t *testing.T) {
	for url, want := range map[string]string{
		"":                                                  "mysql://user:password@host:3306/database",
		"root:s3cret@tcp(127.0.0.1:3306)/x":                 "not with mysql://",
		"postgres://root:s3cret@127.0.0.1/x":                "postgres",
		"mysql://127.0.0.1/x":                               "names no user",
		"mysql://root:s3cret@127.0.0.1":                     "does not name one database",
		"mysql://root:s3cret@127.0.0.1/a/b":                 "does not name one database",
		"mysql://root:s3cret@/x":                            "names no host",
		"mysql://root:s3cret@127.0.0.1:port/x":              "cannot be read",
		"mysql://root:s3cret@127.0.0.1/x?tls=maybe":         "skip-verify",
		"mysql://root:s3cret@127.0.0.1/x?parseTime=true":    "unknown; there are tls and socket",
		"mysql://root:s3cret@127.0.0.1/x?tls=true&tls=true": "2 times",
		"mysql://root:s3cret@/x?socket=mysqld.sock":         "no absolute path",
		"mysql://root:s3cret@127.0.0.1/x#y":                 "mean nothing",
	} {
		t.Run(url, func(t *testing.T) { refuses(t, url, mysql.Options{}, want) })
	}
}

func TestOpenRefuses(t *testing.T) {
	m := servers.MariaDB(t)
	url := database(t, name())
	at := url[strings.Index(url, "@"):]
	admin := sqlDB(t, url)
	t.Run("a wrong password", func(t *testing.T) {
		refuses(t, "mysql://root:s3cret"+at, mysql.Options{}, "refuses the user or the password")
	})
	t.Run("a database that is not there", func(t *testing.T) {
		refuses(t, m.URL("nobody_made_it"), mysql.Options{}, "no database of this name")
	})
	t.Run("no server", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		refuses(t, "mysql://root:s3cret@"+l.Addr().String()+"/x", mysql.Options{}, "see that the server runs", "refused")
	})
	t.Run("what is no MySQL", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
				c.Close()
			}
		}()
		refuses(t, "mysql://root:s3cret@"+l.Addr().String()+"/x", mysql.Options{}, "cannot open")
	})
	t.Run("a user without rights", func(t *testing.T) {
		refuses(t, m.URLAs(server.LoginRole, server.LoginPassword, url[strings.LastIndex(url, "/")+1:]), mysql.Options{}, "lacks a right")
	})
	t.Run("an empty database, to read", func(t *testing.T) {
		refuses(t, url, mysql.Options{ReadOnly: true}, "no tables of Semel")
	})
	connect(t, url, mysql.Options{}).Close()
	t.Run("tables of a newer version", func(t *testing.T) {
		execute(t, admin, "INSERT INTO semel_schema VALUES (99)")
		defer execute(t, admin, "DELETE FROM semel_schema WHERE version=99")
		refuses(t, url, mysql.Options{}, "newer Semel", "99")
		if err := mysql.Migrate(t.Context(), url); err == nil || !strings.Contains(err.Error(), "newer Semel") {
			t.Errorf("Migrate: %v", err)
		}
	})
	t.Run("tables that somebody changed", func(t *testing.T) {
		execute(t, admin, "ALTER TABLE semel_record CHANGE due due_at BIGINT")
		defer execute(t, admin, "ALTER TABLE semel_record CHANGE due_at due BIGINT")
		refuses(t, url, mysql.Options{}, "semel migrate")
	})
	t.Run("a table that lost its row", func(t *testing.T) {
		execute(t, admin, "CREATE TABLE kept AS SELECT * FROM semel_store; DELETE FROM semel_store")
		defer execute(t, admin, "INSERT INTO semel_store SELECT * FROM kept")
		refuses(t, url, mysql.Options{}, "semel_store has lost its row")
	})
	connect(t, url, mysql.Options{}).Close()
}

func TestOpenRefusesSettings(t *testing.T) {
	for _, c := range []struct {
		settings map[string]string
		words    []string
	}{
		{map[string]string{"read_only": "ON"}, []string{"read-only", "primary"}},
		{map[string]string{"log_bin": "binlog", "binlog_format": "STATEMENT"}, []string{"binlog_format", "ROW"}},
		{map[string]string{"max_allowed_packet": "64K"}, []string{"max_allowed_packet", "1048576"}},
	} {
		_, url := private(t, c.settings)
		refuses(t, url, mysql.Options{}, c.words...)
	}
}

// TestRights: data manipulation alone suffices once the tables are there.
func TestRights(t *testing.T) {
	m, url := private(t, nil)
	admin := sqlDB(t, url)
	if err := mysql.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	login := m.URLAs(server.LoginRole, server.LoginPassword, "semel")
	execute(t, admin, "GRANT SELECT, INSERT, UPDATE ON semel.* TO '"+server.LoginRole+"'@'127.0.0.1'")
	refuses(t, login, mysql.Options{}, "lacks a right", "DELETE")
	execute(t, admin, "GRANT DELETE ON semel.* TO '"+server.LoginRole+"'@'127.0.0.1'")
	s := connect(t, login, mysql.Options{})
	defer s.Close()
	held := swap(t, s, claim("k"))

	// The server becomes read-only under way, as after a failover.
	execute(t, admin, "SET GLOBAL read_only=ON")
	_, err := s.CompareAndSwap(t.Context(), held.Version, completion(held, "receipt"))
	if err == nil || errors.Is(err, semel.ErrConflict) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a swap at a server that became read-only: %v", err)
	}
	look := connect(t, login, mysql.Options{ReadOnly: true})
	defer look.Close()
	if _, err := look.CompareAndSwap(t.Context(), held.Version, completion(held, "receipt")); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("a swap at a store that was opened to read: %v", err)
	}
	if records, err := look.List(t.Context(), semel.Filter{}); err != nil || len(records) != 1 {
		t.Errorf("a list: %d records, %v", len(records), err)
	}
	execute(t, admin, "SET GLOBAL read_only=OFF")
	swap(t, s, completion(held, "receipt"))
}

// TestMigrate: twice, by many at once, and after it was cut short.
func TestMigrate(t *testing.T) {
	url := database(t, name())
	db := sqlDB(t, url)
	for range 2 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := mysql.Migrate(context.Background(), url); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := number(t, db, "SELECT COUNT(*) FROM semel_schema") + 10*number(t, db, "SELECT COUNT(*) FROM semel_store"); n != 11 {
			t.Errorf("versions and rows of the store: %d, want 11", n)
		}
	}
	for _, cut := range []string{
		"DROP TABLE semel_schema", "DROP TABLE semel_schema, semel_store", "DELETE FROM semel_schema",
		"DROP TABLE semel_schema, semel_store, semel_journal",
	} {
		execute(t, db, cut)
		s := connect(t, url, mysql.Options{})
		swap(t, s, claim(cut))
		s.Close()
	}
}

// TestDays: the journal has partitions ahead, and lines go into the day that they
// are of.
func TestDays(t *testing.T) {
	s, url := opened(t, mysql.Options{})
	db := sqlDB(t, url)
	partitions := "SELECT COUNT(*) FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME='semel_journal'"
	if n := number(t, db, partitions); n < 8 {
		t.Errorf("the journal has %d partitions, want at least 8", n)
	}
	held := swap(t, s, claim("k"))
	if n := number(t, db, "SELECT COUNT(*) FROM semel_journal PARTITION (d"+held.WrittenAt.UTC().Format("20060102")+")"); n != 1 {
		t.Errorf("%d lines are in today's partition, want 1", n)
	}
	if err := s.DropDay(t.Context(), time.Now()); err == nil {
		t.Error("today was dropped")
	}
	swap(t, s, completion(held, "receipt")) // finds a day
}

// TestTooLong: what the server cannot take is refused, and nothing else suffers.
func TestTooLong(t *testing.T) {
	_, url := private(t, map[string]string{"max_allowed_packet": "1M"})
	s := connect(t, url, mysql.Options{})
	defer s.Close()
	long := completion(claim("long"), strings.Repeat("x", 600<<10))
	out := s.SwapMany(t.Context(), []semel.Swap{{Next: claim("a")}, {Next: long}, {Next: completion(claim("b"), strings.Repeat("x", 400<<10))}})
	if out[0].Err != nil || !errors.Is(out[1].Err, semel.ErrRejected) || out[2].Err != nil {
		t.Errorf("got %v, %v, %v; want only the long one rejected", out[0].Err, out[1].Err, out[2].Err)
	}
}

// TestClosed: a store that was closed gives errors, and closing again none.
func TestClosed(t *testing.T) {
	s, _ := opened(t, mysql.Options{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, claim("k")); err == nil || errors.Is(err, semel.ErrConflict) {
		t.Errorf("a swap of a closed store: %v", err)
	}
	if _, err := s.Get(t.Context(), claim("k").Digest); err == nil {
		t.Error("a reading of a closed store gave no error")
	}
}
