package sqltx

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
)

// fullStmt is what a statement of a driver of this century offers.
type fullStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// stmt is a prepared statement.
type stmt struct {
	fullStmt
	conn    *Conn
	control controlled
}

var (
	_ fullStmt                 = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
	_ converter                = (*stmt)(nil)
)

// ExecContext is part of driver.StmtExecContext.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	t := s.conn.tx
	if t == nil {
		return s.fullStmt.ExecContext(ctx, args)
	}
	if err := t.admit(&s.control); err != nil {
		return nil, err
	}
	result, err := s.fullStmt.ExecContext(ctx, args)
	return result, t.note(&s.control, err)
}

// QueryContext is part of driver.StmtQueryContext.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	t := s.conn.tx
	if t == nil {
		return s.fullStmt.QueryContext(ctx, args)
	}
	if err := t.admit(&s.control); err != nil {
		return nil, err
	}
	r, err := s.fullStmt.QueryContext(ctx, args)
	if err := t.note(&s.control, err); err != nil {
		return nil, err
	}
	return &rows{r, t}, nil
}

// CheckNamedValue is part of driver.NamedValueChecker.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	checker, ok := s.fullStmt.(driver.NamedValueChecker)
	if !ok {
		checker, ok = s.conn.fullConn.(driver.NamedValueChecker)
	}
	if _, converts := s.fullStmt.(converter); !converts {
		return s.conn.checkValue(checker, v)
	}
	if !ok {
		return driver.ErrSkip // to the converter
	}
	return checker.CheckNamedValue(v)
}

// converter is driver.ColumnConverter, which is deprecated, and implemented still.
type converter interface {
	ColumnConverter(i int) driver.ValueConverter
}

// ColumnConverter is part of converter.
func (s *stmt) ColumnConverter(i int) driver.ValueConverter {
	if c, ok := s.fullStmt.(converter); ok {
		return c.ColumnConverter(i)
	}
	return driver.DefaultParameterConverter
}

// rows are those of a query in a transaction. Where the driver's rows do not
// tell something of a column, these do not either.
type rows struct {
	driver.Rows
	tx *state
}

// Next is part of driver.Rows.
func (r *rows) Next(dest []driver.Value) error {
	err := r.Rows.Next(dest)
	if err == nil || err == io.EOF { //nolint:errorlint // as driver.Rows has it
		return err
	}
	return r.tx.note(&controlled{}, err)
}

// HasNextResultSet is part of driver.RowsNextResultSet.
func (r *rows) HasNextResultSet() bool {
	n, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

// NextResultSet is part of driver.RowsNextResultSet.
func (r *rows) NextResultSet() error {
	n, ok := r.Rows.(driver.RowsNextResultSet)
	if !ok {
		return io.EOF
	}
	err := n.NextResultSet()
	if err == nil || err == io.EOF { //nolint:errorlint // as driver.RowsNextResultSet has it
		return err
	}
	return r.tx.note(&controlled{}, err)
}

// ColumnTypeScanType is part of driver.RowsColumnTypeScanType.
func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	if t, ok := r.Rows.(driver.RowsColumnTypeScanType); ok {
		return t.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}

// ColumnTypeDatabaseTypeName is part of driver.RowsColumnTypeDatabaseTypeName.
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	if t, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return t.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

// ColumnTypeLength is part of driver.RowsColumnTypeLength.
func (r *rows) ColumnTypeLength(i int) (length int64, ok bool) {
	if t, is := r.Rows.(driver.RowsColumnTypeLength); is {
		return t.ColumnTypeLength(i)
	}
	return 0, false
}

// ColumnTypeNullable is part of driver.RowsColumnTypeNullable.
func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	if t, is := r.Rows.(driver.RowsColumnTypeNullable); is {
		return t.ColumnTypeNullable(i)
	}
	return false, false
}

// ColumnTypePrecisionScale is part of driver.RowsColumnTypePrecisionScale.
func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	if t, is := r.Rows.(driver.RowsColumnTypePrecisionScale); is {
		return t.ColumnTypePrecisionScale(i)
	}
	return 0, 0, false
}
