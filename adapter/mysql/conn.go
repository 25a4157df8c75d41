package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// session is one connection as the pool has it: the driver's own, with the
// settings that the statements count on. What it sends is sent once: database/sql
// gives connections out, and repeats nothing that has begun (see engine.with).
type session struct {
	driver.Conn
	query driver.QueryerContext
	run   [16]byte // the identity of the server while it runs
	facts facts
	dirty bool // whether a transaction may be open
}

// connector makes sessions.
type connector struct {
	driver.Connector
	lockWait time.Duration
	readOnly bool
}

// Connect is part of driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	query, ok := raw.(driver.QueryerContext)
	if !ok {
		return nil, errors.Join(errors.New("mysql: the driver's connections take no context"), raw.Close())
	}
	s := &session{Conn: raw, query: query}
	if err := c.greet(ctx, s); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return s, nil
}

// greet makes the session's settings, and reads them back: a proxy in between
// may have its own mind.
func (c *connector) greet(ctx context.Context, s *session) error {
	err := s.each(ctx, fmt.Sprintf("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;"+
		"SET SESSION autocommit=1, innodb_lock_wait_timeout=%d, time_zone='+00:00', unique_checks=1,"+
		" sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';", max(1, int(c.lockWait/time.Second)))+sqlFacts,
		func(_ int, row []driver.Value) {
			name, _ := row[0].([]byte)
			value, _ := row[1].([]byte)
			s.facts.note(strings.ToLower(string(name)), string(value))
		})
	if err != nil {
		return err
	}
	s.run = s.facts.identity()
	if err := s.facts.session(); err != nil {
		return err
	}
	if s.facts.is("read_only") && !c.readOnly {
		return errServerReadOnly
	}
	return nil
}

