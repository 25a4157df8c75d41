package linear

import (
	"crypto/rand"
	"encoding/hex"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
	"github.com/semelhq/semel/store/tiered"
)

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

// subject is a kind of store.
type subject struct {
	name string
	open func(t *testing.T, at *place) semel.Store
	// histories is how many are recorded where -histories does not say it.
	histories int
	// processes is how many stores are open at one place at once. Default 1.
	processes int
	// final: finished records are not written over, as guards never do. Caches that
	// several processes share rely on it.
	final bool
}

func TestStores(t *testing.T) {
	for _, s := range [...]subject{
		{name: "memory", open: openMemory, histories: 60},
		{name: "memory, losing every tenth", open: losing(openMemory), histories: 60},
		{name: "batch", open: openBatch, histories: 60},
		{name: "batch, losing every tenth", open: losing(openBatch), histories: 60},
		{name: "sqlite", open: openSQLite, histories: 10},
		{name: "sqlite, losing every tenth", open: losing(openSQLite), histories: 10},
		{name: "postgres", open: openPostgres, histories: 5, processes: 2},
		{name: "postgres, losing every tenth", open: losing(openPostgres), histories: 5, processes: 2},
		{name: "mysql", open: openMySQL, histories: 3, processes: 2},
		{name: "mysql, losing every tenth", open: losing(openMySQL), histories: 3, processes: 2},
		{name: "redis", open: openRedis, histories: 5, processes: 2},
		{name: "redis, losing every tenth", open: losing(openRedis), histories: 5, processes: 2},
		{name: "etcd", open: openEtcd, histories: 2, processes: 2},
		{name: "etcd, losing every tenth", open: losing(openEtcd), histories: 2, processes: 2},
		{name: "tiered", open: openTiered, histories: 10},
		{name: "tiered, losing every tenth", open: losing(openTiered), histories: 10},
		{name: "tiered, two processes", open: openTiered, histories: 10, processes: 2, final: true},
		{name: "remote", open: openRemote, histories: 5, processes: 2},
		{name: "remote, losing every tenth", open: losing(openRemote), histories: 5, processes: 2},
		{name: "remote, batched", open: openRemoteBatch, histories: 5, processes: 2},
	} {
		n := *histories
		if n == 0 {
			n = s.histories
		}
		t.Run(s.name, func(t *testing.T) { linearizable(t, n, s) })
	}
}

// place is where the stores of one history are.
type place struct {
	dir  string
	name string // of a schema, a database, or keys

	mu     sync.Mutex
	shared map[string]any // what its stores have in common
}

func newPlace(t *testing.T) *place {
	t.Helper()
	var raw [9]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return &place{dir: t.TempDir(), name: "l" + hex.EncodeToString(raw[:]), shared: map[string]any{}}
}

// once gives what the first store of a place made under a name.
func once[T any](at *place, name string, make func() T) T {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.shared[name] == nil {
		at.shared[name] = make()
	}
	return at.shared[name].(T)
}

// closing closes a store at the end of its history.
func closing[S interface {
	semel.Store
	Close() error
}](t *testing.T, s S, err error) S {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openMemory(*testing.T, *place) semel.Store { return memory.New(memory.Options{}) }

func openBatch(t *testing.T, _ *place) semel.Store {
	return closing(t, batch.New(memory.New(memory.Options{}), batch.Options{}), nil)
}

func openSQLite(t *testing.T, at *place) semel.Store {
	s, err := sqlite.Open(filepath.Join(at.dir, "semel.db"), sqlite.Options{})
	return closing(t, s, err)
}

func openPostgres(t *testing.T, at *place) semel.Store {
	s, err := postgres.Open(t.Context(), servers.Postgres(t).URL("postgres"), postgres.Options{Schema: at.name})
	return closing(t, s, err)
}

func openMySQL(t *testing.T, at *place) semel.Store {
	m := servers.MariaDB(t)
	if err := once(at, "database", func() *error { err := m.CreateDatabase(at.name); return &err }); *err != nil {
		t.Fatal(*err)
	}
	s, err := mysql.Open(t.Context(), m.URL(at.name), mysql.Options{})
	return closing(t, s, err)
}

func openRedis(t *testing.T, at *place) semel.Store {
	s, err := redis.Open(t.Context(), servers.Redis(t).URL(), redis.Options{Prefix: at.name + ":"})
	return closing(t, s, err)
}

func openEtcd(t *testing.T, at *place) semel.Store {
	s, err := etcd.Open(t.Context(), "etcd://"+strings.TrimPrefix(servers.Etcd(t).URL(), "http://")+"/"+at.name, etcd.Options{})
	return closing(t, s, err)
}

// openTiered has caches of this process and of all processes in front of one
// store in memory.
func openTiered(t *testing.T, at *place) semel.Store {
	near, err := otter.New(otter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := redis.OpenCache(t.Context(), servers.Redis(t).URL(), redis.CacheOptions{Prefix: at.name + ":"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = all.Close() })
	durable := once(at, "durable", func() semel.Store { return memory.New(memory.Options{}) })
	s, err := tiered.New(durable, tiered.Options{Caches: []tiered.Cache{near, all}})
	return closing(t, s, err)
}

func openRemote(t *testing.T, at *place) semel.Store { return dial(t, at) }

func openRemoteBatch(t *testing.T, at *place) semel.Store {
	return closing(t, batch.New(dial(t, at), batch.Options{Workers: 4}), nil)
}

// dial uses a SQLite file that another process might serve.
func dial(t *testing.T, at *place) *remote.Store {
	t.Helper()
	const token = "a-token-of-tests-that-is-long-enough"
	served := once(at, "server", func() *httptest.Server {
		h, err := remote.NewHandler(openSQLite(t, at), remote.HandlerOptions{Tokens: []string{token}})
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(h)
		t.Cleanup(func() {
			h.Close()
			s.Close()
		})
		return s
	})
	s, err := remote.Dial(t.Context(), served.URL, remote.Options{Token: token})
	return closing(t, s, err)
}
