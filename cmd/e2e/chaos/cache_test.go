package chaos

import (
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

// abuses are what is done to the cache, each in turn. Each is INVARIANTS C5.
const abuses = 12

// abuse does the next one.
func abuse(o *operator, cache *server.Redis, n int, source *rand.Rand) error {
	switch n % 4 {
	case 0:
		_, err := o.do("FLUSHALL")
		return err
	case 1: // so much else that what is there is evicted
		for i := range 400 {
			if _, err := o.do("SET", fmt.Sprintf("junk:%d:%d", n, i), strings.Repeat("x", 10_000)); err != nil {
				return err
			}
		}
	case 2: // every record gets another's bytes, or damaged ones
		answer, err := o.do("KEYS", "semel-cache:*")
		if err != nil {
			return err
		}
		keys, err := answer.AsStrSlice()
		if err != nil {
			return err
		}
		last := "nothing"
		for _, key := range keys {
			answer, err := o.do("GET", key)
			value, _ := answer.ToString()
			if err != nil || value == "" {
				continue // gone meanwhile
			}
			other := last
			if source.IntN(2) == 0 {
				at := source.IntN(len(value))
				other = value[:at] + string(value[at]^1) + value[at+1:]
			}
			last = value
			if _, err := o.do("SET", key, other, "KEEPTTL"); err != nil {
				return err
			}
		}
	case 3:
		if err := cache.Kill(); err != nil {
			return err
		}
		return cache.Start()
	}
	return nil
}

// TestCache flushes, evicts, falsifies and kills the cache in front of a durable
// store, while gateways die as well: no answer changes (C5).
func TestCache(t *testing.T) {
	t.Parallel()
	db, cache := startPostgres(t), startCache(t)
	o := operate(t, cache)
	s := newScene(t, 2, planned(abuses), db.URL("postgres"), storm.APIOptions{}, "--cache", "memory:1MiB,"+cache.URL())
	var at []time.Duration
	var hits, evicted int
	s.storm(t.Context(), func() error {
		for n := range abuses {
			if err := s.made(t.Context(), 8); err != nil {
				return err
			}
			hits, evicted = max(hits, o.number("keyspace_hits")), max(evicted, o.number("evicted_keys"))
			if err := abuse(o, cache, n, s.source); err != nil {
				return fmt.Errorf("abuse %d: %w", n, err)
			}
			evicted = max(evicted, o.number("evicted_keys"))
			if n%6 == 5 {
				at = append(at, time.Since(s.zero))
				g := s.gateways[n%2]
				g.Kill()
				if err := g.Start(startWithin); err != nil {
					return err
				}
			}
		}
		return s.made(t.Context(), 8)
	})
	s.settle()
	s.account(s.evidence(at), fmt.Sprintf("PostgreSQL behind two caches: %d abuses of the cache (%d hits, %d evictions at most seen), %d kills of gateways", abuses, hits, evicted, len(at)))
	if hits == 0 || evicted == 0 {
		t.Errorf("%d hits and %d evictions: the cache took no part", hits, evicted)
	}
}

// number reads a counter of the server; it begins anew with each start.
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
