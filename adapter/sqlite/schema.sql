-- One row per key. What compare-and-swap and the sweeper look at stands in columns; the record itself is in meta, with a
-- checksum over all of it, see record.go. A rowid table: WITHOUT ROWID took twice the time.
CREATE TABLE record (
	digest  BLOB    NOT NULL PRIMARY KEY,
	epoch   INTEGER NOT NULL, -- of the version
	counter INTEGER NOT NULL, -- of the version; the seq of the journal's row
	state   INTEGER NOT NULL, -- 1 pending, 2 done, 3 released
	expires INTEGER NOT NULL, -- Unix time in nanoseconds: the end of the lease, or of the retention
	meta    BLOB    NOT NULL, -- the record less its result
	result  BLOB              -- NULL where none is kept
) STRICT;

-- For the sweeper. A pending record is never swept, so it is not in here and a claim does not pay for it.
CREATE INDEX record_expires ON record (expires) WHERE state <> 1;

-- One row per transition, written in the same transaction. A row with an empty digest marks an opening of the file for
-- writing. The next version's counter is one more than the largest seq, so keep the newest row if you ever delete old ones.
CREATE TABLE journal (
	seq    INTEGER PRIMARY KEY,
	digest BLOB NOT NULL,
	meta   BLOB NOT NULL -- as in record; it holds the SHA-256 of the result
) STRICT;

-- One row. The epoch grows at each opening for writing, so that a file put back from a backup never uses a version again.
CREATE TABLE store (
	id    INTEGER PRIMARY KEY CHECK (id = 1),
	epoch INTEGER NOT NULL
) STRICT;

INSERT INTO store (id, epoch) VALUES (1, 0);
