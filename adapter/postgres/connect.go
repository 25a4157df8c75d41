package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
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
	e.sql = texts(e.schema)
	e.barrier.wake.L = &e.barrier.mu
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
