package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

// away is how long a round trip to the database takes in P1, beyond what it
// takes anyway.
const away = time.Millisecond

// scopeConnections is how many transactions are under way at most.
const scopeConnections = 16

// Scopes measures P1 and P2: a business insert in a scope's transaction against
// the same in one of its own.
func Scopes(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	db, err := server.StartPostgres(filepath.Join(programs.Dir(), "postgres-scopes"), server.PostgresOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	near, err := url.Parse(db.URL("postgres"))
	if err != nil {
		return nil, err
	}
	line, err := delay(near.Host, away)
	if err != nil {
		return nil, err
	}
	defer line.close()
	far := *near
	far.Host = line.address()
	for _, c := range []struct {
		id, where string
		url       string
		callers   int
		goal      float64
	}{
		{"P1", "1 ms away", far.String(), scopeConnections, 0.95},
		{"P1", "1 ms away", far.String(), 1, 0.95},
		{"P2", "on loopback", near.String(), scopeConnections, 0.8},
		{"P2", "on loopback", near.String(), 1, 0.8},
	} {
		more, err := scopes(ctx, w, o, c.url, near.String(), func(results []rounds.Result, log *rounds.Log) []rounds.Result {
			for i, variant := range [...]string{"claim first", "optimistic"} {
				results = append(results, log.Result(i+1, rounds.Result{
					ID: c.id, What: fmt.Sprintf("scope, %s, %s, %d callers", c.where, variant, c.callers), Against: "BEGIN; insert; COMMIT", Goal: c.goal,
				}))
			}
			return results
		}, fmt.Sprintf("%s  a business insert in a scope, its answer of 150 bytes stored, against BEGIN, insert, COMMIT; PostgreSQL %s, %d callers, %d connections", c.id, c.where, c.callers, scopeConnections), c.callers)
		results = append(results, more...)
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// scopes measures one line; the store is near, as its own connections are not
// what is measured.
func scopes(ctx context.Context, w io.Writer, o rounds.Options, at, near string, result func([]rounds.Result, *rounds.Log) []rounds.Result, title string, callers int) (results []rounds.Result, err error) {
	store, err := postgres.Open(ctx, near, postgres.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	config, err := pgxpool.ParseConfig(at)
	if err != nil {
		return nil, err
	}
	config.MaxConns = scopeConnections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, number bigint NOT NULL, note text NOT NULL)`); err != nil {
		return nil, err
	}
	var counter pairs.Counter
	counter.Skip(uint64(time.Now().UnixMicro())) // lines share the tables
	sides := []rounds.Side{counter.Side("plain", callers, func(n uint64) error { return inPlain(pool, n) })}
	for _, optimistic := range [...]bool{false, true} {
		scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{Policy: semel.Policy{Optimistic: optimistic}})
		if err != nil {
			return nil, err
		}
		name := map[bool]string{false: "claim first", true: "optimistic"}[optimistic]
		sides = append(sides, counter.Side(name, callers, func(n uint64) error { return inScope(scope, n) }))
	}
	fmt.Fprintf(w, "\n%s\n", title)
	for _, s := range sides { // connections, statements, plans
		if _, err := s.Measure(ctx, 300*time.Millisecond); err != nil {
			return nil, err
		}
	}
	log := rounds.NewLog(w, sides, 0, 0, 0)
	if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
		return nil, err
	}
	log.Close()
	return result(nil, log), nil
}

const insertOrder = `INSERT INTO orders (number, note) VALUES ($1, 'a payment')`

// inPlain is what one writes by hand, without any key.
func inPlain(pool *pgxpool.Pool, n uint64) error {
	ctx := context.Background()
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, insertOrder, int64(n)); err != nil {
		return errors.Join(err, tx.Rollback(ctx))
	}
	return tx.Commit(ctx)
}

// inScope is the same with a key.
func inScope(scope *postgres.Scope, n uint64) error {
	r := pairs.Record(n)
	_, err := scope.Do(context.Background(), r.Key, r.Fingerprint, func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
		_, err := tx.Exec(ctx, insertOrder, int64(n))
		return semel.Result{Code: 201, Data: pairs.Finished(r).Result}, err
	})
	return err
}
