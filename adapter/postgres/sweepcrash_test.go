package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/internal/server"
)

// TestX7SweepThroughCrashAndPromotion: the server is killed while it is swept, once
// and comes back, then for good and its standby takes over. Late retries of a thousand
// keys meet the answer or its tombstone and never nothing, until the keys' time is over;
// what is pending stays.
func TestX7SweepThroughCrashAndPromotion(t *testing.T) {
	t.Parallel()
	p := private(t, nil)
	c, url := clockAt(t, p.URL("postgres"), "crash_clock", noon)
	b := &bench{opened(t, url, "crash", postgres.Options{}), c, c.db, url}
	records := b.many(t, "k", lateKeys, nil)
	claim := mustSwap(t, b, semel.Version{}, pending("pending"))
	late := &late{records, claim}
	next := standby(t, p, true)

	late.check(t, "before its replay ends", b, true)

	c.set(t.Context(), noon.Add(25*time.Hour))
	sweepAndKill(t, b.Store, p, c)
	must(t, p.Start())
	c.db.Reset() // its connections were to the server before
	eventually(t, "the store is back", func() bool {
		_, err := b.Get(t.Context(), claim.Digest)
		return err == nil
	})
	late.check(t, "after a crash in the sweep", b, false)
	sweepAndKill(t, b.Store, p, c)
	must(t, next.Promote())
	c2, url := clockAt(t, next.URL("postgres"), "crash_clock", noon.Add(26*time.Hour))
	s := opened(t, url, "crash", postgres.Options{})
	late.check(t, "after a promotion in the sweep", s, false)
	drain(t, s)
	if n := number(t, c2.db, `SELECT count(*) FROM crash.records WHERE state = 2 AND result IS NULL`); n < lateKeys {
		t.Errorf("%d tombstones, want %d", n, lateKeys)
	}
	late.check(t, "as a tombstone", s, false)
	c2.set(t.Context(), noon.Add(73*time.Hour))
	drain(t, s)
	if n := number(t, c2.db, `SELECT count(*) FROM crash.records`); n != 1 {
		t.Errorf("%d records are left, want the one that is pending", n)
	}
}

const lateKeys = 1000

// late are retries that come late.
type late struct {
	records []semel.Record
	claim   semel.Record
}

// check has all keys tried again.
func (l *late) check(t *testing.T, when string, s semel.Store, replay bool) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < lateKeys; i += 8 {
				retry := pending(l.records[i].Key.ID)
				r, err := s.CompareAndSwap(t.Context(), semel.Version{}, retry)
				if !errors.Is(err, semel.ErrConflict) || r.Record.Version != l.records[i].Version || r.Record.Code != 201 || replay && r.Record.Result == nil {
					t.Errorf("%s a retry of %s met %+v, %v", when, retry.Key.ID, r.Record, err)
					return
				}
			}
		})
	}
	wg.Wait()
	r, err := s.Get(t.Context(), l.claim.Digest)
	if err != nil || r.Record.Version != l.claim.Version {
		t.Errorf("%s the pending record is %+v, %v", when, r.Record, err)
	}
}

// sweepAndKill kills a server in the middle of a sweep.
func sweepAndKill(t *testing.T, s *postgres.Store, p *server.Postgres, c *clock) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if n, err := s.Sweep(context.Background(), 50); err != nil || n == 0 {
				return
			}
		}
	}()
	eventually(t, "something is swept", func() bool {
		return number(t, c.db, `SELECT count(*) FROM crash.records WHERE state = 2 AND result IS NULL`) > 0
	})
	must(t, p.Kill())
	<-done
}

func drain(t *testing.T, s *postgres.Store) {
	t.Helper()
	for n := 1; n > 0; {
		var err error
		if n, err = s.Sweep(t.Context(), 300); err != nil {
			t.Fatal(fmt.Errorf("after the promotion: %w", err))
		}
	}
}
