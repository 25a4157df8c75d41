package postgres_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// told waits until a watcher is told.
func told(t *testing.T, what string, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Fatalf("nobody was told: %s", what)
	}
}

// A waiter is told of what its own store writes and of what another's does,
// also after the listening connection was lost, and around a pooler.
func TestWatch(t *testing.T) {
	p := private(t, nil)
	b, err := p.Bouncer(filepath.Join(t.TempDir(), "bouncer"))
	must(t, err)
	defer b.Kill()
	db := sql(t, p.URL("postgres"))
	for _, c := range []struct {
		name, url string
		o         postgres.Options
	}{
		{"direct", p.URL("postgres"), postgres.Options{}},
		{"pooler", b.URL("postgres"), postgres.Options{ListenURL: p.URL("postgres")}},
	} {
		one, two := opened(t, c.url, "watch_"+c.name, c.o), opened(t, c.url, "watch_"+c.name, c.o)
		waiter := func(id string) (semel.Record, <-chan struct{}) {
			claim := mustSwap(t, two, semel.Version{}, pending(id))
			changed, stop := one.Watch(claim.Digest)
			t.Cleanup(stop)
			return claim, changed
		}
		claim, changed := waiter("own")
		mustSwap(t, one, claim.Version, done("own"))
		told(t, "by the same store", changed)

		claim, changed = waiter("other")
		eventually(t, "the other store knows who waits", func() bool { return postgres.Wanted(two, claim.Digest) })
		mustSwap(t, two, claim.Version, done("other"))
		told(t, "by another store", changed)

		lost := number(t, db, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN "watch%'`)
		if lost < 2 {
			t.Fatalf("%d listening connections, want 2", lost)
		}
		claim, changed = waiter("again")
		// The announcement is made anew once the store listens again.
		eventually(t, "the other store knows who waits, after it was cut off", func() bool { return postgres.Wanted(two, claim.Digest) })
		mustSwap(t, two, claim.Version, done("again"))
		told(t, "after the listeners were cut off", changed)
	}
}

// Whoever finishes a key for which nobody waits sends nothing.
func TestWatchIsSilent(t *testing.T) {
	p := private(t, nil)
	s := opened(t, p.URL("postgres"), "silent", postgres.Options{})
	db := sql(t, p.URL("postgres"))
	conn, err := db.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `LISTEN silent`)
	must(t, err)
	for _, id := range []string{"a", "b", "c"} {
		mustSwap(t, s, mustSwap(t, s, semel.Version{}, pending(id)).Version, done(id))
	}
	run(t, db, `SELECT pg_notify('silent', 'the end')`)
	n, err := conn.Conn().WaitForNotification(t.Context())
	if err != nil || n.Payload != "the end" {
		t.Errorf("a notification %+v, %v; want only the test's own", n, err)
	}
}
