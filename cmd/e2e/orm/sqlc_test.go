package orm

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What sqlc generates for pgx.
type pgxDBTX interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

type pgxQueries struct{ db pgxDBTX }

const (
	addOrderPostgres = "INSERT INTO orders (item) VALUES ($1) RETURNING id"
	listItemPostgres = "SELECT id, item FROM orders WHERE item = $1"
	raisePostgres    = "UPDATE orders SET amount = amount + $2 WHERE item = $1"
	addOrderMariaDB  = "INSERT INTO orders (item) VALUES (?) RETURNING id"
	listItemMariaDB  = "SELECT id, item FROM orders WHERE item = ?"
	raiseMariaDB     = "UPDATE orders SET amount = amount + ? WHERE item = ?"
)

type row struct {
	ID   int64
	Item string
}

func (q *pgxQueries) addOrder(ctx context.Context, item string) (id int64, err error) {
	err = q.db.QueryRow(ctx, addOrderPostgres, item).Scan(&id)
	return id, err
}

func (q *pgxQueries) listItem(ctx context.Context, item string) ([]row, error) {
	rows, err := q.db.Query(ctx, listItemPostgres, item)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []row
	for rows.Next() {
		var i row
		if err := rows.Scan(&i.ID, &i.Item); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

func (q *pgxQueries) raise(ctx context.Context, item string, by int) error {
	_, err := q.db.Exec(ctx, raisePostgres, item, by)
	return err
}

// pgxBook is a book in the manner of sqlc over pgx.
type pgxBook struct{ tx pgx.Tx }

func (b pgxBook) add(ctx context.Context, item string) (int64, error) {
	q := &pgxQueries{b.tx}
	id, err := q.addOrder(ctx, item)
	if err != nil {
		return 0, err
	}
	found, err := q.listItem(ctx, item)
	return id, errors.Join(err, same(found, row{id, item}))
}

func same(found []row, want row) error {
	if len(found) != 1 || found[0] != want {
		return errors.New("the transaction does not see its own order")
	}
	return nil
}

func (b pgxBook) try(ctx context.Context, fn func(book) error) error {
	return pgx.BeginFunc(ctx, b.tx, func(inner pgx.Tx) error { return fn(pgxBook{inner}) })
}

func (b pgxBook) raise(ctx context.Context, item string, by int) error {
	return (&pgxQueries{b.tx}).raise(ctx, item, by)
}

func (b pgxBook) commit() error { return b.tx.Commit(context.Background()) }

// What sqlc generates for database/sql, with emit_prepared_queries: a query goes
// by its statement where there is one.
type sqlDBTX interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	PrepareContext(context.Context, string) (*sql.Stmt, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

type sqlQueries struct {
	db                    sqlDBTX
	tx                    *sql.Tx
	text                  *texts
	addStmt, list, raised *sql.Stmt
}

// texts are the queries of one database.
type texts struct{ add, list, raise string }

func prepare(ctx context.Context, db *sql.DB, text *texts) (*sqlQueries, error) {
	q := &sqlQueries{db: db, text: text}
	var err error
	if q.addStmt, err = db.PrepareContext(ctx, text.add); err != nil {
		return nil, err
	}
	if q.list, err = db.PrepareContext(ctx, text.list); err != nil {
		return nil, err
	}
	q.raised, err = db.PrepareContext(ctx, text.raise)
	return q, err
}

func (q *sqlQueries) withTx(tx *sql.Tx) *sqlQueries {
	return &sqlQueries{tx, tx, q.text, q.addStmt, q.list, q.raised}
}

func (q *sqlQueries) exec(ctx context.Context, stmt *sql.Stmt, query string, args ...any) (sql.Result, error) {
	if stmt != nil {
		return q.tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
	}
	return q.db.ExecContext(ctx, query, args...)
}

func (q *sqlQueries) query(ctx context.Context, stmt *sql.Stmt, query string, args ...any) (*sql.Rows, error) {
	if stmt != nil {
		return q.tx.StmtContext(ctx, stmt).QueryContext(ctx, args...)
	}
	return q.db.QueryContext(ctx, query, args...)
}

func (q *sqlQueries) queryRow(ctx context.Context, stmt *sql.Stmt, query string, args ...any) *sql.Row {
	if stmt != nil {
		return q.tx.StmtContext(ctx, stmt).QueryRowContext(ctx, args...)
	}
	return q.db.QueryRowContext(ctx, query, args...)
}

func (q *sqlQueries) addOrder(ctx context.Context, item string) (id int64, err error) {
	err = q.queryRow(ctx, q.addStmt, q.text.add, item).Scan(&id)
	return id, err
}

func (q *sqlQueries) listItem(ctx context.Context, item string) ([]row, error) {
	rows, err := q.query(ctx, q.list, q.text.list, item)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []row
	for rows.Next() {
		var i row
		if err := rows.Scan(&i.ID, &i.Item); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, errors.Join(rows.Close(), rows.Err())
}

// sqlBook is a book in the manner of sqlc over database/sql.
type sqlBook struct {
	q       *sqlQueries
	byFirst bool // the query raise takes the amount first
}

func (b sqlBook) add(ctx context.Context, item string) (int64, error) {
	id, err := b.q.addOrder(ctx, item)
	if err != nil {
		return 0, err
	}
	found, err := b.q.listItem(ctx, item)
	return id, errors.Join(err, same(found, row{id, item}))
}

func (b sqlBook) try(ctx context.Context, fn func(book) error) error {
	if _, err := b.q.tx.ExecContext(ctx, "SAVEPOINT part"); err != nil {
		return err
	}
	if err := fn(b); err != nil {
		_, failed := b.q.tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT part")
		return errors.Join(err, failed)
	}
	_, err := b.q.tx.ExecContext(ctx, "RELEASE SAVEPOINT part")
	return err
}

func (b sqlBook) raise(ctx context.Context, item string, by int) error {
	args := []any{item, by}
	if b.byFirst {
		args = []any{by, item}
	}
	_, err := b.q.exec(ctx, b.q.raised, b.q.text.raise, args...)
	return err
}

func (b sqlBook) commit() error { return b.q.tx.Commit() }
