package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
)

// TestBadURL has URLs that are refused without a connection.
func TestBadURL(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"", "scheme"},
		{"localhost:6379", "scheme"},
		{"http://localhost", "scheme"},
		{"redis://", "names no server"},
		{"redis://:6379", "names no server"},
		{"redis://h:0", "no port"},
		{"redis://h:99999", "no port"},
		{"redis://h:x", "does not parse"},
		{"redis://h/zero", "no database"},
		{"redis://h/-1", "no database"},
		{"redis://a,b", "redis+sentinel:// or redis+cluster://"},
		{"redis+sentinel://a,b", "master="},
		{"redis+cluster://a/1", "database 0"},
		{"redis://h?prefix=a&prefix=b", "2 times"},
		{"redis://h?timeout=1", "timeout= is not known"},
		{"redis://h?master=x", "master= is not known"},
		{"redis://h?%zz", "question mark"},
		{"redis://h?prefix={a}", "brace"},
		{"redis://u:se%ret@h", "does not parse"},
	} {
		_, err := redis.Open(t.Context(), c.url, redis.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v; want one with %q", c.url, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "se%ret") {
			t.Errorf("%s: the error has the password: %v", c.url, err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for _, c := range []struct {
		o    redis.Options
		want string
	}{
		{redis.Options{Prefix: "a{b"}, "brace"},
		{redis.Options{Timeout: time.Microsecond}, "1 ms"},
		{redis.Options{Margin: -1}, "1 ms"},
		{redis.Options{CheckEvery: 1}, "1 ms"},
		{redis.Options{Replicas: -1}, "replicas"},
	} {
		if _, err := redis.Open(t.Context(), "redis://127.0.0.1:1", c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got error %v; want one with %q", c.o, err, c.want)
		}
	}
	if _, err := redis.Open(t.Context(), "redis+cluster://127.0.0.1:1", redis.Options{Slots: 257}); err == nil || !strings.Contains(err.Error(), "256") {
		t.Errorf("257 slots: %v", err)
	}
}

// TestBadServer has servers that are refused at the start.
func TestBadServer(t *testing.T) {
	master := start(t, map[string]string{"requirepass": "right"})
	replica, err := master.Replica(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, replica.Kill)
	node := start(t, map[string]string{"cluster-enabled": "yes"})
	plain := start(t, nil)
	closed := closedPort(t)
	silent := listen(t, func(net.Conn) {})
	stranger := listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })

	for _, c := range []struct{ name, url, want string }{
		{"no password", "redis://" + master.Address(), "password"},
		{"wrong password", "redis://:wrong@" + master.Address(), "password is wrong"},
		{"unknown user", "redis://nobody:right@" + master.Address(), "password is wrong"},
		{"a replica", "redis://:right@" + replica.Address(), "replica"},
		{"no such database", "redis://:right@" + master.Address() + "/99", "DB index"},
		{"a node of a Cluster", "redis://" + node.Address(), "redis+cluster://"},
		{"no Cluster", "redis+cluster://" + plain.Address(), "not part of a Cluster"},
		{"no Sentinel", "redis+sentinel://" + plain.Address() + "?master=x", "cannot connect"},
		{"nobody there", "redis://" + closed, "refused"},
		{"no such host", "redis://host.invalid", "cannot connect"},
		{"a server that hangs", "redis://" + silent, "cannot connect"},
		{"another protocol", "redis://" + stranger, "cannot connect"},
		{"TLS where there is none", "rediss://" + plain.Address(), "cannot connect"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := redis.Open(ctx, c.url, redis.Options{Timeout: 500 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), c.want) || ctx.Err() != nil {
				t.Errorf("got error %v; want one with %q, in time", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), ":right") || strings.Contains(err.Error(), ":wrong")) {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listen accepts connections, does something with each, and keeps them open.
func listen(t testing.TB, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			do(c)
		}
	}()
	return l.Addr().String()
}

// TestRights has users who may not do all that a store does.
func TestRights(t *testing.T) {
	server := start(t, nil)
	a := connect(t, server.Address())
	user := func(name string, rules ...string) string {
		a.do(append([]string{"ACL", "SETUSER", name, "on", ">pw"}, rules...)...)
		return "redis://" + name + ":pw@" + server.Address()
	}
	all := []string{
		"~semel:*", "&semel:*", "+@connection", "+info", "+getrange", "+dbsize", "+memory|usage", "+config|get", "+eval", "+evalsha", "+hget", "+hset", "+hsetnx", "+hdel", "+hgetall", "+hincrby",
		"+time", "+mget", "+mset", "+get", "+set", "+exists", "+publish", "+subscribe", "+unsubscribe", "+scan", "+wait",
	}
	without := func(word string) []string {
		var out []string
		for _, w := range all {
			if w != word {
				out = append(out, w)
			}
		}
		return out
	}
	s := open(t, user("whole", all...), redis.Options{})
	claim := mustSwap(t, s, semel.Version{}, pending(1))
	mustSwap(t, s, claim.Version, done(1))
	if _, err := s.List(t.Context(), semel.Filter{}); err != nil {
		t.Errorf("the README's ACL line does not do for List: %v", err)
	}
	if n, err := redis.Bury(s); err != nil || n != 0 {
		t.Errorf("the README's ACL line does not do for results: %d, %v", n, err)
	}
	if m, err := s.Measure(t.Context()); err != nil || m.Records != 1 || m.Bytes <= 0 {
		t.Errorf("the README's ACL line does not do for Measure: %+v, %v", m, err)
	}
	if m, err := open(t, user("small", without("+memory|usage")...), redis.Options{}).Measure(t.Context()); err != nil || m.Records != 1 || m.Bytes != -1 {
		t.Errorf("without MEMORY USAGE: %+v, %v; want -1 bytes", m, err)
	}
	managed := open(t, user("managed", without("+config|get")...), redis.Options{})
	if d := managed.Describe(); d.Survives != semel.SurvivesProcess || !strings.Contains(strings.Join(d.Cautions, " "), "TrustFsync") {
		t.Errorf("without CONFIG: %+v; want process, and a word of TrustFsync", d)
	}
	trusted := open(t, user("managed2", without("+config|get")...), redis.Options{TrustFsync: true})
	if d := trusted.Describe(); d.Survives != semel.SurvivesCrash {
		t.Errorf("without CONFIG, with TrustFsync: %+v; want crash", d)
	}
	// News are a hint: without the right to publish, swaps go on.
	mustSwap(t, open(t, user("mute", without("+publish")...), redis.Options{}), semel.Version{}, done(2))
	for _, missing := range []string{"+info", "+eval", "+hget", "+hgetall", "~semel:*", "+evalsha", "+mset", "+hincrby", "+exists", "+set", "+getrange"} {
		s, err := redis.Open(t.Context(), user("lacks", append([]string{"reset", "on", ">pw"}, without(missing)...)...), redis.Options{})
		if err == nil {
			_, err = semel.NewGuard(s, semel.Options{})
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "ACL") {
			t.Errorf("without %s: got error %v; want one that names the ACL line", missing, err)
		}
	}
}

// TestServerSaysNo has a server that takes no writes for a while: an error each
// time, nothing written, and no wait.
func TestServerSaysNo(t *testing.T) {
	server := start(t, nil)
	a := connect(t, server.Address())
	s := open(t, server.URL(), quiet())
	held := mustSwap(t, s, semel.Version{}, pending(1))
	for _, c := range []struct{ name, set, value, back, want string }{
		{"full", "maxmemory", "1", "0", "memory is full"},
		{"too few replicas", "min-replicas-to-write", "1", "0", "min-replicas-to-write"},
	} {
		a.do("CONFIG", "SET", c.set, c.value)
		_, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(2))
		if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v; want one with %q", c.name, err, c.want)
		}
		if _, err := s.CompareAndSwap(t.Context(), held.Version, done(1)); err == nil {
			t.Errorf("%s: a completion passed", c.name)
		}
		mustHold(t, s, held)
		// A duplicate writes nothing, so it is answered.
		if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1)); !errors.Is(err, semel.ErrConflict) || r.Record.Version != held.Version {
			t.Errorf("%s: a duplicate: %v", c.name, err)
		}
		a.do("CONFIG", "SET", c.set, c.back)
		if r, err := s.Get(t.Context(), pending(2).Digest); err != nil || r.Record.Held() {
			t.Errorf("%s: the refused claim is held: %+v, %v", c.name, r.Record, err)
		}
	}
	mustSwap(t, s, held.Version, done(1))
}

