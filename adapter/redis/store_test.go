package redis_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/store/storetest"
)

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

const has = storetest.Batches | storetest.Lists | storetest.Durable | storetest.Shared

// forget waits until the server has dropped a record by itself.
func forget(t testing.TB, s semel.Store, digest semel.Digest) {
	t.Helper()
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		r, err := s.Get(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Record.Held() {
			return
		}
	}
}

func maker(url string) storetest.Maker {
	return storetest.Maker{
		Has: has, RealTime: true, Forget: forget,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			s, err := redis.Open(t.Context(), url, redis.Options{Prefix: at.Name + ":", Margin: 5 * time.Millisecond, Slots: 8})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
}

func TestStore(t *testing.T) { storetest.Run(t, maker(servers.Redis(t).URL())) }

func TestStoreInCluster(t *testing.T) {
	cluster, err := server.StartRedisCluster(t.TempDir(), server.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, cluster.Kill)
	storetest.Run(t, maker(strings.Replace(cluster.URL(), "redis:", "redis+cluster:", 1)))
}

func TestStoreBehindSentinel(t *testing.T) {
	group := startSentinel(t)
	storetest.Run(t, maker(sentinelURL(group)))
}

// TestStoreAsOnOldServers has the script look at the server's process by itself,
// as it does before Redis 7.
func TestStoreAsOnOldServers(t *testing.T) {
	m := maker(servers.Redis(t).URL())
	open := m.Open
	m.Open = func(t testing.TB, at storetest.Place) semel.Store {
		s := open(t, at)
		redis.PretendOld(s.(*redis.Store))
		return s
	}
	storetest.Run(t, m)
}

// TestStoreWithReplica has every answer wait for a replica.
func TestStoreWithReplica(t *testing.T) {
	master := start(t, nil)
	replica, err := master.Replica(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, replica.Kill)
	m := maker(master.URL())
	m.Open = func(t testing.TB, at storetest.Place) semel.Store {
		return open(t, master.URL(), redis.Options{Prefix: at.Name + ":", Margin: 5 * time.Millisecond, Replicas: 1, Timeout: 20 * time.Second})
	}
	m.Close = func(testing.TB, semel.Store) {}
	storetest.Run(t, m)
}
