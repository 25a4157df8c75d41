package mysql_test

import (
	"os"
	"sync"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/storetest"
	"github.com/semelhq/semel/store/tiered"
)

const has = storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Journals | storetest.Durable | storetest.Shared

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

// database makes an empty database and gives its URL.
func database(t testing.TB, name string) string {
	t.Helper()
	m := servers.MariaDB(t)
	if err := m.CreateDatabase(name); err != nil {
		t.Fatal(err)
	}
	return m.URL(name)
}

// place gives the URL of the database of a place, which the first store makes.
func place(t testing.TB, at storetest.Place) string {
	t.Helper()
	if mark := at.Dir + "/made"; os.Mkdir(mark, 0o700) == nil {
		return database(t, at.Name)
	}
	return servers.MariaDB(t).URL(at.Name)
}

// pool is databases that cases have emptied for the next: making tables takes
// longer than most cases do.
type pool struct {
	mu   sync.Mutex
	free []string
}

// place gives the URL of the database of a place. It is for cases that go by the
// server's own clock, and so leave the journal's days as they are.
func (p *pool) place(t testing.TB, at storetest.Place) string {
	t.Helper()
	mark := at.Dir + "/database"
	if url, err := os.ReadFile(mark); err == nil {
		return string(url)
	}
	p.mu.Lock()
	url := ""
	if n := len(p.free); n > 0 {
		url, p.free = p.free[n-1], p.free[:n-1]
	}
	p.mu.Unlock()
	if url == "" {
		url = database(t, at.Name)
	} else {
		execute(t, sqlDB(t, url), "DELETE FROM semel_record; DELETE FROM semel_journal")
	}
	if err := os.WriteFile(mark, []byte(url), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the case has closed its stores
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, url)
	})
	return url
}

// TestStore is also the test of package batch in front of the database: Open puts
// it there. The store's clock is set by the cases.
func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Maker{
		Has: has,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			s, err := mysql.OpenAt(t.Context(), place(t, at), mysql.Options{}, at.Now)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	})
}

// TestStoreAlone is the store with the server's own clock, and without group commit.
func TestStoreAlone(t *testing.T) {
	t.Parallel()
	var databases pool
	storetest.Run(t, storetest.Maker{
		Has: has, RealTime: true,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			return connect(t, databases.place(t, at), mysql.Options{Alone: true})
		},
	})
}

// TestBatchAround is package batch around the store once more.
func TestBatchAround(t *testing.T) {
	t.Parallel()
	var databases pool
	storetest.Run(t, storetest.Maker{
		Has: has, RealTime: true,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			return batch.New(connect(t, databases.place(t, at), mysql.Options{Alone: true}), batch.Options{MaxBatch: 7, Workers: 3})
		},
		Close: func(t testing.TB, s semel.Store) {
			s.(*batch.Store).Close()
			s.(*batch.Store).Unwrap().(*mysql.Store).Close()
		},
	})
}

// TestTieredAround is the store behind a cache: tombstones and what was forgotten
// are not hidden by copies.
func TestTieredAround(t *testing.T) {
	t.Parallel()
	var databases pool
	storetest.Run(t, storetest.Maker{
		Has: has &^ storetest.Shared, RealTime: true, // what another process rewrites is known late, see tiered
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			s := connect(t, databases.place(t, at), mysql.Options{Alone: true})
			near, err := otter.New(otter.Options{MaxBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			front, err := tiered.New(s, tiered.Options{Caches: []tiered.Cache{near}, Margin: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = near.Close() })
			return front
		},
		Close: func(t testing.TB, s semel.Store) {
			s.(*tiered.Store).Close()
			s.(*tiered.Store).Unwrap().(*mysql.Store).Close()
		},
	})
}

func connect(t testing.TB, url string, o mysql.Options) *mysql.Store {
	t.Helper()
	s, err := mysql.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