// ResetSession and IsValid are what the pool asks before it gives a connection
// out: whether it is still there. Nothing has been sent by then.
func (s *session) ResetSession(ctx context.Context) error {
	if r, ok := s.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid is part of driver.Validator.
func (s *session) IsValid() bool {
	v, ok := s.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

// each sends statements in one packet and calls visit for each row of their
// results; set counts the statements that have a result, from 0. The row and its
// bytes are good until visit returns. After an error of a statement those
// behind it were not run.
func (s *session) each(ctx context.Context, text string, visit func(set int, row []driver.Value)) (err error) {
	rows, err := s.query.QueryContext(ctx, text, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	more, ok := rows.(driver.RowsNextResultSet)
	if !ok {
		return errors.New("mysql: the driver gives one result only")
	}
	for set := 0; ; set++ {
		values := make([]driver.Value, len(rows.Columns()))
		for len(values) > 0 {
			err := rows.Next(values)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			visit(set, values)
		}
		if !more.HasNextResultSet() {
			return nil
		}
		if err := more.NextResultSet(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// do sends statements whose results do not matter.
func (s *session) do(ctx context.Context, text string) error {
	return s.each(ctx, text, func(int, []driver.Value) {})
}

// with calls fn with a connection of its own. It calls fn again only if the
// driver says that the connection was gone before anything was sent.
func (e *engine) with(ctx context.Context, fn func(s *session) error) error {
	for try := 0; ; try++ {
		err := e.once(ctx, fn)
		if !errors.Is(err, driver.ErrBadConn) || try == 2 {
			return err
		}
	}
}

func (e *engine) once(ctx context.Context, fn func(s *session) error) (err error) {
	c, err := e.pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closed := c.Close(); !errors.Is(closed, sql.ErrConnDone) {
			err = errors.Join(err, closed)
		}
	}()
	return c.Raw(func(raw any) error {
		s, ok := raw.(*session)
		if !ok {
			return fmt.Errorf("mysql: the pool gave a %T", raw)
		}
		return fn(s)
	})
}

// clean ends the session's connection if a transaction may be open in it: the
// next one to begin there would commit it.
func (s *session) clean() {
	if s.dirty {
		_ = s.Close() // which the pool notices
	}
}

// identity is 16 bytes of a hash of what tells a server that runs from any other,
// and from itself after a restart.
func (f facts) identity() [16]byte {
	var parts []string
	for _, name := range [...]string{"server_uuid", "server_uid", "hostname", "port", "server_id", "datadir", "started", "wsrep_cluster_state_uuid"} {
		parts = append(parts, name+"="+f[name])
	}
	if f.is("wsrep_on") { // whichever node: they commit in one order
		parts = parts[len(parts)-1:]
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return [16]byte(sum[:16])
}

// facts are a server's settings, by name, as a session read them when it was
// made.
type facts map[string]string

// sqlFacts reads them, by names that MySQL and MariaDB have; what one of them
// does not know is not in its answer. UUID_SHORT has the time of the server's
// start above its lower 24 bits.
const sqlFacts = `SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'tx_isolation', 'transaction_isolation',
'autocommit', 'sql_mode', 'time_zone', 'innodb_lock_wait_timeout', 'read_only', 'super_read_only', 'innodb_read_only', 'max_allowed_packet',
'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog', 'binlog_format', 'wsrep_on',
'server_uuid', 'server_uid', 'hostname', 'port', 'server_id', 'datadir');
SELECT 'started', CAST(UUID_SHORT() >> 24 AS CHAR) UNION ALL SELECT 'clock', CAST(` + sqlNow + ` AS CHAR);
SHOW STATUS WHERE Variable_name = 'wsrep_cluster_state_uuid'`

// sqlNow is the server's clock at the start of the statement, in Unix
// microseconds, whatever the session's time zone.
const sqlNow = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"

func (f *facts) note(name, value string) {
	if *f == nil {
		*f = facts{}
	}
	(*f)[name] = value
}

// is tells whether a setting is on.
func (f facts) is(name string) bool {
	switch strings.ToUpper(f[name]) {
	case "ON", "1", "YES", "TRUE":
		return true
	}
	return false
}

// session tells whether the session's settings are those that were asked for.
func (f facts) session() error {
	isolation := f["transaction_isolation"] + f["tx_isolation"]
	if !strings.HasPrefix(isolation, "READ-COMMITTED") || !f.is("autocommit") || !strings.Contains(f["sql_mode"], "STRICT_ALL_TABLES") {
		return refusedf("the session does not keep its settings (isolation %q, autocommit %q, sql_mode %q);"+
			" a proxy in between may take them back: connect to the server itself", isolation, f["autocommit"], f["sql_mode"])
	}
	return nil
}

func (f facts) mariadb() bool { return strings.Contains(f["version"], "MariaDB") }

// number is the leading numbers of the version: 10.11.4 is 10, 11.
func (f facts) number() (major, minor int) {
	parts := regexp.MustCompile(`^(\d+)\.(\d+)`).FindStringSubmatch(strings.TrimPrefix(f["version"], "5.5.5-"))
	if parts != nil {
		major, _ = strconv.Atoi(parts[1]) // digits
		minor, _ = strconv.Atoi(parts[2])
	}
	return major, minor
}

// skips tells whether the server has SKIP LOCKED.
func (f facts) skips() bool {
	major, minor := f.number()
	return !f.mariadb() || major > 10 || major == 10 && minor >= 6
}

const errServerReadOnly = refused("the server is read-only (read_only=ON): it is a replica, or was set so; connect to the primary")

// check refuses a server that the store cannot be trusted to.
func (f facts) check(o Options) error {
	major, minor := f.number()
	least, name := [2]int{8, 0}, "MySQL"
	if f.mariadb() {
		least, name = [2]int{10, 5}, "MariaDB"
	}
	switch {
	case major < least[0] || major == least[0] && minor < least[1]:
		return refusedf("the server is %s %s, and %d.%d is the oldest that the store works with", name, f["version"], least[0], least[1])
	case f.is("innodb_read_only"):
		return refused("innodb_read_only is on: nothing can be written; restart the server without it")
	case f.is("log_bin") && f["binlog_format"] == "STATEMENT":
		return refused("binlog_format is STATEMENT, with which InnoDB writes nothing at READ COMMITTED; set it to ROW or MIXED")
	case f.is("wsrep_on") && !o.AllowGalera:
		return refused("the server is a node of a Galera cluster (wsrep_on): a commit there may fail after the effect has run," +
			" and a node that is behind answers with old records; use one server, or say Options.AllowGalera and no transactional class")
	case f.packet() < 1<<20:
		return refusedf("max_allowed_packet is %d bytes, and a swap needs at least 1048576; raise it on the server", f.packet())
	}
	return nil
}

// packet is the longest packet that the server takes, in bytes.
func (f facts) packet() int {
	n, err := strconv.Atoi(f["max_allowed_packet"])
	if err != nil {
		return 1 << 20
	}
	return n
}

// skew is how far the server's clock was ahead of ours.
func (f facts) skew(now time.Time) time.Duration {
	micros, err := strconv.ParseInt(f["clock"], 10, 64)
	if err != nil {
		return 0
	}
	return time.UnixMicro(micros).Sub(now)
}

// describe says what f means to whoever starts the store.
func (f facts) describe(skew time.Duration) semel.Description {
	d := semel.Description{Survives: semel.SurvivesCrash, Clock: "the server's (UTC_TIMESTAMP), in microseconds"}
	caution := func(format string, args ...any) { d.Cautions = append(d.Cautions, fmt.Sprintf(format, args...)) }
	d.Durability = "committed by InnoDB with one flush for each commit: a crash loses nothing, a failover to an asynchronous replica loses what it lags behind"
	weaken := func(why string) {
		d.Survives, d.Durability = semel.SurvivesProcess, "committed by InnoDB, but "+why+": a crash of the server's machine may lose the last acknowledged records"
	}
	if v := f["innodb_flush_log_at_trx_commit"]; v != "1" {
		weaken("innodb_flush_log_at_trx_commit is " + v)
		caution("innodb_flush_log_at_trx_commit is %s: a crash loses acknowledged records, and what they guarded would run again; set it to 1", v)
	}
	if v := f["sync_binlog"]; f.is("log_bin") && v != "1" {
		weaken("sync_binlog is " + v)
		caution("sync_binlog is %s: after a crash InnoDB takes back what the binary log has lost; set it to 1", v)
	}
	if v := f["innodb_doublewrite"]; v == "OFF" || v == "0" {
		d.Traits = append(d.Traits, semel.TraitTornPages)
		caution("innodb_doublewrite is off: a crash in the middle of a page damages it, unless the file system writes pages whole; switch it on")
	}
	if f.is("log_bin") {
		caution("if this server is replicated asynchronously or semi-synchronously, a promotion may lose its last records, and what they guarded would run again")
	}
	if f.is("wsrep_on") {
		caution("the server is a node of a Galera cluster: commits may fail at certification; give no route the class transactional")
	}
	if skew.Abs() > time.Minute {
		d.Traits = append(d.Traits, semel.TraitClockOff)
		caution("the server's clock is %v off this machine's: leases go by the server's, keys that carry their own time may be refused; set the clocks", skew.Round(time.Second))
	}
	if !f.mariadb() {
		caution("the server is MySQL %s: the store is tested with MariaDB only", f["version"])
	}
	if most := mostResult(f.packet()); most < 1<<20 {
		caution("max_allowed_packet of %d bytes leaves room for results of %d bytes; longer ones are not kept, and their retries get 410", f.packet(), most)
	}
	return d
}

// mostResult is the longest result that fits into a packet: it is written in
// hexadecimal, beside keys of usual length.
func mostResult(packet int) int { return (packet - packetSlack) / 2 }
