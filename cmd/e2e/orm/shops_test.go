package orm

import (
	"context"
	"database/sql"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	gormmysql "gorm.io/driver/mysql"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/adapter/postgres"
)

// conns is the size of an application's pool: as many as run operations at once,
// and none to spare (INVARIANTS T8).
const conns = 2

// fatal ends the test if there is an error.
func fatal(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// closes closes c when the test ends.
func closes(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// counter counts on a pool of its own.
func counter(t *testing.T, db *sql.DB, err error) func(t *testing.T, query string) int {
	t.Helper()
	fatal(t, err)
	closes(t, db)
	return func(t *testing.T, query string) int {
		t.Helper()
		var n int
		fatal(t, db.QueryRowContext(t.Context(), query).Scan(&n))
		return n
	}
}

func databaseName(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "_", ",", "_", "#", "_", "-", "_").Replace(t.Name()))
}

// Postgres.

func postgresDatabase(t *testing.T) (url string, store *postgres.Store) {
	t.Helper()
	server := servers.Postgres(t)
	admin, err := pgx.Connect(t.Context(), server.URL("postgres"))
	fatal(t, err)
	name := databaseName(t)
	_, err = admin.Exec(t.Context(), `CREATE DATABASE "`+name+`"`)
	fatal(t, err, admin.Close(t.Context()))
	url = server.URL(name)
	store, err = postgres.Open(t.Context(), url, postgres.Options{})
	fatal(t, err)
	closes(t, store)
	return url, store
}

const ordersPostgres = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL UNIQUE, amount int NOT NULL DEFAULT 0)"

const emptyPostgres = "TRUNCATE orders RESTART IDENTITY"

func pgxShop(t *testing.T) *shop {
	url, store := postgresDatabase(t)
	config, err := pgxpool.ParseConfig(url)
	fatal(t, err)
	config.MaxConns = conns
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	fatal(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), ordersPostgres)
	fatal(t, err)
	scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{})
	fatal(t, err)
	plain, err := sql.Open("pgx", url)
	return &shop{
		do: func(ctx context.Context, key semel.Key, fp semel.Fingerprint, op operation) (semel.Answer, error) {
			return scope.Do(ctx, key, fp, func(ctx context.Context, tx pgx.Tx) (semel.Result, error) { return op(ctx, pgxBook{tx}) })
		},
		guard: scope.Guard(), store: store, count: counter(t, plain, err),
		empty: func(ctx context.Context) error {
			_, err := pool.Exec(ctx, emptyPostgres)
			return err
		},
	}
}

// sqlScope is what the scopes over database/sql have in common.
type sqlScope interface {
	Guard() *semel.Guard
	Do(ctx context.Context, key semel.Key, fp semel.Fingerprint, fn func(ctx context.Context, tx *sql.Tx) (semel.Result, error)) (semel.Answer, error)
}

// place is a database for it.
type place struct {
	store    semel.Store
	db       *sql.DB
	count    func(t *testing.T, query string) int
	emptying string
}

// overSQL is a shop over a scope of database/sql.
func overSQL(scope sqlScope, p place, write func(ctx context.Context, tx *sql.Tx) book) *shop {
	return &shop{
		do: func(ctx context.Context, key semel.Key, fp semel.Fingerprint, op operation) (semel.Answer, error) {
			return scope.Do(ctx, key, fp, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) { return op(ctx, write(ctx, tx)) })
		},
		guard: scope.Guard(), store: p.store, count: p.count,
		empty: func(ctx context.Context) error {
			_, err := p.db.ExecContext(ctx, p.emptying)
			return err
		},
	}
}

func postgresSQL(t *testing.T) (*postgres.SQLScope, place) {
	t.Helper()
	url, store := postgresDatabase(t)
	db, err := postgres.OpenDB(url)
	fatal(t, err)
	closes(t, db)
	db.SetMaxOpenConns(conns)
	_, err = db.ExecContext(t.Context(), ordersPostgres)
	fatal(t, err)
	scope, err := postgres.NewSQLScope(store, db, postgres.SQLScopeOptions{})
	fatal(t, err)
	plain, err := sql.Open("pgx", url)
	return scope, place{store, db, counter(t, plain, err), emptyPostgres}
}

