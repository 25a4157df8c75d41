package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/bench/internal/child"
	"github.com/semelhq/semel/bench/internal/pairs"
	"github.com/semelhq/semel/bench/internal/rounds"
	"github.com/semelhq/semel/internal/server"
)

// Steps measures P13: an operation of one durable step, claimed, recorded and
// completed, against three plain statements that write as much, and the replay of
// a finished one. What the goals say of DBOS is not measured here.
func Steps(ctx context.Context, w io.Writer, programs *child.Programs, o rounds.Options) (results []rounds.Result, err error) {
	db, err := server.StartPostgres(filepath.Join(programs.Dir(), "postgres-steps"), server.PostgresOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	store, err := postgres.Open(ctx, db.URL("postgres"), postgres.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		return nil, err
	}
	plain, err := openPlain(ctx, db.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer plain.pool.Close()
	if _, err := plain.pool.Exec(ctx, `CREATE TABLE steps (digest bytea, n int, name text NOT NULL, result bytea, PRIMARY KEY (digest, n))`); err != nil {
		return nil, err
	}
	var counter pairs.Counter
	const finished = 2000
	for n := range uint64(finished) {
		if err := stepped(ctx, guard, n+1); err != nil {
			return nil, err
		}
	}
	counter.Skip(finished)
	for _, callers := range [...]int{64, 1} {
		fmt.Fprintf(w, "\nP13  PostgreSQL: claim, one recorded step, complete, against three plain autocommitted statements without a journal; and the\n"+
			"     replay of a finished operation; %d callers\n", callers)
		sides := []rounds.Side{
			counter.Side("plain", callers, func(n uint64) error { return threeStatements(plain, n) }),
			counter.Side("semel", callers, func(n uint64) error { return stepped(ctx, guard, n) }),
			counter.Side("replay", callers, func(n uint64) error { return replayed(ctx, guard, 1+n%finished) }),
		}
		log := rounds.NewLog(w, sides, 0, 0, 0)
		if err := rounds.Alternate(ctx, o, sides, log.Tell); err != nil {
			return results, err
		}
		log.Close()
		results = append(results,
			log.Result(1, rounds.Result{ID: "P13", What: fmt.Sprintf("claim, step, complete, %d callers", callers), Against: "three plain statements", Goal: 1}),
			// 20 times DBOS's 0.21, as the goals have it.
			log.Result(2, rounds.Result{ID: "P13", What: fmt.Sprintf("replay of a finished one, %d callers", callers), Against: "three plain statements", Goal: 4.2}))
	}
	return results, nil
}

// stepped is one operation of one step.
func stepped(ctx context.Context, guard *semel.Guard, n uint64) error {
	r := pairs.Record(n)
	claim, v, err := guard.Begin(ctx, semel.Ask{Key: r.Key, Fingerprint: r.Fingerprint})
	if claim == nil {
		return fmt.Errorf("operation %d was not granted: %v: %w", n, v.Reason, errors.Join(err, v.Err()))
	}
	if _, err := claim.Step(claim.Context(), "charge", func(context.Context) (semel.Result, error) {
		return semel.Result{Code: 201, Data: []byte("charge 42")}, nil
	}); err != nil {
		return errors.Join(err, claim.Doubt())
	}
	_, err = claim.Complete(semel.Result{Code: 201, Data: pairs.Finished(r).Result})
	return err
}

// replayed asks for an operation that is finished.
func replayed(ctx context.Context, guard *semel.Guard, n uint64) error {
	r := pairs.Record(n)
	answer, err := guard.Do(ctx, semel.Ask{Key: r.Key, Fingerprint: r.Fingerprint}, func(context.Context) (semel.Result, error) {
		return semel.Result{}, errors.New("a finished operation was executed")
	})
	if err == nil && (!answer.Replayed || len(answer.Data) == 0) {
		return errors.New("a replay without a result")
	}
	return err
}

// threeStatements writes what stepped does: the claim, the step, the end.
func threeStatements(p *plain, n uint64) error {
	ctx := context.Background()
	r := pairs.Record(n)
	_, err := p.pool.Exec(ctx, plainInsert, r.Digest[:], r.Fingerprint[:], int(r.State), r.Nonce[:], r.Attempt, r.Code, r.Result,
		int64(r.TTL), int64(r.Replay), r.Key.Scope, r.Key.ID, r.Owner)
	if err != nil {
		return err
	}
	if _, err := p.pool.Exec(ctx, `INSERT INTO steps (digest, n, name, result) VALUES ($1, 1, 'charge', $2)`, r.Digest[:], []byte("charge 42")); err != nil {
		return err
	}
	r = pairs.Finished(r)
	_, err = p.pool.Exec(ctx, plainUpdate, r.Digest[:], 1, int(r.State), r.Nonce[:], r.Code, r.Result, int64(r.TTL), int64(r.Replay))
	return err
}
