package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/bench/internal/pairs"
)

// plain is what one writes by hand: a table, an INSERT that fails for a
// duplicate, an UPDATE that looks at the version; each statement a transaction
// of its own. It has the same driver and pragmas as the store. One connection,
// because SQLite has one writer: more of them only wait for each other's locks.
type plain struct {
	db             *sql.DB
	insert, update *sql.Stmt
}

const (
	plainTable = `CREATE TABLE IF NOT EXISTS keys (
		digest BLOB NOT NULL PRIMARY KEY, fingerprint BLOB NOT NULL, state INTEGER NOT NULL, version INTEGER NOT NULL,
		nonce BLOB NOT NULL, attempt INTEGER NOT NULL, code INTEGER NOT NULL, result BLOB, written_at INTEGER NOT NULL,
		ttl INTEGER NOT NULL, replay INTEGER NOT NULL, scope TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL)`
	plainInsert = `INSERT INTO keys (digest, fingerprint, state, version, nonce, attempt, code, result, written_at, ttl, replay, scope, id, owner)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	plainUpdate = `UPDATE keys SET state = ?, version = version + 1, nonce = ?, code = ?, result = ?, written_at = ?, ttl = ?, replay = ?
		WHERE digest = ? AND version = ?`
)

func openPlain(path string) (*plain, error) {
	query := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-131072)", "wal_autocheckpoint(16384)", "temp_store(MEMORY)",
	}}
	db, err := sql.Open("sqlite", "file:"+path+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	p := &plain{db: db}
	_, err = db.Exec(plainTable)
	if err == nil {
		p.insert, err = db.Prepare(plainInsert)
	}
	if err == nil {
		p.update, err = db.Prepare(plainUpdate)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return p, nil
}

// fill inserts finished records, many in one transaction.
func (p *plain) fill(from, to int) error {
	tx, err := p.db.Begin()
	if err != nil {
		return err
	}
	for n := from; n < to; n++ {
		if err := p.claim(tx.Stmt(p.insert), pairs.Finished(pairs.Record(uint64(n)))); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (p *plain) claim(insert *sql.Stmt, r semel.Record) error {
	_, err := insert.ExecContext(context.Background(), r.Digest[:], r.Fingerprint[:], int64(r.State), int64(1), r.Nonce[:], int64(r.Attempt),
		int64(r.Code), r.Result, time.Now().UnixNano(), int64(r.TTL), int64(r.Replay), r.Key.Scope, r.Key.ID, r.Owner)
	return err
}

// pair is a claim and a completion.
func (p *plain) pair(n uint64) error {
	r := pairs.Record(n)
	if err := p.claim(p.insert, r); err != nil {
		return err
	}
	r = pairs.Finished(r)
	result, err := p.update.ExecContext(context.Background(), int64(r.State), r.Nonce[:], int64(r.Code), r.Result, time.Now().UnixNano(),
		int64(r.TTL), int64(r.Replay), r.Digest[:], int64(1))
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err != nil || rows != 1 {
		return fmt.Errorf("plain: %d rows were completed: %w", rows, errors.Join(err))
	}
	return nil
}