func TestRejected(t *testing.T) {
	s := open(t, servers.Redis(t).URL(), redis.Options{Prefix: t.Name() + ":"})
	large, odd := done(1), pending(2)
	large.Result = make([]byte, 65<<20)
	odd.State = 7
	good := pending(4)
	out := s.SwapMany(t.Context(), []semel.Swap{{Next: large}, {Next: good}, {Next: odd}})
	for _, i := range []int{0, 2} {
		if !errors.Is(out[i].Err, semel.ErrRejected) {
			t.Errorf("swap %d: got error %v, want ErrRejected", i, out[i].Err)
		}
	}
	if out[1].Err != nil || out[1].Reading.Record.Digest != good.Digest {
		t.Errorf("beside them: %+v", out[1])
	}
	mustHold(t, s, out[1].Reading.Record)
}

// TestAnotherLayout opens the keys of a store as if they lay otherwise.
func TestAnotherLayout(t *testing.T) {
	server := start(t, nil)
	open(t, server.URL(), redis.Options{})
	connect(t, server.Address()).do("HSET", "semel:{0}!", "layout", "1/64")
	if _, err := redis.Open(t.Context(), server.URL(), redis.Options{}); err == nil || !strings.Contains(err.Error(), "laid out") {
		t.Errorf("got error %v; want one about the layout", err)
	}
}
