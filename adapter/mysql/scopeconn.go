package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel/adapter/internal/sqltx"
)

// OpenDB gives a pool of connections to the database at url, for the application
// and for its scopes. The URL is as for [Open]. Columns of dates are read as
// time.Time, in UTC; for other settings of the driver take [OpenConfig]. It
// connects to nothing yet.
//
// The connections are the driver's own, with two differences. In a scope's
// transaction they note statements that fail, and refuse what would end it. And a
// text that may have several statements goes out as a prepared one, so that the
// server takes no more than one, as it does with the driver's own defaults.
func OpenDB(url string) (*sql.DB, error) {
	a, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	a.config.ParseTime = true
	return OpenConfig(a.config)
}

// OpenConfig is [OpenDB] with the driver's own settings. config is copied; its
// MultiStatements is set, since a scope sends several statements in one packet, and
// its MaxAllowedPacket raised.
func OpenConfig(config *client.Config) (*sql.DB, error) {
	if config == nil {
		return nil, refused("OpenConfig needs a configuration of the driver; client.NewConfig gives one")
	}
	config = config.Clone()
	config.MultiStatements = true
	if config.MaxAllowedPacket > 0 { // the server's limit is the one that counts
		config.MaxAllowedPacket = max(config.MaxAllowedPacket, 1<<30)
	}
	c, err := client.NewConnector(config)
	if err != nil {
		return nil, refusedf("%s: %v", config.Addr, err)
	}
	return sqltx.OpenDB(&appConnector{c}, sqltx.Rules{Syntax: sqltx.MySQL, Ends: commits, Fatal: fatal}), nil
}

// fatal tells whether after err no savepoint helps.
func fatal(err error) bool {
	switch code(err) {
	case codeDeadlock, codeChanged, 0:
		return true
	}
	return false
}

// commits tells whether a statement commits by itself, as those do that define
// or lock tables, or may switch that on.
func commits(words []string) bool {
	is := func(i int, names ...string) bool {
		for _, name := range names {
			if i < len(words) && strings.EqualFold(words[i], name) {
				return true
			}
		}
		return false
	}
	for i := range words {
		if is(0, "SET") && i > 0 && is(i, "autocommit", "@@autocommit", "completion_type", "@@completion_type") {
			return true
		}
		if is(0, "CREATE", "DROP") && i > 0 && is(i, "TEMPORARY") {
			return false // does not commit
		}
	}
	return is(0, "ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "GRANT", "REVOKE", "LOCK", "UNLOCK", "ANALYZE", "OPTIMIZE",
		"REPAIR", "CACHE", "FLUSH", "RESET", "INSTALL", "UNINSTALL", "CHANGE", "STOP", "IMPORT", "BACKUP")
}

// full is what the driver's connections offer.
type full interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
}

type appConnector struct{ driver.Connector }

// Connect is part of driver.Connector.
func (c *appConnector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn, ok := raw.(full)
	if !ok {
		return nil, errors.Join(errors.New("mysql: the driver's connections lack what scopes need"), raw.Close())
	}
	return &appConn{full: conn, session: session{Conn: conn, query: conn}}, nil
}

// appConn is a connection of the application's, with settings of its own.
type appConn struct {
	full
	session session // the same, for our statements; the identity is there once it was checked
	// level is the isolation that the connection begins transactions with.
	level string
	// scoped: a scope's transaction has the connection. It is open once the server
	// knows of it, and then the session's autocommit is off. claimed: its key is taken
	// before the operation runs.
	scoped, open, claimed bool
}

// ExecContext is part of driver.ExecerContext.
func (c *appConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if several(query) {
		return nil, driver.ErrSkip
	}
	return c.full.ExecContext(ctx, query, args)
}

// QueryContext is part of driver.QueryerContext.
func (c *appConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if several(query) {
		return nil, driver.ErrSkip
	}
	return c.full.QueryContext(ctx, query, args)
}

// several tells whether a text may have more than one statement. One that then
// is prepared has one, or the server refuses it.
func several(query string) bool {
	return strings.Contains(strings.TrimRight(query, "; \t\r\n"), ";")
}

