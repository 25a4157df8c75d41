package etcd_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// A key that was swept comes again with a greater version, even if the clock by
// which it was written was an hour ahead: the floor says so, not the clock.
func TestSweptKeyComesAgainGreaterThoughClocksDiffer(t *testing.T) {
	e := servers.Etcd(t)
	hasty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		fmt.Fprint(w, `{"etcdserver":"3.5.9"}`)
	}))
	defer hasty.Close()
	right := open(t, at(e, "swept"), etcd.Options{})
	ahead := open(t, at(e, "swept"), etcd.Options{Times: []string{hasty.URL}})
	last := done(pending("k", 1), 1, "receipt")
	last.TTL = 0
	last = swap(t, ahead, semel.Version{}, last)
	if n, err := ahead.Sweep(t.Context(), 10); n != 1 || err != nil {
		t.Fatalf("%d swept, %v", n, err)
	}
	again := swap(t, right, semel.Version{}, pending("k", 2))
	if again.Version.Compare(last.Version) <= 0 {
		t.Errorf("swept at %v, came again at %v", last.Version, again.Version)
	}
}
