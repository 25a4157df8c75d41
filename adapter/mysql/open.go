package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel/store/batch"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// Connections is how many connections swaps and reads may use at once. Swaps
	// share commits, so few suffice. Default 16.
	Connections int
	// Timeout bounds a swap, also one whose caller has no deadline. Default 10 s.
	Timeout time.Duration
	// LockWait is how long a swap waits for another's transaction to let go of its
	// row, in whole seconds. Default 1 s.
	LockWait time.Duration
	// ReadOnly opens the tables for reading alone, also on a replica: nothing in them
	// changes, and every swap is [semel.ErrRejected]. A replica may be behind.
	ReadOnly bool
	// AllowGalera accepts a node of a Galera cluster. There a commit may fail at
	// certification although every statement before it went well, so an effect in the
	// same transaction is not to be trusted before the commit is answered, and no
	// route should have the class [semel.Transactional]. Untested.
	AllowGalera bool
	// Alone switches group commit off: each swap is a commit of its own.
	Alone bool
	// Batch sets how swaps are collected into commits. Its Workers default to 2 here.
	Batch batch.Options
}

func (o Options) filled() Options {
	if o.Connections <= 0 {
		o.Connections = 16
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.LockWait < time.Second {
		o.LockWait = time.Second
	}
	if o.Batch.Workers <= 0 {
		o.Batch.Workers = 2
	}
	return o
}

// openWithin bounds Open where its context does not.
const openWithin = 10 * time.Second

// Open connects to the database at url, mysql://user:password@host:3306/database,
// and refuses what a store cannot be trusted to. The URL may have the parameters
// tls (true, false, skip-verify, preferred) and socket (an absolute path in place
// of the host). Open returns within ctx or 10 s, whichever ends first, and does
// not keep ctx. A database without the store's tables gets them, if the user may
// make them; tables of an older version are refused until [Migrate] was called.
//
// Several processes may have the same database open.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	return open(ctx, url, o, nil)
}

// open is Open with a clock of the test's own, given as SQL.
func open(ctx context.Context, url string, o Options, now func() string) (*Store, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	a, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	e, err := connect(a, o.filled())
	if err != nil {
		return nil, err
	}
	if now != nil {
		e.now = now
	}
	s := &Store{engine: e}
	if err := e.with(ctx, func(c *session) error { return s.prepare(ctx, c) }); err != nil {
		return nil, errors.Join(a.explain("open", err), e.pool.Close())
	}
	if !o.Alone && !o.ReadOnly {
		s.batch = batch.New(e, e.options.Batch)
	}
	return s, nil
}

// prepare checks the server and makes the database ready.
func (s *Store) prepare(ctx context.Context, c *session) error {
	e := s.engine
	if err := c.facts.check(e.options); err != nil {
		return err
	}
	e.packet = c.facts.packet()
	s.about = c.facts.describe(c.facts.skew(time.Now()))
	version, err := schemaVersion(ctx, c)
	if err != nil {
		return err
	}
	if version == 0 && !e.options.ReadOnly {
		if err := migrate(ctx, c); err != nil {
			return err
		}
		version = newest
	}
	if err := checkSchema(version); err != nil || e.options.ReadOnly {
		return err
	}
	if _, err := e.renew(ctx, c, nil, 0); err != nil {
		return err
	}
	if err := e.probe(ctx, c); err != nil {
		return err
	}
	if err := e.makeDays(ctx, c, false); err != nil {
		s.about.Cautions = append(s.about.Cautions, fmt.Sprintf("the journal's days could not be made (%v): "+
			"it goes on in one partition that cannot be dropped by day; run `semel migrate` each week as a user who has ALTER, CREATE, INSERT, DROP and LOCK TABLES", err))
	}
	return nil
}

