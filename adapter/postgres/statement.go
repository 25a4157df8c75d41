package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel/adapter/postgres/internal/pgtx"
)

// All statements that run per request have the same parameters in front
// (started, timeline, epoch) where they write, and the same columns:
//
//	kind     0 the header, 1 a swap that was written, 2 what is held
//	n        which swap, from 1
//	epoch    of the version; in the header the snapshot's xmin
//	counter  of the version
//	written  of the record; in the header the server's clock
//	expires  of the record
//	state    of the record; in the header the flags below
//	xmin     the transaction that wrote what is held
//	meta, result
//
// They have forms that can only take the indexes: a plan is kept for the
// connection's life, and may have been made while the tables were empty.
const (
	flagHere        = 1 // the server is the one that the epoch is of; else nothing was written
	flagSynchronous = 2 // commits wait for a standby
	flagStandby     = 4 // the server is none that takes writes
)

const (
	// here is one row if this server is the one that the epoch is of, and no row
	// after a restart or a promotion: then the statement writes nothing. All of it is
	// read from memory.
	sqlHere = `WITH here AS MATERIALIZED (
	SELECT clock_timestamp() AS now
	WHERE pg_postmaster_start_time() = $1::timestamptz AND left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) = $2::text)`

	// The journal's line is written by the same statement (INVARIANTS S16).
	sqlLine = `line AS (
	INSERT INTO @.journal (epoch, counter, xact, written, digest, meta)
	SELECT epoch, counter, pg_current_xact_id()::text::int8, written, digest, meta FROM done)`

	sqlDone = `SELECT 1::int2, n, epoch, counter, written, NULL::timestamptz, 0::int2, NULL::xid, NULL::bytea, NULL::bytea FROM done`

	sqlHeld = `SELECT 2::int2, n, epoch, counter, written, expires, state, xid, meta, result FROM held`

	// The header comes last, so that its clock is not behind what was written.
	sqlHeader = `SELECT 0::int2, 0::int8, pg_snapshot_xmin(pg_current_snapshot())::text::int8, 0::int8, clock_timestamp(), NULL::timestamptz,
	((@here) + CASE WHEN current_setting('synchronous_standby_names') <> '' THEN 2 ELSE 0 END
	 + CASE WHEN pg_is_in_recovery() THEN 4 ELSE 0 END)::int2, NULL::xid, NULL::bytea, NULL::bytea`

	sqlUnion = "\nUNION ALL\n"

	sqlGet = `WITH held AS (SELECT 1::int8 AS n, r.*, r.xmin AS xid FROM @.records r WHERE digest = $1::bytea)
` + sqlHeld + sqlUnion + sqlHeader

	// A duplicate finds the row before it takes a counter or a lock. An insert that
	// meets a row which its snapshot does not show gives neither done nor held.
	sqlInsert = sqlHere + `, held AS MATERIALIZED (SELECT 1::int8 AS n, r.*, r.xmin AS xid FROM @.records r WHERE digest = $4::bytea),
done AS (
	INSERT INTO @.records AS r (epoch, counter, written, expires, due, state, digest, meta, result)
	SELECT $3::int8, nextval('@.version'), now, now + $6::interval, now + $7::interval, $5::int2, $4::bytea, $8::bytea, $9::bytea
	FROM here WHERE NOT EXISTS (SELECT FROM held)
	ON CONFLICT (digest) DO NOTHING
	RETURNING 1::int8 AS n, r.epoch, r.counter, r.written, r.digest, r.meta),
` + sqlLine + "\n" + sqlDone + sqlUnion + sqlHeld + sqlUnion + sqlHeader

	sqlUpdate = sqlHere + `, done AS (
	UPDATE @.records r SET epoch = $3::int8, counter = nextval('@.version'), written = now, expires = now + $6::interval,
		due = least(r.due, now + $7::interval), state = $5::int2, meta = $8::bytea, result = $9::bytea
	FROM here WHERE r.digest = $4::bytea AND r.epoch = $10::int8 AND r.counter = $11::int8
	RETURNING 1::int8 AS n, r.epoch, r.counter, r.written, r.digest, r.meta),
` + sqlLine + `, held AS MATERIALIZED (
	SELECT 1::int8 AS n, r.*, r.xmin AS xid FROM @.records r WHERE digest = $4::bytea AND NOT EXISTS (SELECT FROM done))
` + sqlDone + sqlUnion + sqlHeld + sqlUnion + sqlHeader

	sqlInsertMany = sqlHere + `, ask AS MATERIALIZED (
	SELECT * FROM unnest($4::bytea[], $5::int2[], $6::interval[], $7::interval[], $8::bytea[], $9::bytea[])
		WITH ORDINALITY AS a (digest, state, ttl, due, meta, result, n)),
held AS MATERIALIZED (
	SELECT a.n, r.*, r.xmin AS xid FROM ask a CROSS JOIN LATERAL (SELECT r.*, r.xmin FROM @.records r WHERE r.digest = a.digest LIMIT 1) r),
done AS (
	INSERT INTO @.records AS r (epoch, counter, written, expires, due, state, digest, meta, result)
	SELECT $3::int8, nextval('@.version'), now, now + ttl, now + due, state, digest, meta, result
	FROM here, ask WHERE n NOT IN (SELECT n FROM held)
	ON CONFLICT (digest) DO NOTHING
	RETURNING r.epoch, r.counter, r.written, r.digest, r.meta),
` + sqlLine + `
SELECT 1::int2, 0::int8, epoch, counter, written, NULL::timestamptz, 0::int2, NULL::xid, digest, NULL::bytea FROM done` +
		sqlUnion + sqlHeld + sqlUnion + sqlHeader

	sqlUpdateMany = sqlHere + `, ask AS MATERIALIZED (
	SELECT * FROM unnest($4::bytea[], $5::int2[], $6::interval[], $7::interval[], $8::bytea[], $9::bytea[], $10::int8[], $11::int8[])
		WITH ORDINALITY AS a (digest, state, ttl, due, meta, result, old_epoch, old_counter, n)),
done AS (
	UPDATE @.records r SET epoch = $3::int8, counter = nextval('@.version'), written = now, expires = now + a.ttl,
		due = least(r.due, now + a.due), state = a.state, meta = a.meta, result = a.result
	FROM here, ask a WHERE r.digest = a.digest AND r.epoch = a.old_epoch AND r.counter = a.old_counter
	RETURNING a.n, r.epoch, r.counter, r.written, r.digest, r.meta),
` + sqlLine + `, held AS MATERIALIZED (
	SELECT a.n, r.*, r.xmin AS xid
	FROM (SELECT * FROM ask WHERE n NOT IN (SELECT n FROM done)) a
	CROSS JOIN LATERAL (SELECT r.*, r.xmin FROM @.records r WHERE r.digest = a.digest LIMIT 1) r)
` + sqlDone + sqlUnion + sqlHeld + sqlUnion + sqlHeader

	// What it writes needs a standby's confirmation like any other commit.
	sqlBarrier = `SELECT pg_logical_emit_message(true, 'semel', '')`
)

