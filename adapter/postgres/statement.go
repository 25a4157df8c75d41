package postgres

import "strings"

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
