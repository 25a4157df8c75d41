package postgres_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/store/storetest"
)

// clock is a server's clock that a test sets: functions with the names of the
// server's own, in a schema that is looked at before the server's.
type clock struct {
	db     *pgxpool.Pool
	schema string
	mu     sync.Mutex
	at     time.Time
}

// clockAt makes a clock, and gives the URL under which a store goes by it.
func clockAt(t testing.TB, url, schema string, at time.Time) (*clock, string) {
	t.Helper()
	c := &clock{db: sql(t, url), schema: schema, at: at}
	run(t, c.db, fmt.Sprintf(`CREATE SCHEMA IF NOT EXISTS %[1]s; CREATE TABLE IF NOT EXISTS %[1]s.clock AS SELECT '2031-01-01'::timestamptz AS at;
		CREATE OR REPLACE FUNCTION %[1]s.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM %[1]s.clock';
		CREATE OR REPLACE FUNCTION %[1]s.statement_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM %[1]s.clock';
		CREATE OR REPLACE FUNCTION %[1]s.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM %[1]s.clock'`, schema))
	c.tell(t.Context())
	sign := "?"
	if strings.Contains(url, "?") {
		sign = "&"
	}
	return c, url + sign + "search_path=" + schema + ",pg_catalog"
}

func (c *clock) tell(ctx context.Context) {
	if _, err := c.db.Exec(ctx, "UPDATE "+c.schema+".clock SET at = $1", c.at); err != nil && ctx.Err() == nil {
		panic(err)
	}
}

// set moves the clock.
func (c *clock) set(ctx context.Context, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !at.Equal(c.at) {
		c.at = at
		c.tell(ctx)
	}
}

// clocked is a store whose server's clock is that of the suite.
type clocked struct {
	*postgres.Store
	clock *clock
	now   func() time.Time
}

func (c *clocked) tick() { c.clock.set(context.Background(), c.now()) }

func (c *clocked) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	c.tick()
	return c.Store.Get(ctx, d)
}

func (c *clocked) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	c.tick()
	return c.Store.CompareAndSwap(ctx, old, next)
}

func (c *clocked) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	c.tick()
	return c.Store.SwapMany(ctx, swaps)
}

func (c *clocked) Sweep(ctx context.Context, limit int) (int, error) {
	c.tick()
	return c.Store.Sweep(ctx, limit)
}

func (c *clocked) List(ctx context.Context, f semel.Filter) ([]semel.Record, error) {
	c.tick()
	return c.Store.List(ctx, f)
}

func (c *clocked) Days(ctx context.Context) ([]time.Time, error) {
	c.tick()
	return c.Store.Days(ctx)
}

func (c *clocked) Lines(ctx context.Context, day time.Time) iter.Seq2[semel.Entry, error] {
	c.tick()
	return c.Store.Lines(ctx, day)
}

func (c *clocked) DropDay(ctx context.Context, day time.Time) error {
	c.tick()
	return c.Store.DropDay(ctx, day)
}

func (c *clocked) Measure(ctx context.Context) (semel.Measure, error) {
	c.tick()
	return c.Store.Measure(ctx)
}

// TestStoreByItsClock is the suite on a server whose clock the cases set: only
// that clock decides expiry (INVARIANTS X5).
func TestStoreByItsClock(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	t.Parallel()
	storetest.Run(t, storetest.Maker{
		Has: has,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			c, clocks := clockAt(t, url, at.Name+"_clock", at.Now())
			return &clocked{open(t, clocks, at.Name, postgres.Options{}), c, at.Now}
		},
	})
}
