-- Names are not qualified: run this with search_path set to the schema of the store.
-- +goose Up

-- One row per key; the primary key is the arbiter. Not partitioned: a unique index of a table partitioned by time would
-- have to hold the time, and then one key would fit in twice.
-- What the statements compare and the sweeper looks at stands in columns; the record itself is in meta.
-- Free space in the pages lets a completion find room beside its claim, which leaves both indexes alone.
CREATE TABLE records (
	epoch   bigint      NOT NULL, -- of the version
	counter bigint      NOT NULL, -- of the version
	written timestamptz NOT NULL, -- this server's clock at the last write
	expires timestamptz NOT NULL, -- end of the lease while pending, else of the retention
	due     timestamptz NOT NULL, -- when the sweeper looks at the row: once it is finished, not after the end of its result or of itself
	state   smallint    NOT NULL, -- 1 pending, 2 done, 3 released
	digest  bytea       NOT NULL, -- SHA-256 or HMAC of scope and key
	meta    bytea       NOT NULL, -- the record less its result, with the SHA-256 of it and a checksum
	result  bytea,                -- NULL where none is kept
	CONSTRAINT records_pkey PRIMARY KEY (digest)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- For the sweeper, who looks at a row when its result has served its time, and when its key has. A write moves its entry
-- only if a record turns out to be due sooner than it was thought to; 'infinity' is one that the sweeper has met pending.
CREATE INDEX records_due ON records (due);

-- One line per swap, written by the statement of the swap. Days are partitions, made ahead by the stores; what finds
-- no day goes to the default, so that a swap never fails for want of one. Drop old days as you like.
CREATE TABLE journal (
	epoch   bigint      NOT NULL,
	counter bigint      NOT NULL,
	xact    bigint      NOT NULL, -- the writing transaction: lines become visible in no order, see Store.Tail
	written timestamptz NOT NULL,
	digest  bytea       NOT NULL,
	meta    bytea       NOT NULL
) PARTITION BY RANGE (written);

-- Whoever tails goes by xact, who reads a day by counter, who reads a key by digest.
CREATE INDEX journal_brin ON journal USING brin
	(epoch, counter, xact, written, digest bytea_bloom_ops (n_distinct_per_range = 500)) WITH (pages_per_range = 16);

-- Vacuum has the index know what was appended; what it does not know is read through each time.
CREATE TABLE journal_default PARTITION OF journal DEFAULT
	WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

-- Gives the counters of versions. Cache 1: every counter that is given is greater than all given before.
CREATE SEQUENCE version AS bigint CACHE 1;

-- One row each time that the server behind the store is another than before: restarted, promoted, or restored, when the
-- sequence may have gone back. The newest row is the epoch of new versions.
CREATE TABLE epochs (
	epoch       bigint      NOT NULL PRIMARY KEY,
	system      bigint      NOT NULL, -- system identifier of the cluster
	timeline    text        NOT NULL,
	started     timestamptz NOT NULL, -- start of the server
	relation    oid         NOT NULL, -- of records: another after a dump was put back
	since       timestamptz NOT NULL,
	synchronous boolean     NOT NULL, -- whether commits wait for a standby
	lost_after  timestamptz,          -- if acknowledged keys may be missing: those written after this
	quarantined timestamptz           -- until then a key that may be one of those is refused; set to now() to end that
);

-- One row: which of these files were run.
CREATE TABLE schema_version (version integer NOT NULL);
INSERT INTO schema_version (version) VALUES (1);

-- +goose Down
DROP TABLE schema_version;
DROP TABLE epochs;
DROP SEQUENCE version;
DROP TABLE journal;
DROP TABLE records;
