package redis_test

import (
	"os"
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
			s, err := redis.Open(t.Context(), url, redis.Options{Prefix: at.Name + ":", Margin: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
}

func TestStore(t *testing.T) { storetest.Run(t, maker(servers.Redis(t).URL())) }
