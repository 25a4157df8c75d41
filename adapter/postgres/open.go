package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres/internal/pgtx"
	"github.com/semelhq/semel/store/batch"
)

// Options are a store's settings. The zero value is usable.
type Options struct {
	// Schema is the database schema that holds the store's tables. Default "semel".
	Schema string
	// MaxConns is how many connections swaps and reads may use at once. Swaps share
	// commits, so few suffice. Default 8, or pool_max_conns of the URL.
	MaxConns int
	// ListenURL is a way around a pooler to the same database, for one connection
	// that hears when a key has changed. Default: the store's own URL; behind a
	// pooler none, and who waits then polls.
	ListenURL string
	// Pooler says that the URL leads to a pooler in transaction mode, such as
	// PgBouncer: nothing is kept in a session, and each swap is sent as BEGIN,
	// statement, COMMIT in one go. Default: found out when the store is opened.
	Pooler bool
	// Timeout bounds a statement on the server; the COMMIT is not bounded. Default 10 s.
	Timeout time.Duration
	// Quarantine is for how long after a promotion or a restore that may have lost
	// acknowledged keys the store refuses keys that it does not know, except those
	// whose own time (UUIDv7) shows that they are younger. It should be the time in
	// which clients repeat a request. Default 10 min; below zero: none.
	Quarantine time.Duration
	// Alone switches group commit off: each swap is a commit of its own.
	Alone bool
	// Batch sets how swaps are collected into commits. Its Workers default to 2 here.
	Batch batch.Options
}

func (o Options) filled() Options {
	if o.Schema == "" {
		o.Schema = "semel"
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Quarantine == 0 {
		o.Quarantine = 10 * time.Minute
	}
	if o.Batch.Workers <= 0 {
		o.Batch.Workers = 2
	}
	return o
}

// Store is a semel.Store in a PostgreSQL database. It is safe for concurrent
// use.
type Store struct {
	engine *engine
	batch  *batch.Store // nil if each swap goes alone
	watch  *watch
	keep   *keep
}

var (
	_ semel.Store     = (*Store)(nil)
	_ semel.Batcher   = (*Store)(nil)
	_ semel.Sweeper   = (*Store)(nil)
	_ semel.Lister    = (*Store)(nil)
	_ semel.Journal   = (*Store)(nil)
	_ semel.Watcher   = (*Store)(nil)
	_ semel.Describer = (*Store)(nil)
)

// openWithin bounds Open where its context does not.
const openWithin = 10 * time.Second

// Open connects to the database at url, a postgres:// URL or a list of
// key=value, and refuses what a store cannot be trusted to. It returns within ctx
// or 10 s, whichever ends first, and does not keep ctx. A database without
// the store's schema gets it, if the user may create it; an older schema is
// refused until [Migrate] was called.
//
// Several processes may have the same database open.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	o = o.filled()
	e, err := connect(ctx, url, o)
	if err != nil {
		return nil, err
	}
	s := &Store{engine: e}
	if err := s.prepare(ctx); err != nil {
		e.pool.Close()
		return nil, e.explain("open", err)
	}
	if s.watch, err = newWatch(e, o.ListenURL); err != nil {
		e.pool.Close()
		return nil, err
	}
	e.changed = s.watch.tell
	if !o.Alone {
		s.batch = batch.New(e, o.Batch)
	}
	s.keep = startKeeping(e)
	return s, nil
}

// prepare checks the server and makes the database ready.
func (s *Store) prepare(ctx context.Context) error {
	e := s.engine
	if err := e.inspect(ctx); err != nil {
		return err
	}
	if err := e.findSchema(ctx); err != nil {
		return err
	}
	if err := e.checkRights(ctx); err != nil {
		return err
	}
	if err := e.renewEpoch(ctx, nil); err != nil {
		return err
	}
	switch err := e.makeDays(ctx); {
	case errors.Is(err, errNotOwner):
		e.server.cautions = append(e.server.cautions, "This user does not own the journal and can make no partitions for its days: its lines go to journal_default; make it the owner.")
	case err != nil:
		return err
	}
	e.describe()
	return nil
}

// Close waits for the swaps under way, for 10 s at most, and closes the
// connections. Do not call the store afterwards: that gives errors.
func (s *Store) Close() error {
	s.keep.stop()
	s.engine.pending.Stop()
	ended := make(chan error, 1)
	go func() {
		var err error
		if s.batch != nil {
			err = s.batch.Close()
		}
		s.watch.close()
		s.engine.pool.Close()
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(openWithin):
		return errors.New("postgres: closed while the server still owed an answer; nobody knows what became of the swaps under way")
	}
}

// engine is the store without group commit.
type engine struct {
	pool     *pgxpool.Pool
	options  Options
	schema   string // quoted
	sql      [statements]string
	bound    [boundStatements]pgtx.Statement
	database string   // its name on the server
	pooled   bool     // sessions are not ours
	prelude  []string // what goes before a swap if sessions are not ours
	patience time.Duration
	server   server
	epoch    epochs
	barrier  barrier
	lease    typical
	pending  unfinished
	untidy   chan struct{} // has room for one: what tidy looks after has changed
	// changed is told the digest of every swap that was written. It must not wait.
	changed func(digest semel.Digest, state semel.State)
}

func (e *engine) in(sql string) string { return in(e.schema, sql) }

// ended gives an error if ctx has ended before anything was done.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("postgres: nothing was done: %w", context.Cause(ctx))
}
