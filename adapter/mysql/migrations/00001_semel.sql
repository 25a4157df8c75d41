-- +goose Up
-- Every statement can be run again: MySQL commits each by itself, so a run that was cut short is run once more.

-- One row per key; the primary key is the arbiter. Not partitioned: a unique index of a table partitioned by time would
-- have to hold the time, and then one key would fit in twice. There is no other unique index, since checking one would
-- lock the gaps between its rows.
-- What the statements compare and the sweeper looks at stands in columns; the record itself is in meta.
-- A finished record is due at the end of its replay if it keeps a result, then at that of its retention. What is pending is
-- found in the same index, under NULL, by digest.
CREATE TABLE IF NOT EXISTS semel_record (
	digest  BINARY(32)       NOT NULL, -- SHA-256 or HMAC of scope and key; binary, so that no collation makes two keys one
	epoch   BIGINT UNSIGNED  NOT NULL, -- of the version
	counter BIGINT UNSIGNED  NOT NULL, -- of the version: one more with each write of the record
	written BIGINT           NOT NULL, -- this server's clock at the last write: Unix microseconds
	due     BIGINT           NULL,     -- when the sweeper looks at it: Unix microseconds, NULL while it is pending
	state   TINYINT UNSIGNED NOT NULL, -- 1 pending, 2 done, 3 released
	meta    MEDIUMBLOB       NOT NULL, -- the record less its result, with the SHA-256 of it and a checksum
	result  LONGBLOB         NULL,     -- NULL where none is kept
	PRIMARY KEY (digest),
	KEY semel_record_due (due)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- One line per swap, written in the swap's transaction. Days are partitions, made ahead by the stores; what finds no day
-- goes to the last, so that a swap never fails for want of one. Drop old days as you like.
CREATE TABLE IF NOT EXISTS semel_journal (
	n       BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	written BIGINT          NOT NULL, -- this server's clock: Unix microseconds
	digest  BINARY(32)      NOT NULL,
	meta    MEDIUMBLOB      NOT NULL,
	PRIMARY KEY (n, written)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
PARTITION BY RANGE (written) (PARTITION rest VALUES LESS THAN MAXVALUE);

-- One row. The epoch is the first half of every new version. It grows when a store is opened and writes, and whenever the
-- server behind it is another than before: restarted, promoted or restored. What is deleted had counters up to the floor;
-- a key that comes again starts above it.
CREATE TABLE IF NOT EXISTS semel_store (
	id    TINYINT UNSIGNED NOT NULL,
	epoch BIGINT UNSIGNED  NOT NULL,
	floor BIGINT UNSIGNED  NOT NULL,
	run   BINARY(16)       NOT NULL, -- the server's identity while it runs
	PRIMARY KEY (id)
) ENGINE=InnoDB;

INSERT INTO semel_store (id, epoch, floor, run)
SELECT 1, 0, 0, x'00000000000000000000000000000000' FROM (SELECT 1) one WHERE NOT EXISTS (SELECT 1 FROM semel_store);

-- One row. A store counts in it only to have the server flush its log (see flush.go): what others had committed before is
-- then on the disk, too.
CREATE TABLE IF NOT EXISTS semel_flush (
	id TINYINT UNSIGNED NOT NULL,
	n  BIGINT UNSIGNED  NOT NULL,
	PRIMARY KEY (id)
) ENGINE=InnoDB;

INSERT INTO semel_flush (id, n)
SELECT 1, 0 FROM (SELECT 1) one WHERE NOT EXISTS (SELECT 1 FROM semel_flush);

-- One row for each of these files that was run to its end.
CREATE TABLE IF NOT EXISTS semel_schema (version INT UNSIGNED NOT NULL, PRIMARY KEY (version)) ENGINE=InnoDB;

INSERT INTO semel_schema (version)
SELECT 1 FROM (SELECT 1) one WHERE NOT EXISTS (SELECT 1 FROM semel_schema WHERE version = 1);

-- +goose Down
DROP TABLE IF EXISTS semel_schema;
DROP TABLE IF EXISTS semel_flush;
DROP TABLE IF EXISTS semel_store;
DROP TABLE IF EXISTS semel_journal;
DROP TABLE IF EXISTS semel_record;
