package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/internal/server"
)

// Each test here is named after a line of the list of bugs that others shipped.

// cutter hands on connections to a server, and cuts them once, when the answer
// to something comes that has the word in it.
type cutter struct {
	listener net.Listener
	target   string

	mu   sync.Mutex
	word string
}

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{listener: l, target: target}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(in)
		}
	}()
	return c
}

// cutAt arms the cutter.
func (c *cutter) cutAt(word string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.word = word
}

// hit tells whether to cut, and disarms.
func (c *cutter) hit(request []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.word == "" || !strings.Contains(string(request), c.word) {
		return false
	}
	c.word = ""
	return true
}

func (c *cutter) serve(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer out.Close()
	cut := make(chan struct{}, 1)
	go func() {
		defer out.Close()
		b := make([]byte, 1<<16)
		for {
			n, err := in.Read(b)
			if err != nil {
				return
			}
			if c.hit(b[:n]) {
				cut <- struct{}{}
			}
			if _, err := out.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := out.Read(b)
		if err != nil {
			return
		}
		select {
		case <-cut:
			return // the server has done it, and nobody hears
		default:
		}
		if _, err := in.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestFieldBug08_LostAnswer: nothing below the guard sends a swap again, and the
// guard that does knows its own write.
func TestFieldBug08_LostAnswer(t *testing.T) {
	server := start(t, nil)
	c := newCutter(t, server.Address())
	s := open(t, "redis://"+c.listener.Addr().String(), quiet())
	a := connect(t, server.Address())
	mustSwap(t, s, semel.Version{}, pending(0))
	a.do("CONFIG", "RESETSTAT")

	c.cutAt("EVALSHA")
	next := pending(1)
	_, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
	if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) {
		t.Fatalf("the answer was lost, and the store says %v; want that nobody knows", err)
	}
	if calls := a.info("cmdstat_evalsha"); !strings.HasPrefix(calls, "calls=1,") {
		t.Errorf("the server saw %s; want one call", calls)
	}
	r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
	if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce {
		t.Errorf("sent again: %v with nonce %v; want a conflict with our own", err, r.Record.Nonce)
	}

	guard, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	for n := range 3 {
		c.cutAt("EVALSHA")
		ask := semel.Ask{Key: semel.Key{Scope: "s", ID: fmt.Sprint(n)}}
		answer, err := guard.Do(t.Context(), ask, func(context.Context) (semel.Result, error) {
			runs++
			c.cutAt("EVALSHA") // of the completion
			return semel.Result{Data: []byte("receipt")}, nil
		})
		if err != nil || answer.Replayed {
			t.Errorf("with both answers lost: %+v, %v; want our own run", answer, err)
		}
	}
	if runs != 3 {
		t.Errorf("3 operations ran %d times", runs)
	}
}

// TestFieldBug34_Eviction: a server that evicts is refused at the start and when
// it begins to. Without the refusal a finished operation is granted again.
func TestFieldBug34_Eviction(t *testing.T) {
	server := start(t, map[string]string{"appendonly": "no"})
	a := connect(t, server.Address())
	s := open(t, server.URL(), quiet()) // it does not look again by itself
	claim := mustSwap(t, s, semel.Version{}, pending(1))
	first := mustSwap(t, s, claim.Version, done(1))

	a.do("CONFIG", "SET", "maxmemory", "16mb")
	for _, policy := range []string{"allkeys-lru", "allkeys-random", "volatile-ttl", "volatile-lru"} {
		a.do("CONFIG", "SET", "maxmemory-policy", policy)
		if _, err := redis.Open(t.Context(), server.URL(), redis.Options{Prefix: "new:"}); err == nil || !strings.Contains(err.Error(), "noeviction") {
			t.Errorf("opened on a server with %s: %v; want an error that names noeviction", policy, err)
		}
	}
	// What happens unguarded: other writes push the record out.
	filler := strings.Repeat("x", 100_000)
	written := 0
	for ; a.do("EXISTS", "semel:{0}:"+string(first.Digest[:])) == "1" && written < 5000; written++ {
		a.do("SET", fmt.Sprint("other", written), filler, "EX", "100")
	}
	second, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1))
	if err != nil || second.Record.Version.Compare(first.Version) <= 0 {
		t.Errorf("on a server that evicted the record: %v, %v after %v; want a grant with a greater token", err, second.Record.Version, first.Version)
	}
	t.Logf("with a look disabled, the operation was granted again after %.1f MB of other writes", float64(written)*0.1)

	redis.Patrol(s)
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(2)); err == nil || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("after a look at a server that evicts: %v; want a refusal", err)
	}
	if _, err := s.Get(t.Context(), first.Digest); err == nil {
		t.Error("a read passes on a server that evicts")
	}
	// It is set right: what it evicted meanwhile stays a loss until it is accepted.
	a.do("CONFIG", "SET", "maxmemory", "0")
	a.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	redis.Patrol(s)
	o := quiet()
	o.AcceptLoss = refuses(t, s)
	s = open(t, server.URL(), o)
	redis.Patrol(s)
	mustSwap(t, s, semel.Version{}, pending(3))
	// It evicts while nobody looks, and is set right again: that is a loss as well.
	a.do("CONFIG", "SET", "maxmemory-policy", "volatile-random")
	used, err := strconv.Atoi(a.info("used_memory"))
	if err != nil {
		t.Fatal(err)
	}
	a.do("CONFIG", "SET", "maxmemory", strconv.Itoa(used-1_000_000))
	a.do("SET", "one", "more")
	a.do("CONFIG", "SET", "maxmemory", "0")
	a.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	redis.Patrol(s)
	if name := refuses(t, s); name == o.AcceptLoss {
		t.Error("evictions that nobody saw are passed over")
	}
}