// statement is one of those that run per request. Its number is its name on
// connections that keep prepared statements.
type statement uint8

const (
	stmtGet statement = iota
	stmtInsert
	stmtUpdate
	stmtInsertMany
	stmtUpdateMany
	stmtBarrier
	statements
)

func (s statement) name() string { return "semel_" + string('a'+rune(s)) }

// texts gives the statements for a schema, which is quoted already.
func texts(schema string) [statements]string {
	out := [statements]string{
		stmtGet:        strings.Replace(sqlGet, "@here", "1", 1),
		stmtInsert:     sqlInsert,
		stmtUpdate:     sqlUpdate,
		stmtInsertMany: sqlInsertMany,
		stmtUpdateMany: sqlUpdateMany,
		stmtBarrier:    sqlBarrier,
	}
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "@here", "SELECT count(*) FROM here")
		out[i] = in(schema, out[i])
	}
	return out
}

// in puts the schema's name into a statement.
func in(schema, sql string) string { return strings.ReplaceAll(sql, "@.", schema+".") }

// The statements of a transaction that is the application's. They are the
// store's, with what its own connections are set up for: another database than the
// store's writes nothing, waiting for another's transaction is bounded, the commit
// goes to the disk. lock_timeout is as it was once the statement has ended, so that
// it does not bound what the application waits for.
//
// They give one row: the counter and time of what was written, if it was; the
// server's clock; the flags; then one that differs, and what is held. No row: the
// server or the database is another than the store's. Each node of a plan costs
// every transaction some microseconds to set up; so they have as few as will do.
//
// None of them reads before it inserts: at SERIALIZABLE that would conflict with
// inserts of other keys. OFFSET 0 keeps the read behind the condition.
const (
	sqlBoundServer = `pg_postmaster_start_time() = $1::timestamptz AND left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) = $2::text
		AND current_database() = $11::text`

	sqlBoundDurable = `CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', true) ELSE 'on' END`

	sqlBoundHere = `WITH here AS MATERIALIZED (
	SELECT clock_timestamp() AS now, current_setting('lock_timeout') AS patience, set_config('lock_timeout', $10::text, true) AS bounded,
		CASE WHEN @idle::text <> '' THEN set_config('idle_in_transaction_session_timeout', @idle::text, true) END AS idle,
		` + sqlBoundDurable + ` AS durable
	WHERE ` + sqlBoundServer + `),
done AS (
`

	sqlBoundInsert = `	INSERT INTO @.records AS r (epoch, counter, written, expires, due, state, digest, meta, result)
	SELECT $3::int8, nextval('@.version'), @now, @now + $6::interval, @now + $7::interval, $5::int2, $4::bytea, $8::bytea, $9::bytea
`

	sqlBoundUpdate = `	UPDATE @.records r SET epoch = $3::int8, counter = nextval('@.version'), written = @now, expires = @now + $6::interval,
		due = least(r.due, @now + $7::interval), state = $5::int2, meta = $8::bytea, result = $9::bytea
`

	sqlBoundOver = `r.digest = $4::bytea AND r.epoch = $12::int8 AND r.counter = $13::int8`

	sqlBoundDone = `
	RETURNING r.counter, r.written)`

	sqlBoundLine = `
	INSERT INTO @.journal (epoch, counter, xact, written, digest, meta)
	SELECT @epoch, @counter, pg_current_xact_id()::text::int8, @written, $4::bytea, $8::bytea FROM done`

	sqlBoundFlags = `(1 + CASE WHEN current_setting('synchronous_standby_names') <> '' THEN 2 ELSE 0 END)::int2`

	sqlBoundHeld = `SELECT r.epoch, r.counter, r.written, r.expires, r.state, r.xmin, r.meta, r.result FROM @.records r WHERE r.digest = `

	sqlBoundFirst = `,
line AS (` + sqlBoundLine + `)
SELECT d.counter, d.written, clock_timestamp(), ` + sqlBoundFlags + `, set_config('lock_timeout', h.patience, true), held.*
FROM here h LEFT JOIN done d ON true LEFT JOIN LATERAL (
	` + sqlBoundHeld + `$4::bytea AND d.counter IS NULL OFFSET 0) held ON true`

	// The last swap goes out together with COMMIT: what does not write has to fail, so
	// that the COMMIT behind it does not happen. The transaction's own end sets
	// lock_timeout back.
	sqlBoundLast = sqlBoundServer + `
		AND set_config('lock_timeout', $10::text, true) IS NOT NULL AND ` + sqlBoundDurable + ` = 'on'` + sqlBoundDone + sqlBoundLine + `
	RETURNING counter, written, clock_timestamp(), ` + sqlBoundFlags + `,
		CASE WHEN current_setting('synchronous_standby_names') <> '' THEN pg_snapshot_xmin(pg_current_snapshot())::text::int8 END`

	sqlBoundGet = `SELECT NULL::int8, NULL::timestamptz, clock_timestamp(), ` + sqlBoundFlags + `, h.*, held.*
FROM (SELECT CASE WHEN $2::text <> '' THEN set_config('idle_in_transaction_session_timeout', $2::text, true) END OFFSET 0) h LEFT JOIN (
	` + sqlBoundHeld + `$1::bytea) held ON true`
)

