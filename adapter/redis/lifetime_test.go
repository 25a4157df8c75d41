package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/internal/server"
)

// spent writes finished records whose results cannot be replayed any more, and
// waits until that is so.
func spent(t *testing.T, s *redis.Store, n int, result string) []semel.Record {
	t.Helper()
	swaps := make([]semel.Swap, n)
	for i := range swaps {
		swaps[i].Next = done(i)
		swaps[i].Next.Result, swaps[i].Next.Replay = []byte(result), time.Microsecond
	}
	out := make([]semel.Record, n)
	for i, r := range s.SwapMany(t.Context(), swaps) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		out[i] = r.Reading.Record
	}
	eventually(t, "the clock going on", func() error {
		r, err := s.Get(t.Context(), out[n-1].Digest)
		if err == nil && !r.Record.Spent(r.Now) {
			err = fmt.Errorf("now is %v", r.Now)
		}
		return err
	})
	return out
}

func mustBeGrave(t *testing.T, s semel.Store, of semel.Record) {
	t.Helper()
	r, err := s.Get(t.Context(), of.Digest)
	want := of.Tombstone()
	a, b := r.Record.Entry(), want.Entry()
	if err != nil || string(a.AppendTo(nil)) != string(b.AppendTo(nil)) || r.Record.Result != nil {
		t.Fatalf("held: %+v, %v; want %+v", r.Record, err, want)
	}
}

// Results go once their replay is over; everything else stays as it is, and so
// does the server's own expiry of the key.
func TestSpentResultsGo(t *testing.T) {
	cluster, err := server.StartRedisCluster(t.TempDir(), server.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, cluster.Kill)
	for name, url := range map[string]string{
		"one server": servers.Redis(t).URL(), "cluster": strings.Replace(cluster.URL(), "redis:", "redis+cluster:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			o := redis.Options{Prefix: "spent" + strconv.Itoa(len(name)) + ":", Slots: 8}
			s := open(t, url, o)
			all := spent(t, s, 1500, strings.Repeat("receipt ", 200))
			kept, memo := done(5000), pending(5001)
			memo.Result, memo.Replay = []byte("memo"), time.Microsecond
			longKey := done(5002)
			longKey.Key.ID, longKey.Replay = strings.Repeat("x", 3000), time.Microsecond
			kept, memo, longKey = mustSwap(t, s, semel.Version{}, kept), mustSwap(t, s, semel.Version{}, memo), mustSwap(t, s, semel.Version{}, longKey)
			if n, err := redis.Bury(s); err != nil || n != 1501 {
				t.Fatalf("%d results went, want 1501; %v", n, err)
			}
			for _, r := range append(all, longKey) {
				mustBeGrave(t, s, r)
			}
			mustHold(t, s, kept)
			mustHold(t, s, memo)
			if n, err := redis.Bury(s); err != nil || n != 0 {
				t.Errorf("once more: %d, %v", n, err)
			}
			if _, err := s.CompareAndSwap(t.Context(), all[0].Version, done(0)); err != nil {
				t.Errorf("a tombstone is not written over: %v", err)
			}
			m, err := s.Measure(t.Context())
			if err != nil || !m.Estimated && m.Records != 1503 || !m.OldestPending.Equal(memo.WrittenAt) {
				t.Errorf("measure %+v, %v", m, err)
			}
		})
	}
}

func TestTombstoneKeepsTheExpiryOfItsKey(t *testing.T) {
	e := start(t, nil)
	s := open(t, e.URL(), redis.Options{})
	r := spent(t, s, 1, "receipt")[0]
	a := connect(t, strings.TrimPrefix(e.URL(), "redis://"))
	key := "semel:{0}:" + string(r.Digest[:])
	left := func() int {
		n, err := strconv.Atoi(a.do("PTTL", key))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := left()
	if n, err := redis.Bury(s); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if after := left(); after > before || after < before-60_000 {
		t.Errorf("the key had %d ms to live, and has %d", before, after)
	}
	mustBeGrave(t, s, r)
}

// What is written meanwhile is never lost to a tombstone of the version before,
// and two who look at once do no harm.
func TestBuryIsFenced(t *testing.T) {
	url := servers.Redis(t).URL()
	o := redis.Options{Prefix: "fenced:", Margin: 5 * time.Millisecond}
	a, b := open(t, url, o), open(t, url, o)
	for range 5 {
		all := spent(t, a, 400, "receipt")
		var wg sync.WaitGroup
		for _, s := range []*redis.Store{a, b} {
			wg.Go(func() {
				for range 4 {
					if _, err := redis.Bury(s); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for i := range all {
				next := all[i]
				next.State, next.Result, next.Replay, next.Nonce[3] = semel.Done, []byte("another"), time.Hour, 9
				all[i] = mustSwap(t, a, all[i].Version, next)
			}
		})
		wg.Wait()
		for _, r := range all {
			mustHold(t, b, r)
			next := r
			next.State, next.TTL, next.Replay = semel.Released, 0, 0
			mustSwap(t, a, r.Version, next)
		}
		for _, r := range all {
			eventually(t, "the end of a key", func() error {
				if got, err := a.Get(t.Context(), r.Digest); err != nil || got.Record.Held() {
					return fmt.Errorf("held: %v, %w", got.Record.Held(), err)
				}
				return nil
			})
		}
	}
}

// Stores look by themselves, and one of them at a time.
func TestResultsGoByThemselves(t *testing.T) {
	url := servers.Redis(t).URL()
	o := redis.Options{Prefix: "themselves:", Results: 20 * time.Millisecond}
	s := open(t, url, o)
	open(t, url, o)
	never := open(t, url, redis.Options{Prefix: "never:", Results: -1})
	r, stays := spent(t, s, 1, "receipt")[0], spent(t, never, 1, "receipt")[0]
	eventually(t, "a tombstone", func() error {
		if got, err := s.Get(t.Context(), r.Digest); err != nil || got.Record.Result != nil {
			return fmt.Errorf("the result is there, %w", err)
		}
		return nil
	})
	mustBeGrave(t, s, r)
	mustHold(t, never, stays)
}

// Beside many keys of strangers the records are told by their share.
func TestMeasureBesideStrangers(t *testing.T) {
	e := start(t, nil)
	s := open(t, e.URL(), redis.Options{})
	a := connect(t, strings.TrimPrefix(e.URL(), "redis://"))
	a.do("EVAL", "for i = 1, 200000 do redis.call('SET', 'stranger:' .. i, i) end return 1", "0")
	oldest := mustSwap(t, s, semel.Version{}, pending(20_001))
	spent(t, s, 20_000, "receipt")
	var got semel.Measure
	for range 6 {
		m, err := s.Measure(t.Context())
		if err != nil || !m.Estimated || m.Records < 15_000 || m.Records > 25_000 || m.Bytes < m.Records*100 || m.Bytes > m.Records*2000 {
			t.Fatalf("20001 records beside 200000 keys are %+v, %v", m, err)
		}
		got = m
	}
	if !got.OldestPending.Equal(oldest.WrittenAt) {
		t.Errorf("after a round the oldest pending record is of %v, want %v", got.OldestPending, oldest.WrittenAt)
	}
	mustSwap(t, s, oldest.Version, done(20_001))
	if m, err := s.Measure(t.Context()); err != nil || !m.OldestPending.IsZero() {
		t.Errorf("it is over, and still told: %+v, %v", m, err)
	}
}
