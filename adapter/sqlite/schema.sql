-- One row per key; it is inserted by the first claim and updated from then on. What compare-and-swap and the sweeper look at
-- stands in columns; the record itself is in meta, with a checksum over all of it, see record.go.
--
-- Rowid tables: WITHOUT ROWID took twice the time.
CREATE TABLE record (
	n       INTEGER PRIMARY KEY, -- its place: behind all others when it is claimed, and again when its result goes, so that
	                             -- rows of one age, and of one size, lie together and leave whole pages behind
	digest  BLOB NOT NULL,
	epoch   INTEGER NOT NULL,    -- of the version
	counter INTEGER NOT NULL,    -- of the version: grows by one with every write to the file
	state   INTEGER NOT NULL,    -- 1 pending, 2 done, 3 released
	due     INTEGER NOT NULL,    -- Unix time in nanoseconds: the end of the lease, or when the sweeper has to look
	meta    BLOB NOT NULL,       -- the record less its result, which it has the SHA-256 of
	result  BLOB                 -- NULL where none is kept
) STRICT;

-- The arbiter: one record per key.
CREATE UNIQUE INDEX record_digest ON record (digest);

-- For the sweeper. A pending record is never swept, so it is not in here.
CREATE INDEX record_due ON record (due) WHERE state > 1;

-- For whoever asks what is pending or in doubt. It is as small as what is under way.
CREATE INDEX record_pending ON record (counter) WHERE state = 1;

-- One row per transition, never changed. One with an empty digest marks an opening of the file for writing. Keep the newest
-- row, whatever you delete: the next counter is found there.
CREATE TABLE journal (
	n      INTEGER PRIMARY KEY, -- the counter of the version
	digest BLOB NOT NULL,
	meta   BLOB NOT NULL
) STRICT;

-- The journal by days: a row for each time that the day of a line is another than that of the line before it.
CREATE TABLE journal_day (
	n   INTEGER PRIMARY KEY, -- of that line
	day INTEGER NOT NULL     -- days since 1970, UTC
) STRICT;

-- One row. The epoch grows at each opening for writing, so that a file put back from a backup never uses a version again.
CREATE TABLE store (
	id    INTEGER PRIMARY KEY CHECK (id = 1),
	epoch INTEGER NOT NULL
) STRICT;

INSERT INTO store (id, epoch) VALUES (1, 0);
