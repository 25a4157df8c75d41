package redis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
)

// quiet is a store whose patrol does not come by in a test's time.
func quiet() redis.Options { return redis.Options{CheckEvery: time.Hour} }

// lossOf gives the name of the loss that an error tells.
func lossOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil || errors.Is(err, semel.ErrConflict) {
		t.Fatalf("got error %v; want one that tells of a loss", err)
	}
	name := regexp.MustCompile(`AcceptLoss "([^"]+)"`).FindStringSubmatch(err.Error())
	if name == nil {
		t.Fatalf("got error %v; want one that names a loss", err)
	}
	return name[1]
}

// refuses checks that a store does nothing at all, and gives the loss's name.
func refuses(t testing.TB, s *redis.Store) string {
	t.Helper()
	told := func(call func() error) string {
		var err error
		eventually(t, "an answer", func() error {
			if err = call(); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				return err // of a connection to the server as it was
			}
			return nil
		})
		return lossOf(t, err)
	}
	name := told(func() error {
		_, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1))
		return err
	})
	if told(func() error { _, err := s.Get(t.Context(), pending(1).Digest); return err }) != name {
		t.Fatalf("a swap told %s, a read another loss", name)
	}
	return name
}

func TestFlushAllIsNoticed(t *testing.T) {
	server := start(t, nil)
	s, other := open(t, server.URL(), quiet()), open(t, server.URL(), quiet())
	claim := mustSwap(t, s, semel.Version{}, pending(1))
	mustSwap(t, s, claim.Version, done(1))
	connect(t, server.Address()).do("FLUSHALL")

	name := refuses(t, s)
	if refuses(t, other) != name {
		t.Error("two processes tell of two losses")
	}
	// A supervisor that starts the process again does not pass the loss over.
	if _, err := redis.Open(t.Context(), server.URL(), quiet()); lossOf(t, err) != name {
		t.Errorf("a new process tells another loss: %v", err)
	}
	o := quiet()
	o.AcceptLoss = "loss-1"
	if _, err := redis.Open(t.Context(), server.URL(), o); lossOf(t, err) != name {
		t.Errorf("with another loss accepted: %v", err)
	}
	o.AcceptLoss = name
	again := open(t, server.URL(), o)
	second := mustSwap(t, again, semel.Version{}, pending(1))
	if second.Version.Compare(claim.Version) <= 0 {
		t.Errorf("the key came again at %v, after %v", second.Version, claim.Version)
	}
	// The others go on as well, and still know an old token.
	mustHold(t, s, second)
	if _, err := other.CompareAndSwap(t.Context(), claim.Version, done(1)); !errors.Is(err, semel.ErrConflict) {
		t.Errorf("the owner of before the loss completed: %v", err)
	}
	// A second loss is told again, though the first was accepted.
	connect(t, server.Address()).do("FLUSHALL")
	if refuses(t, again) == name {
		t.Error("the second loss has the name of the first")
	}
}

func TestAnyLossIsAcceptedIfAskedTo(t *testing.T) {
	server := start(t, nil)
	o := quiet()
	o.AcceptLoss = "any"
	s := open(t, server.URL(), o)
	first := mustSwap(t, s, semel.Version{}, pending(1))
	connect(t, server.Address()).do("FLUSHALL")
	second := mustSwap(t, s, semel.Version{}, pending(1))
	if second.Version.Compare(first.Version) <= 0 {
		t.Errorf("came again at %v, after %v", second.Version, first.Version)
	}
}

// TestThePatrolNotices has nobody ask between a loss and a look.
func TestThePatrolNotices(t *testing.T) {
	server := start(t, nil)
	s := open(t, server.URL(), quiet())
	mustSwap(t, s, semel.Version{}, pending(1))
	a := connect(t, server.Address())
	a.do("FLUSHALL")
	redis.Patrol(s)
	if got := a.do("HGET", "semel:{0}!", "lost"); !strings.HasPrefix(got, "loss-") {
		t.Errorf("after a look the loss is marked %q", got)
	}
}

// TestSnapshotAloneLosesWrites is a server without append-only file that dies.
func TestSnapshotAloneLosesWrites(t *testing.T) {
	server := start(t, map[string]string{"appendonly": "no"})
	s := open(t, server.URL(), quiet())
	kept := mustSwap(t, s, semel.Version{}, pending(1))
	connect(t, server.Address()).do("SAVE")
	lost := mustSwap(t, s, semel.Version{}, pending(2))
	again(t, server)
	eventually(t, "a look after the restart", func() error {
		_, err := s.Get(t.Context(), lost.Digest)
		if err == nil {
			t.Fatal("the store went on after a loss")
		}
		if !strings.Contains(err.Error(), "AcceptLoss") {
			return err
		}
		return nil
	})
	name := refuses(t, s)
	o := quiet()
	o.AcceptLoss = name
	after := open(t, server.URL(), o)
	mustHold(t, after, kept)
	if second := mustSwap(t, after, semel.Version{}, pending(2)); second.Version.Compare(lost.Version) <= 0 {
		t.Errorf("the lost key came again at %v, after %v", second.Version, lost.Version)
	}
}

