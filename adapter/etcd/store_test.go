package etcd_test

import (
	"os"
	"strings"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/store/storetest"
)

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

const has = storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Journals | storetest.Durable | storetest.Shared

// at is the URL of a store in a server.
func at(e *server.Etcd, prefix string) string {
	return "etcd://" + strings.TrimPrefix(e.URL(), "http://") + "/" + prefix
}

func open(t testing.TB, url string, o etcd.Options) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestStore is also the test of package batch in front of a cluster: Open puts
// it there.
func TestStore(t *testing.T) {
	e := servers.Etcd(t)
	first := open(t, at(e, "clock"), etcd.Options{})
	storetest.Run(t, storetest.Maker{
		Has: has, RealTime: true,
		Open: func(t testing.TB, p storetest.Place) semel.Store {
			s, err := etcd.Open(t.Context(), at(e, p.Name), etcd.Options{ClockOf: first})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	})
}
