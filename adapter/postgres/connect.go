package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
)

// marker is a setting of our own that a pooler does not hand on.
const marker = "semel.direct"

// errPooler: the sessions behind the URL are shared.
var errPooler = errors.New("postgres: the server does not know the setting that the session began with")

// connect opens a pool and finds out whether a pooler stands in between.
func connect(ctx context.Context, url string, o Options) (*engine, error) {
	if strings.TrimSpace(url) == "" {
		return nil, errors.New("postgres: no URL given; want one such as postgres://user:password@host:5432/database")
	}
	if !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,40}$`).MatchString(o.Schema) {
		return nil, fmt.Errorf("postgres: %q is no name for a schema here: want at most 41 of a-z, 0-9 and _, not beginning with a digit", o.Schema)
	}
	e := &engine{options: o, schema: pgx.Identifier{o.Schema}.Sanitize(), pooled: o.Pooler, untidy: make(chan struct{}, 1)}
	e.sql, e.bound = texts(e.schema), boundTexts(e.schema)
	err := e.dial(ctx, url)
	if isPooler(err) && !e.pooled {
		e.pooled = true
		err = e.dial(ctx, url)
	}
	if err != nil {
		return nil, e.explain("connect", err)
	}
	return e, nil
}

// isPooler tells whether err says that a pooler refused what a session is to
// begin with.
func isPooler(err error) bool {
	var said *pgconn.PgError
	return errors.Is(err, errPooler) || errors.As(err, &said) && said.Code == "08P01" && strings.Contains(said.Message, "startup parameter")
}

func (e *engine) dial(ctx context.Context, url string) error {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("the URL is not one of PostgreSQL's: want postgres://user:password@host:5432/database: %w", err)
	}
	if e.options.MaxConns > 0 {
		c.MaxConns = int32(e.options.MaxConns)
	} else if !strings.Contains(url, "pool_max_conns") {
		c.MaxConns = 8
	}
	e.configure(&c.ConnConfig.Config)
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // statements that are used again are prepared by us
	c.ConnConfig.StatementCacheCapacity, c.ConnConfig.DescriptionCacheCapacity = 0, 0
	if !e.pooled {
		c.AfterConnect = e.begin
	}
	c.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > 30*time.Second }
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		pool.Close()
		return err
	}
	conn.Release()
	e.pool = pool
	return nil
}

// configure sets what holds for all connections to the server.
func (e *engine) configure(c *pgconn.Config) {
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "semel"
	}
	if !e.pooled {
		for name, value := range map[string]string{
			marker: "1",
			// The unique index is the arbiter, and it needs a snapshot for each statement.
			"default_transaction_isolation":       "read committed",
			"statement_timeout":                   strconv.FormatInt(e.options.Timeout.Milliseconds(), 10),
			"idle_in_transaction_session_timeout": "60000",
			// Plans that can only take the index, in whatever state the tables were.
			"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
		} {
			c.RuntimeParams[name] = value
		}
	}
	c.OnNotice = notice
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return line{conn}, nil
	}
}

// line is a connection whose other end has no address. The driver asks the
// server to cancel what a broken connection was doing, and connects to that
// address to say so; but a COMMIT that waits for a standby and is cancelled
// leaves a row that everybody sees and no standby has (INVARIANTS T6).
type line struct{ net.Conn }

type nowhere struct{}

func (nowhere) Network() string { return "nowhere" }
func (nowhere) String() string  { return "nowhere" }

// RemoteAddr is part of net.Conn.
func (line) RemoteAddr() net.Addr { return nowhere{} }

// begin makes a connection of our own ready.
func (e *engine) begin(ctx context.Context, conn *pgx.Conn) error {
	var direct string
	var standby bool
	err := conn.QueryRow(ctx, `SELECT coalesce(current_setting('`+marker+`', true), ''), pg_is_in_recovery()`).Scan(&direct, &standby)
	switch {
	case err != nil:
		return err
	case direct != "1":
		return errPooler
	case standby:
		return errStandby
	}
	// A commit that is not on the disk is not one; a stronger setting is left alone.
	_, err = conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')`)
	if err != nil || !e.server.ready.Load() {
		return err // the tables do not exist yet
	}
	return e.prepareOn(ctx, conn)
}

// prepareOn prepares the statements on a connection of our own, in one go.
func (e *engine) prepareOn(ctx context.Context, conn *pgx.Conn) error {
	p := conn.PgConn().StartPipeline(ctx)
	for s, sql := range e.sql {
		p.SendPrepare(statement(s).name(), sql, nil)
	}
	if err := p.Sync(); err != nil {
		return errors.Join(err, p.Close())
	}
	for range e.sql {
		if _, err := p.GetResults(); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	if err := p.Close(); err != nil {
		return err
	}
	conn.PgConn().CustomData()[marker] = &warned{}
	return nil
}

// warned counts the warnings that a connection's server has given.
type warned struct{ count int }

// notice is called by the goroutine that reads the connection.
func notice(c *pgconn.PgConn, n *pgconn.Notice) {
	w, _ := c.CustomData()[marker].(*warned)
	if w == nil {
		w = &warned{}
		c.CustomData()[marker] = w
	}
	if n.SeverityUnlocalized == "WARNING" {
		w.count++
	}
}

// warnings tells how many warnings there were on the connection so far.
func warnings(c *pgconn.PgConn) int {
	if w, _ := c.CustomData()[marker].(*warned); w != nil {
		return w.count
	}
	return 0
}

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
	traits      []semel.Trait
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
		pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication)::int, current_database(), clock_timestamp()`).
		Scan(&v.version, &fsync, &pages, &v.commit, &v.standbys, &isolation, &readOnly, &standby, &v.streaming, &e.database, &clock)
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
		v.traits = append(v.traits, semel.TraitTornPages)
		caution("full_page_writes is off: unless the file system writes 8 kB pages whole, a crash can tear them; set it on.")
	}
	if v.commit == "off" || v.commit == "local" {
		caution("synchronous_commit is %s for this user or database; the store's own commits are made with on.", v.commit)
	}
	if v.standbys != "" && v.commit == "remote_write" {
		caution("synchronous_commit is remote_write: a standby whose machine stops together with the primary loses what it had not flushed; set it on.")
	}
	if v.standbys == "" && v.streaming > 0 {
		v.traits = append(v.traits, semel.TraitLossyFailover)
		caution("The standbys (%d) are asynchronous: a promotion loses what they had not received, and the store then refuses unknown keys for %v; set synchronous_standby_names.",
			v.streaming, max(0, e.options.Quarantine))
	}
	if away > time.Minute {
		v.traits = append(v.traits, semel.TraitClockOff)
		caution("The server's clock and this machine's are %v apart: the server's decides expiry, and keys that carry a time are judged by it; set the clocks.", away.Round(time.Second))
	}
}

// describe keeps the description for [Store.Describe].
func (e *engine) describe() {
	v := &e.server
	d := &semel.Description{Survives: semel.SurvivesCrash, Clock: "the database server's", Cautions: v.cautions, Traits: v.traits}
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
	d.Cautions, d.Traits = append([]string(nil), d.Cautions...), append([]semel.Trait(nil), d.Traits...)
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