func sqlcPostgres(t *testing.T) *shop {
	scope, p := postgresSQL(t)
	q := &sqlQueries{db: p.db, text: &texts{addOrderPostgres, listItemPostgres, raisePostgres}}
	return overSQL(scope, p, func(_ context.Context, tx *sql.Tx) book { return sqlBook{q.withTx(tx), false} })
}

func preparedPostgres(t *testing.T) *shop {
	scope, p := postgresSQL(t)
	q, err := prepare(t.Context(), p.db, &texts{addOrderPostgres, listItemPostgres, raisePostgres})
	fatal(t, err)
	return overSQL(scope, p, func(_ context.Context, tx *sql.Tx) book { return sqlBook{q.withTx(tx), false} })
}

func gormPostgres(t *testing.T) *shop {
	scope, p := postgresSQL(t)
	g := openGorm(t, gormpostgres.New(gormpostgres.Config{Conn: p.db}), gorm.Config{SkipDefaultTransaction: true})
	return overSQL(scope, p, func(ctx context.Context, tx *sql.Tx) book { return gormBook{in(ctx, g, tx)} })
}

// MariaDB.

const ordersMariaDB = "CREATE TABLE orders (id bigint AUTO_INCREMENT PRIMARY KEY, item varchar(50) NOT NULL UNIQUE, amount int NOT NULL DEFAULT 0)"

func mariadbSQL(t *testing.T) (*mysql.Scope, place) {
	t.Helper()
	server := servers.MariaDB(t)
	name := databaseName(t)
	fatal(t, server.CreateDatabase(name))
	url := server.URL(name)
	store, err := mysql.Open(t.Context(), url, mysql.Options{})
	fatal(t, err)
	closes(t, store)
	db, err := mysql.OpenDB(url)
	fatal(t, err)
	closes(t, db)
	db.SetMaxOpenConns(conns)
	_, err = db.ExecContext(t.Context(), ordersMariaDB)
	fatal(t, err)
	scope, err := mysql.NewScope(store, db, mysql.ScopeOptions{})
	fatal(t, err)
	plain, err := mysql.OpenDB(url)
	return scope, place{store, db, counter(t, plain, err), "TRUNCATE TABLE orders"}
}

func sqlcMariaDB(t *testing.T) *shop {
	scope, p := mariadbSQL(t)
	q := &sqlQueries{db: p.db, text: &texts{addOrderMariaDB, listItemMariaDB, raiseMariaDB}}
	return overSQL(scope, p, func(_ context.Context, tx *sql.Tx) book { return sqlBook{q.withTx(tx), true} })
}

func preparedMariaDB(t *testing.T) *shop {
	scope, p := mariadbSQL(t)
	q, err := prepare(t.Context(), p.db, &texts{addOrderMariaDB, listItemMariaDB, raiseMariaDB})
	fatal(t, err)
	return overSQL(scope, p, func(_ context.Context, tx *sql.Tx) book { return sqlBook{q.withTx(tx), true} })
}

func gormMariaDB(t *testing.T) *shop {
	scope, p := mariadbSQL(t)
	g := openGorm(t, gormmysql.New(gormmysql.Config{Conn: p.db}), gorm.Config{SkipDefaultTransaction: true})
	return overSQL(scope, p, func(ctx context.Context, tx *sql.Tx) book { return gormBook{in(ctx, g, tx)} })
}

// gormInPlace opens GORM in each operation, over its transaction, with its
// defaults: it then finds out the server's version, and tries to begin
// transactions of its own.
func gormInPlace(t *testing.T) *shop {
	scope, p := mariadbSQL(t)
	return overSQL(scope, p, func(_ context.Context, tx *sql.Tx) book {
		return gormBook{openGorm(t, gormmysql.New(gormmysql.Config{Conn: tx}), gorm.Config{TranslateError: true})}
	})
}

// gormPrepared has GORM prepare its statements, in the pool and in transactions.
func gormPrepared(t *testing.T) *shop {
	scope, p := mariadbSQL(t)
	g := openGorm(t, gormmysql.New(gormmysql.Config{Conn: p.db}), gorm.Config{PrepareStmt: true})
	return overSQL(scope, p, func(ctx context.Context, tx *sql.Tx) book {
		return gormBook{in(ctx, g, tx).Session(&gorm.Session{PrepareStmt: true})}
	})
}
