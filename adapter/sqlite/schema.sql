-- Records and journal in one table, because a page is what the disk is given: a swap's record and its line of the journal
-- have neighbouring numbers, so they lie on one page and a commit writes that once.
--
-- A record has one row per key; the row is inserted by the first claim and updated from then on. What compare-and-swap and
-- the sweeper look at stands in columns; the record itself is in meta, with a checksum over all of it, see record.go.
-- A line of the journal is one row per transition, never changed, of digest and meta alone. A line with an empty digest
-- marks an opening of the file for writing.
--
-- A rowid table: WITHOUT ROWID took twice the time.
CREATE TABLE entry (
	n       INTEGER PRIMARY KEY, -- line of the journal: 2 * counter; record: 2 * counter + 1, of its first version
	kind    INTEGER NOT NULL,    -- 0 line of the journal, 1 record; never changed, so that an update leaves its index alone
	digest  BLOB NOT NULL,
	epoch   INTEGER,             -- of the version; NULL in a line of the journal, as is all that follows but meta
	counter INTEGER,             -- of the version: grows by one with every write to the file
	state   INTEGER,             -- 1 pending, 2 done, 3 released
	expires INTEGER,             -- Unix time in nanoseconds: the end of the lease, or of the retention
	meta    BLOB NOT NULL,       -- the record less its result, which it has the SHA-256 of
	result  BLOB                 -- NULL where none is kept
) STRICT;

-- The arbiter: one record per key.
CREATE UNIQUE INDEX entry_digest ON entry (digest) WHERE kind = 1;

-- For the sweeper. A pending record is never swept, so it is not in here and a claim does not pay for it.
CREATE INDEX entry_expires ON entry (expires) WHERE state > 1;

-- For people. If you ever delete old lines of the journal, keep the newest: the next counter is found there.
CREATE VIEW record AS SELECT digest, epoch, counter, state, expires, meta, result FROM entry WHERE kind = 1;
CREATE VIEW journal AS SELECT n / 2 AS counter, digest, meta FROM entry WHERE kind = 0;

-- One row. The epoch grows at each opening for writing, so that a file put back from a backup never uses a version again.
CREATE TABLE store (
	id    INTEGER PRIMARY KEY CHECK (id = 1),
	epoch INTEGER NOT NULL
) STRICT;

INSERT INTO store (id, epoch) VALUES (1, 0);
