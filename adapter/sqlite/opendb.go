package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"

	modernc "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// OpenDB opens the file of a store for the application's own tables, with
// connections that a [Scope] can use. name is a path, or what modernc.org/sqlite
// takes, such as "file:app.db?_pragma=foreign_keys(1)". Open the store first:
// it makes the file. The names entry, record, journal and store are taken there, and
// application_id and user_version are the store's.
//
// Its transactions begin as IMMEDIATE, unless name says otherwise (_txlock), and
// wait 5 s for another writer, unless it says otherwise (_pragma=busy_timeout). What is
// committed is on the disk: synchronous is FULL, whatever name says.
//
// What sql.Conn.Raw hands out has a method Unwrap that gives the driver's
// connection.
func OpenDB(name string) (*sql.DB, error) {
	path, query, _ := strings.Cut(name, "?")
	if path == "" || strings.Contains(name, ":memory:") || strings.Contains(query, "mode=memory") {
		return nil, fmt.Errorf("sqlite: cannot open %q: the path of the store's file is wanted", name)
	}
	for _, add := range [...]struct{ unless, param string }{
		{"_txlock=", "_txlock=immediate"}, {"busy_timeout", "_pragma=busy_timeout(5000)"}, {"_error_rc=", "_error_rc=1"},
	} {
		plain, err := url.QueryUnescape(query)
		if err != nil {
			return nil, fmt.Errorf("sqlite: cannot open %q: what follows the question mark does not decode: %w", name, err)
		}
		if !strings.Contains(plain, add.unless) {
			query = strings.TrimPrefix(query+"&"+add.param, "&")
		}
	}
	connector, err := modernc.NewConnector(path + "?" + query)
	if err != nil {
		return nil, fmt.Errorf("sqlite: cannot open %q: %w", name, err)
	}
	return sqltx.OpenDB(durable{connector}, sqltx.Rules{Syntax: sqltx.SQLite, Fatal: fatal}), nil
}

// durable makes connections that commit as the store does.
type durable struct{ driver.Connector }

// Connect is part of driver.Connector.
func (d durable) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := d.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw}
	for _, pragma := range [...]string{
		"synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", fmt.Sprintf("wal_autocheckpoint = %d", checkpointPages),
	} {
		if err := c.run("PRAGMA " + pragma); err != nil {
			return nil, errors.Join(fmt.Errorf("sqlite: cannot set %s: %w", pragma, err), c.close())
		}
	}
	return raw, nil
}

// fatal tells whether err may have ended the transaction. After the others
// SQLite has undone the statement alone, if at all; a constraint that is told to
// ROLLBACK leaves no savepoint to go back to.
func fatal(err error) bool {
	var coded *modernc.Error
	if !errors.As(err, &coded) {
		return false // the driver did not get as far as SQLite
	}
	switch coded.Code() & 0xff {
	case codes.SQLITE_CONSTRAINT, codes.SQLITE_ERROR, codes.SQLITE_MISMATCH, codes.SQLITE_TOOBIG, codes.SQLITE_RANGE, codes.SQLITE_AUTH:
		return false
	}
	return true
}
