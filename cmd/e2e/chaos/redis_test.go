package chaos

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel/cmd/internal/storm"
	"github.com/semelhq/semel/internal/server"
)

// operator is a connection to a Redis server, beside Semel's.
type operator struct {
	t      *testing.T
	client rueidis.Client
}

func operate(t *testing.T, r *server.Redis) *operator {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Address()}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &operator{t, client}
}

// do sends a command and gives the answer, whatever it is.
func (o *operator) do(command ...string) (rueidis.RedisMessage, error) {
	return o.client.Do(context.Background(), o.client.B().Arbitrary(command...).Build()).ToMessage()
}

// must is do, for what cannot fail.
func (o *operator) must(command ...string) rueidis.RedisMessage {
	o.t.Helper()
	answer, err := o.do(command...)
	if err != nil && !rueidis.IsRedisNil(err) {
		o.t.Fatalf("%q: %v", command, err)
	}
	return answer
}

// TestRedisFailover has Sentinel promote a replica that had not received all.
// Redis is the weaker arbiter that its README says it is: what was lost is lost.
// But the gateways had seen more than the new master knows: they notice, refuse
// everything, and nothing runs twice, until somebody accepts the loss.
func TestRedisFailover(t *testing.T) {
	t.Parallel()
	group, err := server.StartSentinel(filepath.Join(t.TempDir(), "redis"), server.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = group.Kill() })
	address := "redis+sentinel://" + strings.Join(group.Addresses(), ",") + "/0?master=" + group.Name()
	s := newScene(t, 2, planned(5), address, storm.APIOptions{}, "--cache", "none")
	var at []time.Duration
	s.storm(t.Context(), func() error {
		if err := s.busy(t.Context(), 200); err != nil {
			return err
		}
		if err := group.Replica.Kill(); err != nil {
			return err
		}
		err := s.made(t.Context(), lagging) // what it does now is lost
		at = append(at, time.Since(s.zero))
		if err != nil {
			return err
		}
		if err := group.Master.Kill(); err != nil {
			return err
		}
		if err := group.Replica.Start(); err != nil {
			return err
		}
		return awaitPromotion(group)
	})
	told := len(s.journal.All())
	s.askAll()
	s.store = address + "&accept-loss=any" // to look at what is left
	e := s.evidence(at)
	c := storm.Account(e)
	w := s.window(e, told)
	t.Logf("Redis, failover by Sentinel\n%s%s", c.String(), w)
	if c.Double+c.Swallowed+c.Leaked+c.Regressed+c.Untold+c.Unexpected > 0 {
		t.Errorf("found:\n%s\n%s", strings.Join(c.Findings, "\n"), c.Story(&e, 3))
	}
	if w.gone == 0 || w.refused != w.gone || w.again > 0 {
		t.Errorf("of the keys that were made and lost all must be refused, and some must be there: %s", w)
	}
}

func awaitPromotion(group *server.Sentinel) error {
	deadline := time.Now().Add(progressWithin)
	for {
		master, err := group.Promoted()
		if err == nil && master == group.Replica {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sentinels promoted nobody within %v: %w", progressWithin, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestRedisFlushed empties the arbiter itself. The store's own mark goes with the
// keys, so it is noticed, and refused.
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	db, err := server.StartRedis(filepath.Join(t.TempDir(), "redis"), server.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Kill() })
	s := newScene(t, 2, planned(3), db.URL(), storm.APIOptions{}, "--cache", "none")
	var at []time.Duration
	s.storm(t.Context(), func() error {
		if err := s.made(t.Context(), 2*lagging); err != nil {
			return err
		}
		at = append(at, time.Since(s.zero))
		operate(t, db).must("FLUSHALL")
		return nil
	})
	told := len(s.journal.All())
	s.askAll()
	s.store = db.URL() + "?accept-loss=any"
	e := s.evidence(at)
	c := storm.Account(e)
	w := s.window(e, told)
	t.Logf("Redis, FLUSHALL of the arbiter\n%s%s", c.String(), w)
	if c.Double+c.Swallowed+c.Leaked+c.Unexpected > 0 || w.gone < lagging || w.refused < w.gone || w.again > 0 {
		t.Errorf("all keys that were made are gone, and must be refused: %s\n%s", w, strings.Join(c.Findings, "\n"))
	}
}
