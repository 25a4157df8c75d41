package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// oldest is the oldest server that the store works with: 14 has bloom filters
// for the journal's index.
const oldest = 140000

var (
	errStandby = errors.New("the server is a standby and takes no writes: name the primary, or all of them with ?target_session_attrs=read-write")
	errUnsafe  = errors.New("the server runs with fsync = off: what it acknowledges is gone after a crash; set fsync = on")
)

// server is what was read of the server when the store was opened.
type server struct {
	version     int
	commit      string // synchronous_commit, as the role and the database have it
	standbys    string // synchronous_standby_names
	streaming   int    // standbys that are connected
	description atomic.Pointer[semel.Description]
	ready       atomic.Bool // the tables exist
	cautions    []string
}

// inspect reads the settings that decide what a commit is worth, and refuses
// those under which it is worth nothing.
func (e *engine) inspect(ctx context.Context) error {
	v := &e.server
	var fsync, pages, isolation, readOnly string
	var standby bool
	var clock time.Time
	asked := time.Now()
	err := e.pool.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
		(SELECT coalesce(reset_val, setting) FROM pg_settings WHERE name = 'synchronous_commit'), current_setting('synchronous_standby_names'),
		current_setting('default_transaction_isolation'), current_setting('default_transaction_read_only'),
		pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication)::int, clock_timestamp()`).
		Scan(&v.version, &fsync, &pages, &v.commit, &v.standbys, &isolation, &readOnly, &standby, &v.streaming, &clock)
	switch {
	case err != nil:
		return err
	case v.version < oldest:
		return fmt.Errorf("the server is PostgreSQL %d and 14 or newer is needed: upgrade it", v.version/10000)
	case standby:
		return errStandby
	case fsync == "off":
		return errUnsafe
	case readOnly == "on":
		return errors.New("default_transaction_read_only is on for this user or database: writes are refused; switch it off with ALTER ROLE or ALTER DATABASE … SET, or name another user")
	}
	away := max(time.Until(clock), asked.Sub(clock))
	e.weigh(pages, away)
	e.patience = e.options.Timeout + 20*time.Second
	if v.standbys != "" { // a commit that waits for a standby is worth waiting for
		e.patience += 2 * time.Minute
	}
	if e.pooled {
		e.prelude = []string{"BEGIN ISOLATION LEVEL READ COMMITTED", fmt.Sprintf("SET LOCAL statement_timeout = %d", e.options.Timeout.Milliseconds())}
		if v.commit == "off" || v.commit == "local" {
			e.prelude = append(e.prelude, "SET LOCAL synchronous_commit = on")
		}
	}
	return nil
}

// weigh notes what weakens the store without making it useless.
func (e *engine) weigh(pages string, away time.Duration) {
	v := &e.server
	caution := func(format string, args ...any) { v.cautions = append(v.cautions, fmt.Sprintf(format, args...)) }
	if pages == "off" {
		caution("full_page_writes is off: unless the file system writes 8 kB pages whole, a crash can tear them; set it on.")
	}
	if v.commit == "off" || v.commit == "local" {
		caution("synchronous_commit is %s for this user or database; the store's own commits are made with on.", v.commit)
	}
	if v.standbys != "" && v.commit == "remote_write" {
		caution("synchronous_commit is remote_write: a standby whose machine stops together with the primary loses what it had not flushed; set it on.")
	}
	if v.standbys == "" && v.streaming > 0 {
		caution("The standbys (%d) are asynchronous: a promotion loses what they had not received, and the store then refuses unknown keys for %v; set synchronous_standby_names.",
			v.streaming, max(0, e.options.Quarantine))
	}
	if away > time.Minute {
		caution("The server's clock and this machine's are %v apart: the server's decides expiry, and keys that carry a time are judged by it; set the clocks.", away.Round(time.Second))
	}
}

// describe keeps the description for [Store.Describe].
func (e *engine) describe() {
	v := &e.server
	d := &semel.Description{Survives: semel.SurvivesCrash, Clock: "the database server's", Cautions: v.cautions}
	switch {
	case v.standbys != "":
		d.Survives = semel.SurvivesFailover
		d.Durability = "A commit is on the disks of the server and of a standby (synchronous_standby_names = " + v.standbys + ")."
	default:
		d.Durability = "A commit is on the server's disk (fsync = on); no standby has it for certain (synchronous_standby_names is empty)."
	}
	v.description.Store(d)
}

// Describe is part of semel.Describer. It tells of the settings as they were
// when the store was opened.
func (s *Store) Describe() semel.Description {
	d := *s.engine.server.description.Load()
	d.Cautions = append([]string(nil), d.Cautions...)
	return d
}

// checkRights refuses a user who may not do what the store has to.
func (e *engine) checkRights(ctx context.Context) error {
	var missing []string
	rows, err := e.pool.Query(ctx, `SELECT right_name || ' ON ' || object FROM (VALUES
		('SELECT', $1 || '.records'), ('INSERT', $1 || '.records'), ('UPDATE', $1 || '.records'), ('DELETE', $1 || '.records'),
		('SELECT', $1 || '.journal'), ('INSERT', $1 || '.journal'),
		('SELECT', $1 || '.epochs'), ('INSERT', $1 || '.epochs'), ('UPDATE', $1 || '.epochs')) AS need (right_name, object)
		WHERE NOT has_table_privilege(object, right_name)
		UNION ALL SELECT 'USAGE ON SEQUENCE ' || $1 || '.version' WHERE NOT has_sequence_privilege($1 || '.version', 'USAGE')`, e.schema)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var right string
		if err := rows.Scan(&right); err != nil {
			return err
		}
		missing = append(missing, right)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the user lacks rights: as the owner of the tables, GRANT %s TO this user", strings.Join(missing, "; GRANT "))
	}
	return rows.Err()
}
