package pgtx

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// rows notes how they end.
type rows struct {
	pgx.Rows
	tx *Tx
}

// Next is part of pgx.Rows.
func (r *rows) Next() bool {
	more := r.Rows.Next()
	if !more {
		_ = r.tx.note(r.Rows.Err())
	}
	return more
}

// Close is part of pgx.Rows.
func (r *rows) Close() {
	r.Rows.Close()
	_ = r.tx.note(r.Rows.Err())
}

// row notes how it ends.
type row struct {
	pgx.Row
	tx *Tx
}

// Scan is part of pgx.Row.
func (r row) Scan(to ...any) error {
	err := r.Row.Scan(to...)
	if err == pgx.ErrNoRows {
		return err
	}
	return r.tx.note(err)
}

// batch notes how its queries end.
type batch struct {
	pgx.BatchResults
	tx *Tx
}

// Exec is part of pgx.BatchResults.
func (b *batch) Exec() (pgconn.CommandTag, error) {
	tag, err := b.BatchResults.Exec()
	return tag, b.tx.note(err)
}

// Query is part of pgx.BatchResults.
func (b *batch) Query() (pgx.Rows, error) {
	inner, err := b.BatchResults.Query()
	return &rows{inner, b.tx}, b.tx.note(err)
}

// QueryRow is part of pgx.BatchResults.
func (b *batch) QueryRow() pgx.Row { return row{b.BatchResults.QueryRow(), b.tx} }

// Close is part of pgx.BatchResults.
func (b *batch) Close() error { return b.tx.note(b.BatchResults.Close()) }

// refusedRows is what a query gives that was not sent.
type refusedRows struct{ err error }

// Close is part of pgx.Rows.
func (refusedRows) Close() {}

// Err is part of pgx.Rows.
func (r refusedRows) Err() error { return r.err }

// CommandTag is part of pgx.Rows.
func (refusedRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }

// FieldDescriptions is part of pgx.Rows.
func (refusedRows) FieldDescriptions() []pgconn.FieldDescription { return nil }

// Next is part of pgx.Rows.
func (refusedRows) Next() bool { return false }

// Scan is part of pgx.Rows and of pgx.Row.
func (r refusedRows) Scan(...any) error { return r.err }

// Values is part of pgx.Rows.
func (r refusedRows) Values() ([]any, error) { return nil, r.err }

// RawValues is part of pgx.Rows.
func (refusedRows) RawValues() [][]byte { return nil }

// TypeMap is part of pgx.Rows.
func (refusedRows) TypeMap() *pgtype.Map { return pgtype.NewMap() }

// Conn is part of pgx.Rows.
func (refusedRows) Conn() *pgx.Conn { return nil }
