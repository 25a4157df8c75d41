package mysql

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

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
