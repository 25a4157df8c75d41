package redis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/internal/server"
)

// atEnd ends something with the test.
func atEnd(t testing.TB, end func() error) {
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("at the end of the test: %v", err)
		}
	})
}

// start starts a server for this test alone.
func start(t testing.TB, settings map[string]string) *server.Redis {
	t.Helper()
	s, err := server.StartRedis(t.TempDir(), server.RedisOptions{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, s.Kill)
	return s
}

func startSentinel(t testing.TB) *server.Sentinel {
	t.Helper()
	group, err := server.StartSentinel(t.TempDir(), server.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, group.Kill)
	return group
}

func sentinelURL(s *server.Sentinel) string {
	return "redis+sentinel://" + strings.Join(s.Addresses(), ",") + "?master=" + s.Name()
}

// open opens a store that is closed with the test.
func open(t testing.TB, url string, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, s.Close)
	return s
}

// admin is a stranger's connection to one server.
type admin struct {
	testing.TB
	rueidis.Client
}

func connect(t testing.TB, address string) *admin {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &admin{t, c}
}

// do sends a command that must succeed, and gives the answer as text.
func (a *admin) do(words ...string) string {
	a.Helper()
	m, err := a.Do(context.Background(), a.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		a.Fatalf("%q: %v", words, err)
	}
	if text, err := m.ToString(); err == nil {
		return text
	}
	v, _ := m.ToAny()
	return fmt.Sprint(v)
}

// info gives a field of INFO.
func (a *admin) info(field string) string {
	a.Helper()
	for line := range strings.Lines(a.do("INFO", "everything")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return value
		}
	}
	return ""
}

// pending is a claim of the n-th key; done is its completion.
func pending(n int) semel.Record {
	key := semel.Key{Scope: "tenant", ID: fmt.Sprint("order-", n)}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.Fingerprint{byte(n)}, State: semel.Pending,
		Nonce: semel.Nonce{byte(n), byte(n >> 8), 1}, Attempt: 1, TTL: time.Minute, Key: key, Owner: "host:1",
	}
}

func done(n int) semel.Record {
	r := pending(n)
	r.State, r.Code, r.Result = semel.Done, 201, fmt.Appendf(nil, "receipt %d", n)
	r.Nonce[2] = 2
	r.TTL, r.Replay = 72*time.Hour, 24*time.Hour
	return r
}

func mustSwap(t testing.TB, s semel.Store, old semel.Version, next semel.Record) semel.Record {
	t.Helper()
	r, err := s.CompareAndSwap(context.Background(), old, next)
	if err != nil {
		t.Fatalf("swap over %v: %v", old, err)
	}
	return r.Record
}

// mustHold fails the test unless want is what is held.
func mustHold(t testing.TB, s semel.Store, want semel.Record) {
	t.Helper()
	r, err := s.Get(context.Background(), want.Digest)
	if err != nil || r.Record.Version != want.Version || string(r.Record.Result) != string(want.Result) {
		t.Fatalf("held: %+v, %v; want %+v", r.Record, err, want)
	}
}

// eventually repeats an attempt until it succeeds, for what other processes do
// in their own time.
func eventually(t testing.TB, what string, attempt func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var err error
	for range 3000 {
		if err = attempt(); err == nil {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s did not happen: %v", what, err)
}
