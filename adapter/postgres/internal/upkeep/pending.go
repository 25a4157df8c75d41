package upkeep

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pending finds the records that are pending. No index has them: every completion
// would pay for it. The first search reads all records, as they lie on the disk;
// later ones read the lines of the journal that were written since, and look at
// those which they or the searches before have found. It is safe for concurrent use.
type Pending struct {
	mu    sync.Mutex
	known map[[digestSize]byte]struct{} // what was pending at the last search; nil before the first
	xact  int64                         // lines of older transactions were seen
	epoch int64                         // that the numbers of transactions are of
	at    time.Time                     // of the last search, on the server's clock
	full  time.Time                     // of the last one that read all records
}

const (
	digestSize = 32
	// fullEvery is how often all records are read again, for what a journal cannot tell
	// whose lines somebody has deleted.
	fullEvery = time.Hour
	// maxKnown bounds the memory: with more than that, all is read each time.
	maxKnown = 200_000
	// stateAt is where the state stands in meta, see semel.Entry.
	stateAt = 21
)

// Find gives the digests of pending records, in their order: all that were pending
// when it was called and still are.
func (p *Pending) Find(ctx context.Context, db *DB) ([][]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found [][]byte
	var now time.Time
	var xact, epoch int64
	all := false
	err := db.read(ctx, throughAll, func(tx pgx.Tx) error {
		// Lines of transactions that run now are read the next time, too.
		err := tx.QueryRow(ctx, db.in(`SELECT clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot())::text::int8, (SELECT max(epoch) FROM @.epochs)`)).Scan(&now, &xact, &epoch)
		if err != nil {
			return err
		}
		all = p.known == nil || epoch != p.epoch || now.Sub(p.full) > fullEvery || now.Before(p.at)
		if all {
			found, err = digests(ctx, tx, db.in(`SELECT digest FROM @.records WHERE state = 1 AND length(digest) = 32`))
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT "+byIndex); err != nil {
			return err
		}
		candidates, err := p.candidates(ctx, tx, db)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(candidates, 10_000) {
			still, err := digests(ctx, tx, db.in(`SELECT r.digest FROM unnest($1::bytea[]) AS a (digest)
				CROSS JOIN LATERAL (SELECT digest, state FROM @.records r WHERE r.digest = a.digest OFFSET 0) r WHERE r.state = 1`), part)
			if err != nil {
				return err
			}
			found = append(found, still...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.known, p.xact, p.epoch, p.at = nil, xact, epoch, now
	if all {
		p.full = now
	}
	if len(found) <= maxKnown {
		p.known = make(map[[digestSize]byte]struct{}, len(found))
		for _, d := range found {
			p.known[[digestSize]byte(d)] = struct{}{}
		}
	}
	slices.SortFunc(found, bytes.Compare)
	return found, nil
}

// candidates gives what was pending, less what the journal says has ended, and what
// it says is pending since. A line's time is that of its statement; a transaction
// that stays open for a day is found by reading all.
func (p *Pending) candidates(ctx context.Context, tx pgx.Tx, db *DB) ([][]byte, error) {
	type last struct {
		epoch, counter int64
		pending        bool
	}
	lines := map[[digestSize]byte]last{}
	err := each(ctx, tx, db.in(`SELECT digest, epoch, counter, CASE WHEN length(meta) > $3 THEN get_byte(meta, $3) ELSE 1 END FROM @.journal
		WHERE written >= $1 AND xact >= $2 AND length(digest) = 32`), func(row pgx.Rows) error {
		var digest []byte
		var l last
		var state int
		if err := row.Scan(&digest, &l.epoch, &l.counter, &state); err != nil {
			return err
		}
		l.pending = state == 1
		key := [digestSize]byte(digest)
		if old, ok := lines[key]; !ok || l.epoch > old.epoch || l.epoch == old.epoch && l.counter > old.counter {
			lines[key] = l
		}
		return nil
	}, p.at.Add(-24*time.Hour), p.xact, stateAt)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, 0, len(p.known))
	for key := range p.known {
		if _, told := lines[key]; !told {
			out = append(out, bytes.Clone(key[:]))
		}
	}
	for key, l := range lines {
		if l.pending {
			out = append(out, bytes.Clone(key[:]))
		}
	}
	return out, nil
}

func digests(ctx context.Context, tx pgx.Tx, sql string, args ...any) (out [][]byte, err error) {
	err = each(ctx, tx, sql, func(row pgx.Rows) error {
		var d []byte
		err := row.Scan(&d)
		out = append(out, d)
		return err
	}, args...)
	return out, err
}
