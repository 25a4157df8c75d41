package etcd_test

import (
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
	"github.com/semelhq/semel/store/storetest"
)

func TestStoreOnTheNewestServer(t *testing.T) {
	c := start(t, 1)
	first := open(t, c.url("clock"))
	storetest.Run(t, storetest.Maker{
		Has: storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Journals | storetest.Durable | storetest.Shared, RealTime: true,
		Open: func(t testing.TB, p storetest.Place) semel.Store {
			s, err := etcd.Open(t.Context(), c.url(p.Name), etcd.Options{ClockOf: first})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	})
}