// again kills a server and starts it on what its disk has.
func again(t testing.TB, server interface{ Kill() error }) {
	t.Helper()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.(interface{ Start() error }).Start(); err != nil {
		t.Fatal(err)
	}
}

// TestRestartMovesTheEpoch: the server came back with all that it had, and no
// version of before can come again.
func TestRestartMovesTheEpoch(t *testing.T) {
	server := start(t, nil)
	s, other := open(t, server.URL(), quiet()), open(t, server.URL(), quiet())
	before := mustSwap(t, s, semel.Version{}, pending(1))
	again(t, server)
	var after semel.Record
	eventually(t, "the first swap after a restart", func() error {
		r, err := s.CompareAndSwap(t.Context(), before.Version, done(1))
		after = r.Record
		return err
	})
	if after.Version.Epoch <= before.Version.Epoch {
		t.Errorf("epoch %d after a restart, %d before", after.Version.Epoch, before.Version.Epoch)
	}
	// Another process joins the term, and does not begin one of its own.
	eventually(t, "a swap of the other process", func() error {
		r, err := other.CompareAndSwap(t.Context(), semel.Version{}, pending(2))
		if err == nil && r.Record.Version.Epoch != after.Version.Epoch {
			t.Errorf("the other process writes in epoch %d, the first in %d", r.Record.Version.Epoch, after.Version.Epoch)
		}
		return err
	})
}

// TestDemotedMasterBeginsATerm: the same process comes back with the data of
// another, in which it never wrote what it remembers.
func TestDemotedMasterBeginsATerm(t *testing.T) {
	a := start(t, nil)
	b, err := a.Replica(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, b.Kill)
	s := open(t, a.URL(), quiet())
	first := mustSwap(t, s, semel.Version{}, pending(1))
	onA, onB := connect(t, a.Address()), connect(t, b.Address())
	eventually(t, "the replica has it", func() error {
		if got := onB.do("DBSIZE"); got != "2" {
			return errors.New("keys: " + got)
		}
		return nil
	})
	// b takes over and writes; a follows it, and is promoted again.
	onB.do("REPLICAOF", "NO", "ONE")
	sb := open(t, b.URL(), quiet())
	heir := mustSwap(t, sb, first.Version, done(1))
	host, port, _ := strings.Cut(b.Address(), ":")
	onA.do("REPLICAOF", host, port)
	eventually(t, "a follows b", func() error {
		if got := onA.info("master_link_status"); got != "up" {
			return errors.New("link: " + got)
		}
		return nil
	})
	_, err = s.CompareAndSwap(t.Context(), semel.Version{}, pending(2))
	if err == nil || errors.Is(err, semel.ErrConflict) {
		t.Fatalf("a replica took a swap: %v", err)
	}
	onA.do("REPLICAOF", "NO", "ONE")
	second := mustSwap(t, s, semel.Version{}, pending(2))
	if second.Version.Epoch <= heir.Version.Epoch || second.Version.Epoch <= first.Version.Epoch {
		t.Errorf("epoch %d after two failovers, %d and %d before", second.Version.Epoch, first.Version.Epoch, heir.Version.Epoch)
	}
	mustHold(t, s, heir)
}

// TestScriptsFlushed: a server that has forgotten the script is given it again.
func TestScriptsFlushed(t *testing.T) {
	server := start(t, nil)
	s := open(t, server.URL(), quiet())
	a := connect(t, server.Address())
	first := mustSwap(t, s, semel.Version{}, pending(1))
	a.do("SCRIPT", "FLUSH")
	mustHold(t, s, first)
	a.do("SCRIPT", "FLUSH")
	second := mustSwap(t, s, first.Version, done(1))
	if second.Version.Epoch != first.Version.Epoch {
		t.Errorf("epoch %d, want %d as before", second.Version.Epoch, first.Version.Epoch)
	}
}

// TestManyTerms has more terms than are remembered, beside a process that slept
// through all of them, and one that slept through the last few.
func TestManyTerms(t *testing.T) {
	server := start(t, nil)
	asleep, s := open(t, server.URL(), quiet()), open(t, server.URL(), quiet())
	first := mustSwap(t, asleep, semel.Version{}, pending(0))
	last := first
	for n := 1; n <= 20; n++ {
		again(t, server)
		eventually(t, "a swap after a restart", func() error {
			r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(n))
			if err == nil && r.Record.Version.Epoch <= last.Version.Epoch {
				t.Fatalf("epoch %d after %d", r.Record.Version.Epoch, last.Version.Epoch)
			}
			if err == nil {
				last = r.Record
			}
			return err
		})
	}
	eventually(t, "the process that slept goes on", func() error {
		r, err := asleep.CompareAndSwap(context.Background(), first.Version, done(0))
		if err == nil && r.Record.Version.Epoch != last.Version.Epoch {
			return fmt.Errorf("it writes in epoch %d, and %d is the last", r.Record.Version.Epoch, last.Version.Epoch)
		}
		return err
	})
	if n := connect(t, server.Address()).do("HLEN", "semel:{0}!"); n > "30" {
		t.Errorf("the meta hash has %s fields", n)
	}
}
