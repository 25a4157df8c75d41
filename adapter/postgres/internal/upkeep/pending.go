package upkeep

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pending finds the records that are pending. No index has them: every completion
// would pay for it. The first search reads all records, as they lie on the disk;
// later ones read the lines of the journal that were written since, and look at
// those which they or the searches before have found. The zero value is ready; it
// is safe for concurrent use.
type Pending struct {
	mu    sync.Mutex
	known map[[digestSize]byte]struct{} // what was pending at the last search; nil before the first
	xact  int64                         // lines of older transactions were seen
	epoch int64                         // that the numbers of transactions are of
	at    time.Time                     // of the last search, on the server's clock
	full  time.Time                     // of the last one that read all records
	// reading is under way; it goes on when its callers have gone, since on a large
	// table it takes longer than any of them may wait.
	reading *reading
	stopped bool
}

// reading is one that reads all records.
type reading struct {
	done   chan struct{}
	cancel context.CancelFunc
	found  [][]byte
	err    error
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
// when it was called and still are. If ctx ends while all records are read, that goes
// on, and a later call finds what it came to.
func (p *Pending) Find(ctx context.Context, db *DB) ([][]byte, error) {
	for {
		found, is, err := p.follow(ctx, db)
		if is || err != nil {
			return found, err
		}
		r, err := p.readAll(ctx, db)
		if err != nil {
			return nil, err
		}
		if len(r.found) > maxKnown {
			return r.found, nil
		}
	}
}

// Stop ends what is under way.
func (p *Pending) Stop() {
	p.mu.Lock()
	p.stopped = true
	r := p.reading
	p.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// readAll waits for a reading of all records, and begins one if there is none.
func (p *Pending) readAll(ctx context.Context, db *DB) (*reading, error) {
	p.mu.Lock()
	r := p.reading
	switch {
	case p.stopped:
		p.mu.Unlock()
		return nil, context.Canceled
	case r == nil:
		r = &reading{done: make(chan struct{})}
		var within context.Context
		within, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
		p.reading = r
		go p.through(within, db, r)
	}
	p.mu.Unlock()
	select {
	case <-r.done:
		return r, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("all records are still being read, once, for those that are pending; ask again: %w", context.Cause(ctx))
	}
}

// through reads all records.
func (p *Pending) through(ctx context.Context, db *DB, r *reading) {
	defer close(r.done)
	defer r.cancel()
	var h horizon
	r.err = db.read(ctx, throughAll, func(tx pgx.Tx) (err error) {
		if h, err = db.horizon(ctx, tx); err == nil {
			r.found, err = digests(ctx, tx, db.in(`SELECT digest FROM @.records WHERE state = 1 AND length(digest) = 32`))
		}
		return err
	})
	slices.SortFunc(r.found, bytes.Compare)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading = nil
	if r.err == nil {
		p.keep(r.found, h)
		p.full = h.now
	}
}

// horizon is how far the journal can be read: lines of transactions that run now are
// read the next time, too.
type horizon struct {
	now         time.Time
	xact, epoch int64
}

func (db *DB) horizon(ctx context.Context, tx pgx.Tx) (h horizon, err error) {
	err = tx.QueryRow(ctx, db.in(`SELECT clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot())::text::int8, (SELECT max(epoch) FROM @.epochs)`)).
		Scan(&h.now, &h.xact, &h.epoch)
	return h, err
}

// keep notes what a search found. It is called with the mutex held.
func (p *Pending) keep(found [][]byte, h horizon) {
	p.known, p.xact, p.epoch, p.at = nil, h.xact, h.epoch, h.now
	if len(found) <= maxKnown {
		p.known = make(map[[digestSize]byte]struct{}, len(found))
		for _, d := range found {
			p.known[[digestSize]byte(d)] = struct{}{}
		}
	}
}

// follow searches by the journal's lines, unless all records have to be read.
func (p *Pending) follow(ctx context.Context, db *DB) (found [][]byte, is bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		return nil, false, nil
	}
	var h horizon
	err = db.read(ctx, byIndex, func(tx pgx.Tx) (err error) {
		if h, err = db.horizon(ctx, tx); err != nil {
			return err
		}
		if h.epoch != p.epoch || h.now.Sub(p.full) > fullEvery || h.now.Before(p.at) {
			return nil
		}
		is = true
		candidates, err := p.candidates(ctx, tx, db)
		for part := range slices.Chunk(candidates, 10_000) {
			if err != nil {
				break
			}
			var still [][]byte
			still, err = digests(ctx, tx, db.in(`SELECT r.digest FROM unnest($1::bytea[]) AS a (digest)
				CROSS JOIN LATERAL (SELECT digest, state FROM @.records r WHERE r.digest = a.digest OFFSET 0) r WHERE r.state = 1`), part)
			found = append(found, still...)
		}
		return err
	})
	if err != nil || !is {
		return nil, false, err
	}
	p.keep(found, h)
	slices.SortFunc(found, bytes.Compare)
	return found, true, nil
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
	err := Each(ctx, tx, db.in(`SELECT digest, epoch, counter, CASE WHEN length(meta) > $3 THEN get_byte(meta, $3) ELSE 1 END FROM @.journal
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
	err = Each(ctx, tx, sql, func(row pgx.Rows) error {
		var d []byte
		err := row.Scan(&d)
		out = append(out, d)
		return err
	}, args...)
	return out, err
}
