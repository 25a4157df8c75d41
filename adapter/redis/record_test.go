package redis_test

import (
	"errors"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
)

// TestDamage has each bit of what a key holds flipped in turn, and it cut off:
// damage, never absence, never another record, and no swap goes over it
// (INVARIANTS S15).
func TestDamage(t *testing.T) {
	server := start(t, map[string]string{"appendonly": "no"})
	a := connect(t, server.Address())
	s := open(t, server.URL(), quiet())
	claim := mustSwap(t, s, semel.Version{}, pending(1))
	held := mustSwap(t, s, claim.Version, done(1))
	key := "semel:{0}:" + string(held.Digest[:])
	value := a.do("GET", key)
	damaged := func(what string, b string) {
		t.Helper()
		a.do("SET", key, b)
		if r, err := s.Get(t.Context(), held.Digest); !errors.Is(err, semel.ErrDamaged) {
			t.Fatalf("%s: read %+v, %v; want ErrDamaged", what, r.Record, err)
		}
		if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1)); !errors.Is(err, semel.ErrDamaged) {
			t.Fatalf("%s: claimed %+v, %v; want ErrDamaged", what, r.Record, err)
		}
		if n, err := redis.Bury(s); err != nil || n != 0 {
			t.Fatalf("%s: %d results were taken away, %v", what, n, err)
		}
		if a.do("GET", key) != b {
			t.Fatalf("%s: something was written over it", what)
		}
	}
	for i := range len(value) {
		b := []byte(value)
		b[i] ^= 1 << (i % 8)
		damaged("a bit was flipped", string(b))
	}
	for _, n := range []int{0, 1, 15, 16, 31, 32, 36, len(value) / 2, len(value) - 1} {
		damaged("it was cut off", value[:n])
	}
	if _, err := s.List(t.Context(), semel.Filter{}); !errors.Is(err, semel.ErrDamaged) {
		t.Errorf("List: %v; want ErrDamaged", err)
	}
	a.do("DEL", key)
	a.do("LPUSH", key, "a stranger's")
	if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1)); !errors.Is(err, semel.ErrDamaged) {
		t.Errorf("over a list: %+v, %v; want ErrDamaged", r.Record, err)
	}
	a.do("DEL", key)
	a.do("SET", key, value)
	mustHold(t, s, held)
}

// TestKept: a pending record has no end of its own, and a finished one is kept
// for longer than its TTL.
func TestKept(t *testing.T) {
	server := start(t, nil)
	a := connect(t, server.Address())
	s := open(t, server.URL(), quiet())
	ttl := func(r semel.Record) time.Duration {
		ms, err := time.ParseDuration(a.do("PTTL", "semel:{0}:"+string(r.Digest[:])) + "ms")
		if err != nil {
			t.Fatal(err)
		}
		return ms
	}
	claim := mustSwap(t, s, semel.Version{}, pending(1))
	if got := ttl(claim); got != -time.Millisecond {
		t.Errorf("a claim ends after %v; want never", got)
	}
	if got := ttl(mustSwap(t, s, claim.Version, done(1))); got <= 72*time.Hour || got > 72*time.Hour+2*time.Minute {
		t.Errorf("a finished record with a TTL of 72h is kept for %v; want a minute longer", got)
	}
	free := pending(2)
	free.State, free.TTL = semel.Released, time.Hour
	released := mustSwap(t, s, semel.Version{}, free)
	if got := ttl(released); got <= time.Hour {
		t.Errorf("a released record with a TTL of 1h is kept for %v", got)
	}
	if got := ttl(mustSwap(t, s, released.Version, pending(2))); got != -time.Millisecond {
		t.Errorf("a claim over a released record ends after %v; want never", got)
	}
}
