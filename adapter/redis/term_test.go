package redis_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
)

// TestCounterGoesBack: a data set that was put back under a running server is
// noticed by the swap itself.
func TestCounterGoesBack(t *testing.T) {
	server := start(t, nil)
	s := open(t, server.URL(), quiet())
	mustSwap(t, s, semel.Version{}, pending(1))
	mustSwap(t, s, semel.Version{}, pending(2))
	a := connect(t, server.Address())
	field := "c:" + a.do("HGET", "semel:{0}!", "epoch") + ":" + a.do("HGET", "semel:{0}!", "run")
	if got := a.do("HGET", "semel:{0}!", field); got != "2" {
		t.Fatalf("the term's counter is %q after two swaps", got)
	}
	a.do("HSET", "semel:{0}!", field, "1")
	refuses(t, s)
}

// TestEachPrefixBeginsATerm: another store on the same restarted server has
// loaded its script there already.
func TestEachPrefixBeginsATerm(t *testing.T) {
	server := start(t, nil)
	o := quiet()
	s := open(t, server.URL(), o)
	o.Prefix = "other:"
	other := open(t, server.URL(), o)
	before := mustSwap(t, s, semel.Version{}, pending(1))
	again(t, server)
	eventually(t, "a swap of the other store", func() error {
		_, err := other.CompareAndSwap(t.Context(), semel.Version{}, pending(1))
		return err
	})
	eventually(t, "a swap of the first", func() error {
		r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(2))
		if err == nil && r.Record.Version.Epoch <= before.Version.Epoch {
			t.Errorf("epoch %d after a restart, %d before", r.Record.Version.Epoch, before.Version.Epoch)
		}
		return err
	})
}

// TestPromotedAgain: a server was a replica for a while, of a master that nobody
// wrote to. The patrol begins a term.
func TestPromotedAgain(t *testing.T) {
	a := start(t, nil)
	b, err := a.Replica(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, b.Kill)
	s := open(t, a.URL(), quiet())
	before := mustSwap(t, s, semel.Version{}, pending(1))
	onA, onB := connect(t, a.Address()), connect(t, b.Address())
	eventually(t, "the replica has it", func() error {
		if got := onB.do("DBSIZE"); got != "2" {
			return errors.New("keys: " + got)
		}
		return nil
	})
	onB.do("REPLICAOF", "NO", "ONE")
	host, port, _ := strings.Cut(b.Address(), ":")
	onA.do("REPLICAOF", host, port)
	eventually(t, "a follows b", func() error {
		if got := onA.info("master_link_status"); got != "up" {
			return errors.New("link: " + got)
		}
		return nil
	})
	redis.Patrol(s)
	if _, err := s.Get(t.Context(), before.Digest); err == nil || !strings.Contains(err.Error(), "replica") {
		t.Errorf("a look at a replica: %v; want a refusal", err)
	}
	onA.do("REPLICAOF", "NO", "ONE")
	redis.Patrol(s)
	if after := mustSwap(t, s, before.Version, done(1)); after.Version.Epoch <= before.Version.Epoch {
		t.Errorf("epoch %d after two promotions, %d before", after.Version.Epoch, before.Version.Epoch)
	}
}

// TestReplicaMissing: what no replica has is not acknowledged, neither to its
// author nor to a duplicate.
func TestReplicaMissing(t *testing.T) {
	master := start(t, nil)
	o := redis.Options{Replicas: 1, Timeout: 300 * time.Millisecond, CheckEvery: time.Hour}
	if _, err := redis.Open(t.Context(), master.URL(), o); err == nil || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("opened without a replica: %v", err)
	}
	replica, err := master.Replica(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, replica.Kill)
	s := open(t, master.URL(), o)
	var held semel.Record
	written := func(n int) func() error {
		return func() error {
			r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(n))
			if held = r.Record; errors.Is(err, semel.ErrConflict) && held.Nonce == pending(n).Nonce {
				return nil // at an earlier try
			}
			return err
		}
	}
	eventually(t, "the replica acknowledges", written(1))
	first := held
	if err := replica.Pause(); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		_, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(n))
		if err == nil || errors.Is(err, semel.ErrConflict) {
			t.Errorf("key %d, with the replica hanging: %v; want that nobody knows", n, err)
		}
	}
	if _, err := s.Get(t.Context(), pending(2).Digest); err == nil {
		t.Error("a read gave what no replica has")
	}
	if err := replica.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica catches up", written(2))
	mustHold(t, s, first)
}
