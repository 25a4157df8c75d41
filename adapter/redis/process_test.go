package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/redis"
)

// ack is what a server acknowledged of one operation.
type ack struct {
	record semel.Record
	done   bool
}

// load claims and completes from many callers.
type load struct {
	store semel.Store
	next  atomic.Int64
	mu    sync.Mutex
	acks  []ack
}

func (l *load) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// run goes on until ctx ends, or until the server fails after enough was
// acknowledged.
func (l *load) run(ctx context.Context, enough int) {
	for ctx.Err() == nil {
		n := int(l.next.Add(1))
		r, err := l.store.CompareAndSwap(ctx, semel.Version{}, pending(n))
		if err != nil {
			if l.acknowledged() >= enough {
				return
			}
			continue
		}
		a := ack{record: r.Record}
		if r, err := l.store.CompareAndSwap(ctx, r.Record.Version, done(n)); err == nil {
			a = ack{r.Record, true}
		}
		l.mu.Lock()
		l.acks = append(l.acks, a)
		l.mu.Unlock()
	}
}

// TestKilled kills the server under load, again and again: with appendfsync
// always, what was acknowledged is there, and no token falls.
func TestKilled(t *testing.T) {
	const kills, callers, each = 8, 16, 300
	server := start(t, nil)
	s := open(t, server.URL(), redis.Options{Timeout: 2 * time.Second})
	if got := s.Describe().Survives; got != semel.SurvivesCrash {
		t.Fatalf("survives %v, want crash", got)
	}
	l := &load{store: s}
	for range kills {
		enough := l.acknowledged() + each
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() { l.run(ctx, enough) })
		}
		eventually(t, "some load", func() error {
			if n := l.acknowledged(); n < enough {
				return fmt.Errorf("%d of %d", n, enough)
			}
			return nil
		})
		again(t, server)
		wg.Wait()
		cancel()
	}
	missing, fell := 0, 0
	for _, a := range l.acks {
		var r semel.Reading
		eventually(t, "a read", func() (err error) {
			r, err = s.Get(t.Context(), a.record.Digest)
			return err
		})
		// A completion whose answer was lost may be there in place of its claim.
		if !r.Record.Held() || a.done && r.Record.Version != a.record.Version {
			missing++
		}
		if r.Record.Version.Compare(a.record.Version) < 0 {
			fell++
		}
	}
	if missing > 0 || fell > 0 {
		t.Errorf("of %d acknowledged operations %d are missing, and %d tokens fell", len(l.acks), missing, fell)
	}
	t.Logf("%d kills, %d operations acknowledged: LOST 0/%d (95%%: <= %.2g)", kills, len(l.acks), len(l.acks), 3/float64(len(l.acks)))
}

// TestHangs: a server that hangs costs the timeout, and nothing is done twice
// when it goes on.
func TestHangs(t *testing.T) {
	server := start(t, nil)
	s := open(t, server.URL(), redis.Options{Timeout: 300 * time.Millisecond, CheckEvery: time.Hour})
	held := mustSwap(t, s, semel.Version{}, pending(1))
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, swapped := s.CompareAndSwap(t.Context(), held.Version, done(1))
	_, read := s.Get(t.Context(), held.Digest)
	if took := time.Since(began); swapped == nil || read == nil || took > 20*time.Second {
		t.Errorf("a server that hangs: swap %v, read %v, after %v", swapped, read, took)
	}
	if errors.Is(swapped, semel.ErrConflict) || errors.Is(swapped, semel.ErrRejected) {
		t.Errorf("got error %v; want that nobody knows", swapped)
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the completion", func() error {
		r, err := s.CompareAndSwap(t.Context(), held.Version, done(1))
		if errors.Is(err, semel.ErrConflict) && r.Record.Nonce == done(1).Nonce {
			return nil // it had landed
		}
		return err
	})
}

// TestWire counts what goes over the wire: one command for a claim, a duplicate,
// a completion and a read, of which the duplicate and the read write nothing.
func TestWire(t *testing.T) {
	server := start(t, nil)
	a := connect(t, server.Address())
	s := open(t, server.URL(), quiet())
	var claim semel.Record
	for _, c := range []struct {
		name   string
		do     func() error
		writes bool
	}{
		{"claim", func() error {
			r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1))
			claim = r.Record
			return err
		}, true},
		{"duplicate of a claim", func() error { return duplicate(s, 1) }, false},
		{"completion", func() error {
			_, err := s.CompareAndSwap(t.Context(), claim.Version, done(1))
			return err
		}, true},
		{"duplicate of a finished operation", func() error { return duplicate(s, 1) }, false},
		{"completion with an old token", func() error {
			_, err := s.CompareAndSwap(t.Context(), claim.Version, done(1))
			if errors.Is(err, semel.ErrConflict) {
				return nil
			}
			return fmt.Errorf("want a conflict, got %w", err)
		}, false},
		{"read", func() error { _, err := s.Get(t.Context(), claim.Digest); return err }, false},
	} {
		a.do("CONFIG", "RESETSTAT")
		changes := a.info("rdb_changes_since_last_save")
		sent := a.info("aof_current_size")
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		calls := topLevel(a)
		wrote := a.info("rdb_changes_since_last_save") != changes || a.info("aof_current_size") != sent
		t.Logf("%-34s %s, writes: %t", c.name, calls, wrote)
		if calls != "evalsha calls=1" || wrote != c.writes {
			t.Errorf("%s: %s, writes: %t; want one evalsha, writes: %t", c.name, calls, wrote, c.writes)
		}
	}
}

// duplicate claims a key that is held.
func duplicate(s semel.Store, n int) error {
	r, err := s.CompareAndSwap(context.Background(), semel.Version{}, pending(n))
	if !errors.Is(err, semel.ErrConflict) || !r.Record.Held() {
		return fmt.Errorf("want a conflict with what is held, got %w", err)
	}
	return nil
}

// topLevel gives the commands that clients sent since the counts were reset, but
// for the admin's own and the first words of a new connection; what a script
// calls is left out, but for GET.
func topLevel(a *admin) string {
	var out []string
	for line := range strings.Lines(a.do("INFO", "commandstats")) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":")
		switch name {
		case "evalsha", "eval", "get", "set|get", "wait", "ping", "multi", "exec", "script|load":
			calls, _, _ := strings.Cut(rest, ",")
			out = append(out, name+" "+calls)
		}
	}
	return strings.Join(out, ", ")
}

func TestWatch(t *testing.T) {
	server := start(t, nil)
	s, other := open(t, server.URL(), quiet()), open(t, server.URL(), quiet())
	claim, neighbour := mustSwap(t, s, semel.Version{}, pending(1)), mustSwap(t, s, semel.Version{}, pending(2))
	changed, stop := s.Watch(claim.Digest)
	defer stop()
	a := connect(t, server.Address())
	eventually(t, "the subscription", func() error {
		if got := a.do("PUBSUB", "NUMSUB", "semel:news:0"); !strings.Contains(got, "1") {
			return errors.New(got)
		}
		return nil
	})
	// Another process ends another key, then renews this one, then ends it.
	mustSwap(t, other, neighbour.Version, done(2))
	renewed := mustSwap(t, other, claim.Version, pending(1))
	select {
	case <-changed:
		t.Error("news of another key, or of a renewal")
	case <-time.After(50 * time.Millisecond): // decides nothing: a late report fails below, as a second one
	}
	mustSwap(t, other, renewed.Version, done(1))
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Error("no news of an end")
	}
	stop()
	stop()
}