// TestFieldBug35_Failover: a failover loses what its replica did not have. The
// tokens do not fall, the loss is told, and nothing runs until it is accepted.
func TestFieldBug35_Failover(t *testing.T) {
	group := startSentinel(t)
	s := open(t, sentinelURL(group), redis.Options{Timeout: time.Second})
	t.Logf("%+v", s.Describe())
	if d := s.Describe(); d.Survives >= semel.SurvivesFailover || !slices.Contains(d.Traits, semel.TraitLossyFailover) || !strings.Contains(strings.Join(d.Cautions, " "), "failover") {
		t.Errorf("the description is silent about failovers: %+v", d)
	}
	kept := mustSwap(t, s, semel.Version{}, pending(1))
	onReplica := connect(t, group.Replica.Address())
	eventually(t, "the replica has the first claim", func() error {
		if onReplica.do("EXISTS", "semel:{0}:"+string(kept.Digest[:])) != "1" {
			return errors.New("not yet")
		}
		return nil
	})
	lost := failOver(t, group, s)
	var name string
	eventually(t, "the store tells of the loss", func() error {
		_, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(2))
		if err == nil {
			t.Fatal("a lost claim was granted again before the loss was accepted")
		}
		if !strings.Contains(err.Error(), "AcceptLoss") {
			return err
		}
		name = lossOf(t, err)
		return nil
	})
	after := open(t, sentinelURL(group)+"&accept-loss="+name, redis.Options{Timeout: time.Second})
	mustHold(t, after, kept)
	gone := 0
	for i, old := range lost {
		r, err := after.Get(t.Context(), old.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Record.Held() {
			gone++
		}
		if _, err := after.CompareAndSwap(t.Context(), old.Version, done(i+2)); !r.Record.Held() && !errors.Is(err, semel.ErrConflict) {
			t.Errorf("an owner of before the failover completed: %v", err)
		}
		if r, err := after.CompareAndSwap(t.Context(), semel.Version{}, pending(i+2)); err == nil && r.Record.Version.Compare(old.Version) <= 0 {
			t.Errorf("token %v after %v", r.Record.Version, old.Version)
		}
	}
	t.Logf("%d of %d acknowledged claims were gone; tokens that fell: 0/%d (95%%: <= %.1f%%)", gone, len(lost), len(lost), 300/float64(len(lost)))
	if gone == 0 {
		t.Error("nothing was lost, so this shows nothing")
	}
}

// failOver has the replica promoted without the last fifty claims, which it
// gives.
func failOver(t testing.TB, group *server.Sentinel, s semel.Store) (lost []semel.Record) {
	t.Helper()
	// The replica hangs, its connection is gone, and the master acknowledges alone.
	if err := group.Replica.Pause(); err != nil {
		t.Fatal(err)
	}
	connect(t, group.Master.Address()).do("CLIENT", "KILL", "TYPE", "replica")
	for n := 2; n < 52; n++ {
		lost = append(lost, mustSwap(t, s, semel.Version{}, pending(n)))
	}
	if err := group.Master.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := group.Replica.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failover", func() error {
		promoted, err := group.Promoted()
		if err == nil && promoted != group.Replica {
			err = errors.New("not yet")
		}
		return err
	})
	return lost
}
