package redis_test

import (
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/store/tiered"
)

var _ tiered.Cache = (*redis.Cache)(nil)

func openCache(t testing.TB, url string, o redis.CacheOptions) *redis.Cache {
	t.Helper()
	c, err := redis.OpenCache(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, c.Close)
	return c
}

// finished is a record as a durable store gives it.
func finished(n int) semel.Record {
	r := done(n)
	r.Version, r.WrittenAt = semel.Version{Epoch: 7, Counter: uint64(n)}, time.Unix(1_794_816_000, 123456789)
	return r
}

func misses(t testing.TB, c *redis.Cache, d semel.Digest, what string) {
	t.Helper()
	if r, found, _ := c.Get(t.Context(), d); found {
		t.Errorf("%s: the cache gave %+v; want a miss", what, r)
	}
}

// TestCache is on a server that evicts, as caches are.
func TestCache(t *testing.T) {
	server := start(t, map[string]string{"maxmemory-policy": "allkeys-lru", "appendonly": "no"})
	a := connect(t, server.Address())
	c := openCache(t, server.URL(), redis.CacheOptions{Timeout: 5 * time.Second, MaxBytes: 1000})
	want := finished(1)
	misses(t, c, want.Digest, "nothing was put")
	put := func(r semel.Record, ttl time.Duration) {
		t.Helper()
		if err := c.Put(t.Context(), r, ttl); err != nil {
			t.Fatal(err)
		}
	}
	put(want, time.Hour)
	got, found, err := c.Get(t.Context(), want.Digest)
	if err != nil || !found || got.Version != want.Version || !got.WrittenAt.Equal(want.WrittenAt) || string(got.Result) != string(want.Result) ||
		got.TTL != want.TTL || got.Replay != want.Replay || got.Key != want.Key || got.Code != want.Code {
		t.Errorf("got %+v, %t, %v; want %+v", got, found, err, want)
	}
	key := "semel-cache:" + string(want.Digest[:])
	value := a.do("GET", key)
	for i := range len(value) {
		b := []byte(value)
		b[i] ^= 1 << (i % 8)
		a.do("SET", key, string(b))
		misses(t, c, want.Digest, "a bit was flipped")
	}
	for _, n := range []int{0, 1, 3, 4, len(value) / 2, len(value) - 1} {
		a.do("SET", key, value[:n])
		misses(t, c, want.Digest, "it was cut off")
	}
	a.do("SET", key, value+"x")
	misses(t, c, want.Digest, "it is longer")
	other := finished(2)
	a.do("SET", "semel-cache:"+string(other.Digest[:]), value)
	misses(t, c, other.Digest, "it is another key's")
	a.do("DEL", key)
	a.do("LPUSH", key, "x")
	misses(t, c, want.Digest, "it is a list")
	a.do("DEL", key)

	pendingRecord := pending(3)
	pendingRecord.Version = semel.Version{Epoch: 1, Counter: 1}
	put(pendingRecord, time.Hour)
	misses(t, c, pendingRecord.Digest, "it is not finished")
	large := finished(4)
	large.Result = make([]byte, 1001)
	put(large, time.Hour)
	misses(t, c, large.Digest, "it is too long")
	put(want, time.Microsecond)
	misses(t, c, want.Digest, "it ends at once")
	put(want, 1500*time.Millisecond)
	if ms := a.do("PTTL", key); ms > "1500" || len(ms) != 4 {
		t.Errorf("it is kept for %s ms, want at most 1500", ms)
	}
	a.do("FLUSHALL")
	misses(t, c, want.Digest, "all was flushed")
}

// TestCacheHangs: a server that hangs or is gone is a miss, soon.
func TestCacheHangs(t *testing.T) {
	server := start(t, nil)
	c := openCache(t, server.URL(), redis.CacheOptions{})
	want := finished(1)
	if err := c.Put(t.Context(), want, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, found, err := c.Get(t.Context(), want.Digest)
	if found || err == nil {
		t.Errorf("a server that hangs: found %t, error %v; want a miss with a reason", found, err)
	}
	if err := c.Put(t.Context(), want, time.Hour); err == nil {
		t.Error("a put to a server that hangs gave no error")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("they took %v; the timeout is 50 ms", took)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, found, err := c.Get(t.Context(), want.Digest); found || err == nil {
		t.Errorf("a server that is gone: found %t, error %v; want a miss with a reason", found, err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache comes back", func() error {
		_, _, err := c.Get(t.Context(), want.Digest)
		return err
	})
}
