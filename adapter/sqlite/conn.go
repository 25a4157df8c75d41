package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"

	modernc "modernc.org/sqlite"
)

// conn is one connection. It is the driver's own, without database/sql on top:
// its callers hold it for themselves already, and need neither a second pool nor
// retries. It is not safe for concurrent use.
type conn struct {
	raw   driver.Conn
	stmts []*stmt
}

func connect(dsn string) (*conn, error) {
	connector, err := modernc.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	return &conn{raw: raw}, nil
}

// prepare compiles one statement, which lives as long as the connection.
func (c *conn) prepare(sql string) (*stmt, error) {
	s, err := compile(c.raw, sql)
	if err != nil {
		return nil, err
	}
	c.stmts = append(c.stmts, s)
	return s, nil
}

// run executes a statement, or several, once.
func (c *conn) run(sql string) error {
	s, err := compile(c.raw, sql)
	if err != nil {
		return err
	}
	_, err = s.exec()
	return errors.Join(err, s.raw.Close())
}

// exec executes one statement once.
func (c *conn) exec(sql string, args ...driver.Value) (int64, error) {
	s, err := compile(c.raw, sql)
	if err != nil {
		return 0, err
	}
	n, err := s.exec(args...)
	return n, errors.Join(err, s.raw.Close())
}

// first shows the first row of a query, if there is one.
func (c *conn) first(sql string, row func(row []driver.Value), args ...driver.Value) error {
	s, err := compile(c.raw, sql)
	if err != nil {
		return err
	}
	err = s.query(context.Background(), func(values []driver.Value) bool {
		row(values)
		return false
	}, args...)
	return errors.Join(err, s.raw.Close())
}

// row gives the first row of a query.
func (c *conn) row(sql string) ([]driver.Value, error) {
	s, err := compile(c.raw, sql)
	if err != nil {
		return nil, err
	}
	var first []driver.Value
	err = s.query(context.Background(), func(row []driver.Value) bool {
		first = append(first, row...)
		return false
	})
	return first, errors.Join(err, s.raw.Close())
}

// number gives the integer that a query gives, 0 for NULL or for no row.
func (c *conn) number(sql string) (int64, error) {
	row, err := c.row(sql)
	if err != nil || len(row) == 0 {
		return 0, err
	}
	n, _ := row[0].(int64)
	return n, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// stmt is a compiled statement.
type stmt struct {
	raw  driver.Stmt
	do   driver.StmtExecContext
	ask  driver.StmtQueryContext
	args []driver.NamedValue
	row  []driver.Value
}

func compile(raw driver.Conn, sql string) (*stmt, error) {
	p, err := raw.Prepare(sql)
	if err != nil {
		return nil, err
	}
	s := &stmt{raw: p}
	var can [2]bool
	s.do, can[0] = p.(driver.StmtExecContext)
	s.ask, can[1] = p.(driver.StmtQueryContext)
	if can != [2]bool{true, true} {
		return nil, errors.Join(errors.New("sqlite: the driver's statements take no context"), p.Close())
	}
	return s, nil
}

func (s *stmt) bind(args []driver.Value) []driver.NamedValue {
	for len(s.args) < len(args) {
		s.args = append(s.args, driver.NamedValue{Ordinal: len(s.args) + 1})
	}
	for i, a := range args {
		s.args[i].Value = a
	}
	return s.args[:len(args)]
}

// exec executes to the end: no context, since half a swap helps nobody. It
// tells how many rows changed, those of triggers not counted.
func (s *stmt) exec(args ...driver.Value) (int64, error) {
	result, err := s.do.ExecContext(context.Background(), s.bind(args))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// query calls each for every row until it gives false. The values are the
// caller's, the slice is not. With a context that can end, a query costs a
// goroutine: use context.Background for those that are short.
func (s *stmt) query(ctx context.Context, each func(row []driver.Value) bool, args ...driver.Value) (err error) {
	rows, err := s.ask.QueryContext(ctx, s.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if n := len(rows.Columns()); len(s.row) != n {
		s.row = make([]driver.Value, n)
	}
	for {
		err := rows.Next(s.row)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !each(s.row) {
			return nil
		}
	}
}
