package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
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