// boundStatement is one of the statements above.
type boundStatement uint8

const (
	boundGet boundStatement = iota
	boundInsert
	boundUpdate
	lastInsert
	lastUpdate
	boundStatements
)

// boundTexts gives the statements for a schema, which is quoted already.
func boundTexts(schema string) (out [boundStatements]pgtx.Statement) {
	first := strings.NewReplacer("@epoch", "$3::int8", "@counter", "counter", "@written", "written", "@now", "now")
	last := strings.NewReplacer("@epoch", "$3::int8 / count(*)", "@counter", "max(counter)", "@written", "max(written)", "@now", "statement_timestamp()")
	for s, text := range [boundStatements]string{
		boundGet: sqlBoundGet,
		boundInsert: strings.ReplaceAll(first.Replace(sqlBoundHere+sqlBoundInsert+"	FROM here ON CONFLICT (digest) DO NOTHING"+sqlBoundDone+sqlBoundFirst),
			"@idle", "$12"),
		boundUpdate: strings.ReplaceAll(first.Replace(sqlBoundHere+sqlBoundUpdate+"	FROM here WHERE "+sqlBoundOver+sqlBoundDone+sqlBoundFirst),
			"@idle", "$14"),
		lastInsert: last.Replace("WITH done AS (\n" + sqlBoundInsert + "	WHERE " + sqlBoundLast),
		lastUpdate: last.Replace("WITH done AS (\n" + sqlBoundUpdate + "	WHERE " + sqlBoundOver + " AND " + sqlBoundLast),
	} {
		out[s] = pgtx.NewStatement(in(schema, text))
	}
	return out
}