// check asks the connection where it leads, which the dialect compares.
func (c *appConn) check(ctx context.Context, e *engine) error {
	var f facts
	err := c.session.each(ctx, sqlFacts+";SELECT 'database', IFNULL(DATABASE(),'')", func(_ int, row []driver.Value) {
		f.note(strings.ToLower(text(row[0])), text(row[1]))
	})
	if err != nil {
		return e.address.explain("check a connection of the application's", err)
	}
	c.session.facts, c.session.run = f, f.identity()
	isolation := f["transaction_isolation"]
	if isolation == "" {
		isolation = f["tx_isolation"]
	}
	c.level = strings.ReplaceAll(isolation, "-", " ")
	switch {
	case !strings.EqualFold(f["database"], e.address.config.DBName):
		return refusedf("the application's connection has the database %q and the store has %q; open both with the same", f["database"], e.address.config.DBName)
	case f.is("wsrep_on") && !e.options.AllowGalera:
		return refused("the server is a node of a Galera cluster (wsrep_on), where a commit may fail after the operation has run; use one server, or say Options.AllowGalera")
	case !f.is("autocommit"):
		return refused("the application's connections have autocommit off, so that what runs outside of transactions is never committed; leave it on")
	case f.is("read_only"):
		return errServerReadOnly
	}
	return nil
}

// connOf gives the application's connection.
func connOf(conn *sqltx.Conn) (*appConn, error) {
	c, ok := conn.Unwrap().(*appConn)
	if !ok {
		return nil, refused("the database was opened with another driver: open it with this package's OpenDB")
	}
	return c, nil
}

// Check is part of sqltx.Dialect.
func (d *dialect) Check(ctx context.Context, conn *sqltx.Conn) error {
	c, err := connOf(conn)
	if err != nil {
		return err
	}
	if err := c.check(ctx, d.engine); err != nil {
		return err
	}
	if d.level == "" && c.level == "READ UNCOMMITTED" {
		return refused("the application's connections read what is not committed (READ UNCOMMITTED); name a level in ScopeOptions.Tx")
	}
	_, err = d.versions(ctx, c, nil, 0)
	return err
}

// versions gives the epoch to write under: not seen, if that has turned out to
// be old. It is read and renewed on a connection of the store's.
func (d *dialect) versions(ctx context.Context, c *appConn, seen *epoch, least uint64) (*epoch, error) {
	e := d.engine
	now := e.epoch.Load()
	if now != seen && now.run == c.session.run && now.number >= least {
		return now, nil
	}
	err := e.with(ctx, func(s *session) error {
		var err error
		now, err = e.renew(ctx, s, now, least)
		return err
	})
	switch {
	case err != nil:
		return nil, e.address.explain("renew the epoch", err)
	case now.run != c.session.run:
		return nil, refused("the application's connection leads to another server than the store's; open both with the same address")
	}
	return now, nil
}

// current tells whether ep is still the epoch and no floor above its own has
// been committed. It asks on a connection of the store's, for transactions in which
// a plain SELECT would see an old one, or lock it.
func (d *dialect) current(ctx context.Context, ep *epoch) (ok bool, err error) {
	err = d.engine.with(ctx, func(s *session) error {
		now, err := readEpoch(ctx, s)
		ok = err == nil && now.number == ep.number && now.floor <= ep.floor
		return err
	})
	return ok, d.engine.address.explain("read the epoch", err)
}

// serializable is the level at which a plain SELECT locks what it reads.
const serializable = "SERIALIZABLE"

// levelOf is the isolation of a scope's transactions.
func (d *dialect) levelOf(c *appConn) string {
	if d.level == "" {
		return c.level
	}
	return d.level
}

// over leaves the session as it was before the scope.
func (t *script) over(c *appConn) *script {
	t.add("SET " + giveWait + ",SESSION autocommit=1")
	if c.session.facts.mariadb() {
		t.add(giveIdle)
	}
	return t
}