// probe writes, and takes it back: the user has the rights, the tables have the
// columns, and a packet stops where it has to.
func (e *engine) probe(ctx context.Context, c *session) error {
	if err := c.do(ctx, "SET @semel_none=EXP(999*1)"); code(err) != codeOverflow {
		return refusedf("the server computes EXP(999), which swaps count on to fail: %v", err)
	}
	c.dirty = true
	defer c.clean()
	counted := false
	err := c.each(ctx, "START TRANSACTION;"+
		"INSERT INTO semel_record (digest,epoch,counter,written,due,state,meta,result) SELECT x'',0,0,0,NULL,1,x'',NULL FROM semel_store WHERE id=0;"+
		"UPDATE semel_record SET epoch=1,counter=1,written=0,due=NULL,state=1,meta=x'',result=NULL WHERE digest=x'' AND counter=0;"+
		"DELETE FROM semel_record WHERE digest=x'';"+
		"INSERT INTO semel_journal (written,digest,meta) SELECT 0,x'',x'' FROM semel_store WHERE id=0;"+
		sqlFlush+";ROLLBACK", func(_ int, row []driver.Value) { counted = unsigned(row[0]) == 1 })
	c.dirty = err != nil
	if err == nil && !counted {
		return errNoFlush
	}
	return err
}

// urlForm is how a URL is written, for errors.
const urlForm = "mysql://user:password@host:3306/database"

// address is where the database is, and what may be shown of it.
type address struct {
	config *client.Config
	shown  string // without the password
}

// parseURL reads a mysql:// or mariadb:// URL. The errors do not show the
// password.
func parseURL(text string) (address, error) {
	fail := func(format string, args ...any) (address, error) {
		return address{}, fmt.Errorf("mysql: "+format+"; write "+urlForm, args...)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		var reason *url.Error
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return fail("the URL cannot be read: %w", err)
	case u.Scheme != "mysql" && u.Scheme != "mariadb":
		return fail("the URL begins with %q, not with mysql://", u.Scheme)
	case u.User.Username() == "":
		return fail("the URL %s names no user", u.Redacted())
	case strings.Trim(u.Path, "/") == "" || strings.Contains(u.Path[1:], "/"):
		return fail("the URL %s does not name one database", u.Redacted())
	case u.Fragment != "" || u.Opaque != "":
		return fail("the URL %s has parts that mean nothing here", u.Redacted())
	}
	c := client.NewConfig()
	c.User, c.DBName = u.User.Username(), u.Path[1:]
	c.Passwd, _ = u.User.Password()
	c.Net, c.Addr = "tcp", u.Host
	if u.Hostname() != "" && u.Port() == "" {
		c.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	if err := setParameters(c, u.Query()); err != nil {
		return fail("the URL %s: %w", u.Redacted(), err)
	}
	if u.Hostname() == "" && c.Net == "tcp" {
		return fail("the URL %s names no host", u.Redacted())
	}
	c.Timeout = 5 * time.Second
	c.MultiStatements = true // a swap is one packet of several statements
	c.MaxAllowedPacket = 1 << 30
	c.Logger = &client.NopLogger{} // what goes wrong is in the errors
	return address{config: c, shown: u.Redacted()}, nil
}

func setParameters(c *client.Config, parameters url.Values) error {
	for name, values := range parameters {
		value := values[0]
		switch {
		case len(values) > 1:
			return fmt.Errorf("the parameter %s is there %d times", name, len(values))
		case name == "tls" && slices.Contains([]string{"true", "false", "skip-verify", "preferred"}, value):
			c.TLSConfig = value
		case name == "tls":
			return fmt.Errorf("tls=%s is none of true, false, skip-verify and preferred", value)
		case name == "socket" && strings.HasPrefix(value, "/"):
			c.Net, c.Addr = "unix", value
		case name == "socket":
			return fmt.Errorf("socket=%s is no absolute path", value)
		default:
			return fmt.Errorf("the parameter %s is unknown; there are tls and socket", name)
		}
	}
	return nil
}
