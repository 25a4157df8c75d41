package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations gives the migrations as files in goose's format, for those who run
// their own: in the order of their names, with search_path set to the store's
// schema.
func Migrations() fs.FS {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("postgres: " + err.Error()) // the directory is embedded above
	}
	return files
}

// Migrate brings the schema of the store to what this package needs, and makes
// it if it is not there. It is one transaction under a lock: run it twice, or
// on two machines at once, and the second has nothing to do. Of Options it uses
// Schema and Pooler.
func Migrate(ctx context.Context, url string, o Options) error {
	e, err := connect(ctx, url, o.filled())
	if err != nil {
		return err
	}
	defer e.pool.Close()
	return e.explain("migrate", e.migrate(ctx))
}

// migration is one file.
type migration struct {
	version int
	name    string
	up      string
}

// all gives the migrations in order.
func all() ([]migration, error) {
	entries, err := fs.ReadDir(Migrations(), ".")
	if err != nil {
		return nil, err
	}
	out := make([]migration, 0, len(entries))
	for _, entry := range entries {
		text, err := fs.ReadFile(Migrations(), entry.Name())
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(entry.Name(), "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("postgres: the migration %s has no number: %w", entry.Name(), err)
		}
		_, up, _ := strings.Cut(string(text), "-- +goose Up")
		up, _, _ = strings.Cut(up, "-- +goose Down")
		out = append(out, migration{version, entry.Name(), up})
	}
	return out, nil
}

func (e *engine) migrate(ctx context.Context) error {
	files, err := all()
	if err != nil {
		return err
	}
	return e.transact(ctx, func(tx pgx.Tx) error {
		if err := e.lock(ctx, tx, "migrate"); err != nil {
			return err
		}
		have, err := e.schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		if last := files[len(files)-1].version; have > last {
			return errNewer(e.options.Schema, have, last)
		}
		if have == nothing {
			if err := e.makeSchema(ctx, tx); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "SET LOCAL search_path TO "+e.schema); err != nil {
			return err
		}
		for _, m := range files {
			if m.version <= have {
				continue
			}
			if _, err := tx.Exec(ctx, m.up, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
			if _, err := tx.Exec(ctx, "UPDATE schema_version SET version = $1", m.version); err != nil {
				return err
			}
		}
		return nil
	})
}

// makeSchema makes the schema, unless the administrator has done so: who may
// use a schema need not be allowed to make one.
func (e *engine) makeSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", e.options.Schema).Scan(&there); err != nil || there {
		return err
	}
	_, err := tx.Exec(ctx, "CREATE SCHEMA "+e.schema)
	return err
}

// query is what a pool and a transaction have in common.
type query interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// nothing is the version of a schema that holds nothing, or is not there.
const nothing = -1

