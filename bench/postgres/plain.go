package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel/bench/internal/pairs"
)

// plain is what one writes by hand: a table, an INSERT that fails for a
// duplicate, an UPDATE that looks at the version, each a transaction of its own,
// prepared, over a pool of connections. There is no journal.
type plain struct{ pool *pgxpool.Pool }

// plainConnections is where more connections no longer made the plain side
// faster.
const plainConnections = 64

const (
	plainTable = `CREATE TABLE IF NOT EXISTS plain (
		digest bytea PRIMARY KEY, fingerprint bytea NOT NULL, state int NOT NULL, version bigint NOT NULL,
		nonce bytea NOT NULL, attempt int NOT NULL, code int NOT NULL, result bytea, written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
		ttl bigint NOT NULL, replay bigint NOT NULL, scope text NOT NULL, id text NOT NULL, owner text NOT NULL) WITH (fillfactor = 70)`
	plainInsert = `INSERT INTO plain (digest, fingerprint, state, version, nonce, attempt, code, result, ttl, replay, scope, id, owner)
		VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
	plainUpdate = `UPDATE plain SET state = $3, version = version + 1, nonce = $4, code = $5, result = $6, written_at = clock_timestamp(), ttl = $7, replay = $8
		WHERE digest = $1 AND version = $2`
)

func openPlain(ctx context.Context, url string) (*plain, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = plainConnections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, plainTable); err != nil {
		pool.Close()
		return nil, err
	}
	return &plain{pool}, nil
}

// pair is a claim and a completion.
func (p *plain) pair(n uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := pairs.Record(n)
	_, err := p.pool.Exec(ctx, plainInsert, r.Digest[:], r.Fingerprint[:], int(r.State), r.Nonce[:], r.Attempt, r.Code, r.Result,
		int64(r.TTL), int64(r.Replay), r.Key.Scope, r.Key.ID, r.Owner)
	if err != nil {
		return err
	}
	r = pairs.Finished(r)
	tag, err := p.pool.Exec(ctx, plainUpdate, r.Digest[:], 1, int(r.State), r.Nonce[:], r.Code, r.Result, int64(r.TTL), int64(r.Replay))
	if err != nil || tag.RowsAffected() != 1 {
		return fmt.Errorf("plain: %d rows were completed: %w", tag.RowsAffected(), errors.Join(err))
	}
	return nil
}
