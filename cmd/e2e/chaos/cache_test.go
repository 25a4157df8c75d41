package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/internal/storm"
	"github.com/semelhq/semel/internal/server"
)

// startCache starts a Redis that evicts and keeps nothing on its disk: what a
// cache wants.
func startCache(t *testing.T) *server.Redis {
	t.Helper()
	r, err := server.StartRedis(filepath.Join(t.TempDir(), "cache"), server.RedisOptions{Settings: map[string]string{
		"maxmemory": "3mb", "maxmemory-policy": "allkeys-lru", "appendonly": "no",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Kill() })
	return r
}

// abuser does to a cache what INVARIANTS C5 names.
type abuser struct {
	*operator
	cache     *server.Redis
	source    *rand.Rand
	falsified int // records, so far
	own       int // reads by itself, since the cache was started
	hits      int // reads by gateways that found something, so far
	evicted   int
}

// abuses is how often it is abused, in the four ways in turn.
const abuses = 12

// count notes what the server has counted; it begins anew with each start.
func (a *abuser) count() {
	a.hits += max(0, a.number("keyspace_hits")-a.own)
	a.evicted += a.number("evicted_keys")
	_, _ = a.do("CONFIG", "RESETSTAT") // a server that is away has nothing to reset
	a.own = 0
}

func (a *abuser) abuse(n int) (err error) {
	defer a.count()
	switch n % 4 {
	case 0:
		_, err = a.do("FLUSHALL")
	case 1: // so much else that what is there is evicted
		for i := range 400 {
			if _, err := a.do("SET", fmt.Sprintf("junk:%d:%d", n, i), strings.Repeat("x", 10_000)); err != nil {
				return err
			}
		}
	case 2:
		a.count()
		err = errors.Join(a.cache.Kill(), a.cache.Start())
	case 3:
		err = a.falsify()
	}
	return err
}

// falsify gives every record another's bytes, or damaged ones.
func (a *abuser) falsify() error {
	var keys []string
	for deadline := time.Now().Add(progressWithin); len(keys) < 20; time.Sleep(10 * time.Millisecond) {
		answer, err := a.do("KEYS", "semel-cache:*")
		if err != nil {
			return err
		}
		if keys, err = answer.AsStrSlice(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateways do not fill the cache again: %d records after %v", len(keys), progressWithin)
		}
	}
	last := "nothing"
	for _, key := range keys {
		answer, err := a.do("GET", key)
		value, _ := answer.ToString()
		if err != nil || value == "" {
			continue // gone meanwhile
		}
		a.own++
		other := []byte(last)
		if last = value; a.source.IntN(3) == 0 {
			other = []byte(value)
			other[a.source.IntN(len(other))] ^= 1 << a.source.IntN(8)
		}
		if _, err := a.do("SET", key, string(other), "KEEPTTL"); err != nil {
			return err
		}
		a.falsified++
	}
	return nil
}

// TestCache flushes, evicts, kills and falsifies the cache in front of a durable
// store, while gateways die as well: no answer changes (C5).
func TestCache(t *testing.T) {
	t.Parallel()
	db, cache := startPostgres(t), startCache(t)
	s := newScene(t, 2, planned(abuses), db.URL("postgres"), storm.APIOptions{}, "--cache", "memory:1MiB,"+cache.URL())
	a := &abuser{operator: operate(t, cache), cache: cache, source: s.source}
	var at []time.Duration
	s.storm(t.Context(), func() error {
		for n := range abuses {
			if err := s.made(t.Context(), 8); err != nil {
				return err
			}
			if err := a.abuse(n); err != nil {
				return fmt.Errorf("abuse %d: %w", n, err)
			}
			if n%4 != 3 {
				continue
			}
			for _, g := range s.gateways { // nothing is in their memory now, all in the falsified cache
				at = append(at, time.Since(s.zero))
				g.Kill()
				if err := g.Start(startWithin); err != nil {
					return err
				}
			}
		}
		return s.made(t.Context(), 8)
	})
	s.settle()
	a.count()
	s.account(s.evidence(at), fmt.Sprintf("PostgreSQL behind two caches: %d abuses of the cache (%d hits, %d evictions, %d records falsified), %d kills of gateways", abuses, a.hits, a.evicted, a.falsified, len(at)))
	if a.hits == 0 || a.evicted == 0 || a.falsified == 0 {
		t.Errorf("%d hits, %d evictions, %d records falsified: the cache took no part", a.hits, a.evicted, a.falsified)
	}
}

// number reads a counter of the server.
func (o *operator) number(name string) int {
	answer, err := o.do("INFO", "stats")
	text, _ := answer.ToString()
	if _, rest, ok := strings.Cut(text, name+":"); err == nil && ok {
		line, _, _ := strings.Cut(rest, "\r\n")
		n, _ := strconv.Atoi(line) // 0 for what is no number
		return n
	}
	return 0
}

// TestOutage stops the database for a while. Finished keys are replayed from the
// cache, and say that nobody was asked; new ones are refused; none runs twice when
// it is back (C6).
func TestOutage(t *testing.T) {
	t.Parallel()
	const keys = 20
	db, cache := startPostgres(t), startCache(t)
	s := newScene(t, 2, 2*keys, db.URL("postgres"), storm.APIOptions{Work: 2 * time.Millisecond}, "--cache", "memory:1MiB,"+cache.URL())
	s.client.Patience(20 * time.Second) // a claim is given up after 5 s
	old, fresh := s.clients.Payments[:keys], s.clients.Payments[keys:]
	each := func(payments []storm.Payment, gateway int, check func(storm.Entry) string) {
		t.Helper()
		var all sync.WaitGroup
		for i := range payments {
			all.Go(func() {
				p := &payments[i]
				e := s.client.Ask(t.Context(), p, storm.Copy{Amount: p.Amount}, gateway)
				if wrong := check(e); wrong != "" {
					t.Errorf("%s/%s through gateway %d: %s; got %d %s, replayed %v, unconfirmed %v", p.Account, p.Key, gateway, wrong, e.Status, e.Reason, e.Replayed, e.Unconfirmed)
				}
			})
		}
		all.Wait()
	}
	paid := func(replayed, unconfirmed bool, wrong string) func(storm.Entry) string {
		return func(e storm.Entry) string {
			if e.Status == 201 && e.Replayed == replayed && e.Unconfirmed == unconfirmed {
				return ""
			}
			return wrong
		}
	}
	each(old, 0, paid(false, false, "want the result"))
	each(old, 1, paid(true, false, "want a replay"))
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	for gateway := range s.gateways {
		each(fresh[gateway*keys/2:(gateway+1)*keys/2], gateway, func(e storm.Entry) string {
			if e.Status == 503 && e.Reason == storm.ReasonNoStore {
				return ""
			}
			return "the database is away and this key is new: want 503 store-unavailable"
		})
		// Now the gateway knows that it is away.
		each(old, gateway, paid(true, true, "the database is away: want a replay from the cache, flagged"))
	}
	if made := s.ledger.Lines(); made != keys {
		t.Errorf("%d payments were made before and during the outage, want %d", made, keys)
	}
	if err := db.Start(); err != nil {
		t.Fatal(err)
	}
	each(old, 0, func(e storm.Entry) string {
		if e.Status == 201 && e.Replayed {
			return ""
		}
		return "want a replay"
	})
	s.clients.Run(t.Context(), nil)
	s.settle()
	s.account(s.evidence(nil), fmt.Sprintf("PostgreSQL away: %d finished keys replayed from the caches of each of 2 gateways, flagged, %d new ones refused", keys, keys))
}