// schemaVersion tells which migrations were run.
func (e *engine) schemaVersion(ctx context.Context, q query) (int, error) {
	var tables, ours int
	err := q.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE relname = 'schema_version')
		FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'S')`, e.options.Schema).Scan(&tables, &ours)
	switch {
	case err != nil:
		return 0, err
	case tables == 0:
		return nothing, nil
	case ours == 0:
		return 0, fmt.Errorf("the schema %s holds tables of another application: take another database, or in a program of your own another Options.Schema; it was not changed", e.schema)
	}
	var version int
	err = q.QueryRow(ctx, e.in("SELECT max(version) FROM @.schema_version")).Scan(&version)
	return version, err
}

func errNewer(schema string, have, know int) error {
	return fmt.Errorf("the schema %q is of a newer Semel (version %d, this one knows %d): run that one, or put a backup back", schema, have, know)
}

// findSchema refuses a schema that is not the one the statements are for, and
// makes it where there is nothing.
func (e *engine) findSchema(ctx context.Context) error {
	files, err := all()
	if err != nil {
		return err
	}
	know := files[len(files)-1].version
	have, err := e.schemaVersion(ctx, e.pool)
	if err == nil && have == nothing {
		if err := e.migrate(ctx); err != nil {
			return fmt.Errorf("the database has no schema %s yet, and making it failed; have its owner run `semel migrate`: %w", e.schema, err)
		}
		have, err = e.schemaVersion(ctx, e.pool)
	}
	switch {
	case err != nil:
		return err
	case have > know:
		return errNewer(e.options.Schema, have, know)
	case have < know:
		return fmt.Errorf("the schema %s is of an older Semel (version %d, this one needs %d): run `semel migrate`", e.schema, have, know)
	}
	e.server.ready.Store(true)
	e.pool.Reset() // the connections so far have prepared nothing
	return nil
}

// transact runs fn in a transaction at READ COMMITTED.
func (e *engine) transact(ctx context.Context, fn func(tx pgx.Tx) error) error {
	tx, err := e.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, ignoreClosed(tx.Rollback(context.WithoutCancel(ctx))))
	}
	return tx.Commit(ctx)
}

// ignoreClosed drops what a rollback says after its connection was lost: the
// server has rolled back, and what was lost is told already.
func ignoreClosed(err error) error {
	if errors.Is(err, pgx.ErrTxClosed) {
		return nil
	}
	return err
}

// lock has the stores of one schema go one after the other, until the
// transaction ends.
func (e *engine) lock(ctx context.Context, tx pgx.Tx, what string) error {
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "semel "+e.options.Schema+" "+what)
	return err
}

// daysAhead is for how many days from today there is a partition.
const daysAhead = 4

// makeDays makes the journal's partitions for today and some days more. A
// table is attached, not made in place: that lets swaps go on. A user who does
// not own the journal cannot; its lines then go to the default partition.
func (e *engine) makeDays(ctx context.Context) error {
	var today time.Time
	var missing []int
	rows, err := e.pool.Query(ctx, e.in(`SELECT n, (now() AT TIME ZONE 'UTC')::date FROM generate_series(0, $1::int4) n
		WHERE to_regclass('@.journal_' || to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD')) IS NULL ORDER BY n`), daysAhead)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n, &today); err != nil {
			return err
		}
		missing = append(missing, n)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	days := make([]time.Time, len(missing))
	for i, n := range missing {
		days[i] = today.AddDate(0, 0, n)
	}
	if len(days) == 0 || e.attach(ctx, days...) == nil {
		return nil
	}
	for _, day := range days {
		err := e.attach(ctx, day)
		var said *pgconn.PgError
		switch {
		case err == nil:
		case !errors.As(err, &said):
			return err
		case said.Code == "42501":
			return errNotOwner
		case said.Code == "23514", said.Code == "55P03", said.Code == "42P07", said.Code == "40P01":
			// The default partition has lines of that day, or somebody reads the journal
			// for long, or another store was quicker: the day stays as it is.
		default:
			return err
		}
	}
	return nil
}

// errNotOwner: the journal is not this user's. That weakens nothing.
var errNotOwner = errors.New("postgres: the user does not own the journal")

// attach makes partitions for days, all or none.
func (e *engine) attach(ctx context.Context, days ...time.Time) error {
	const bound = "2006-01-02 00:00:00Z"
	return e.transact(ctx, func(tx pgx.Tx) error {
		if err := e.lock(ctx, tx, "days"); err != nil {
			return err
		}
		for _, day := range days {
			name := "@.journal_" + day.Format("20060102")
			var there bool
			if err := tx.QueryRow(ctx, e.in(fmt.Sprintf("SELECT to_regclass('%s') IS NOT NULL", name))).Scan(&there); err != nil {
				return err
			}
			if there {
				continue
			}
			statements := fmt.Sprintf(`SET LOCAL lock_timeout = '2s'; CREATE TABLE %[1]s (LIKE @.journal INCLUDING DEFAULTS)
					WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
				ALTER TABLE @.journal ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s') TO ('%[3]s')`, name, day.Format(bound), day.AddDate(0, 0, 1).Format(bound))
			if _, err := tx.Exec(ctx, e.in(statements), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep looks after what changes while a store is open.
type keep struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// keepEvery is how often.
const keepEvery = 30 * time.Second

func startKeeping(e *engine) *keep {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keep{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-e.untidy:
			}
			e.tidy(ctx)
		}
	}()
	return k
}

func (k *keep) stop() {
	k.cancel()
	<-k.ended
}

// tidy makes days, and looks after the epoch's row. What fails now is tried
// again; the swaps do without.
func (e *engine) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = e.makeDays(ctx)
	e.refreshEpoch(ctx, e.epoch.current.Load())
}