// call is one statement with its parameters, in binary form.
type call struct {
	statement statement
	params    [][]byte
}

// answer is what one statement came to.
type answer struct {
	rows   []row
	header row
	alone  uint64 // barrier.alone when the call was sent
}

// first is the row of a statement for one key, nil if there is none.
func (a *answer) first() *row {
	if len(a.rows) == 0 {
		return nil
	}
	return &a.rows[0]
}

func (a *answer) has(flag int16) bool { return a.header.state&flag != 0 }

// errNotReplicated: the commit's wait for a standby was cut off on the server.
var errNotReplicated = errors.New("postgres: the server gave up waiting for its standby: the write is visible there and may be lost with it")

// exec runs calls in one round trip and one transaction. If ctx ends before a
// connection is free, nothing was done. If it ends later, exec returns and the
// calls go on: a COMMIT is never cancelled (INVARIANTS T6).
func (e *engine) exec(ctx context.Context, calls ...call) ([]answer, error) {
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgres: nothing was done: %w", err)
	}
	type outcome struct {
		answers []answer
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		answers, err := e.execOn(conn, calls)
		conn.Release()
		done <- outcome{answers, err}
	}()
	select {
	case o := <-done:
		return o.answers, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("postgres: no answer yet, and nobody knows the outcome: %w", context.Cause(ctx))
	}
}

// execOn runs calls on a connection, under no context. A server that says
// nothing for too long is hung up on; nothing is cancelled by that.
func (e *engine) execOn(conn *pgxpool.Conn, calls []call) ([]answer, error) {
	c := conn.Conn().PgConn()
	before, alone := warnings(c), e.barrier.alone.Load()
	hangUp := time.AfterFunc(e.patience, func() { _ = c.Conn().Close() }) // the reader tells
	defer hangUp.Stop()
	results := c.ExecBatch(context.Background(), e.packet(calls))
	answers := make([]answer, len(calls))
	var failed error
	n := 0
	for ; results.NextResult(); n++ {
		i := n - e.lead(calls)
		if i < 0 || i >= len(calls) {
			_, err := results.ResultReader().Close()
			failed = errors.Join(failed, err)
			continue
		}
		answers[i].alone = alone
		failed = errors.Join(failed, answers[i].read(results.ResultReader()))
	}
	err := results.Close()
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	case warnings(c) != before && (calls[0].statement == stmtBarrier || answers[0].has(flagSynchronous)):
		return nil, errNotReplicated
	}
	return answers, nil
}

// lead is how many statements go before the first call.
func (e *engine) lead(calls []call) int {
	if !e.pooled || calls[0].statement == stmtGet {
		return 0
	}
	return len(e.prelude)
}

// packet puts calls into the bytes of one round trip.
func (e *engine) packet(calls []call) *pgconn.Batch {
	b := &pgconn.Batch{}
	binary := []int16{binaryFormat}
	for _, sql := range e.prelude[:e.lead(calls)] {
		b.ExecParams(sql, nil, nil, nil, nil)
	}
	for _, c := range calls {
		if e.pooled {
			b.ExecParams(e.sql[c.statement], c.params, nil, binary, binary)
		} else {
			b.ExecPrepared(c.statement.name(), c.params, binary, binary)
		}
	}
	if e.lead(calls) > 0 {
		b.ExecParams("COMMIT", nil, nil, nil, nil)
	}
	return b
}

// binaryFormat is the protocol's number for binary parameters and columns.
const binaryFormat = 1

// read takes a statement's rows. A barrier's has none that matters.
func (a *answer) read(r *pgconn.ResultReader) error {
	var failed error
	for r.NextRow() {
		values := r.Values()
		if len(values) == 1 {
			continue
		}
		got, err := parseRow(values)
		if err != nil {
			failed = err
		}
		if got.kind == 0 {
			a.header = got
		} else {
			a.rows = append(a.rows, got)
		}
	}
	_, err := r.Close()
	return errors.Join(err, failed)
}
