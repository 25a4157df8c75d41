package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
	"github.com/semelhq/semel/internal/server"
)

// own starts a server that a test may kill.
func own(t *testing.T, settings map[string]string) *server.Etcd {
	t.Helper()
	e, err := server.StartEtcd(t.TempDir(), server.EtcdOptions{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Kill() })
	return e
}

// plain is a client of etcd's own.
func plain(t testing.TB, e *server.Etcd, user, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.URL()}, Username: user, Password: password, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func pending(id string, nonce byte) semel.Record {
	key := semel.Key{Scope: "tenant", ID: id}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(id)), State: semel.Pending, Nonce: semel.Nonce{nonce, 1},
		Attempt: 1, TTL: time.Hour, Key: key, Owner: "test",
	}
}

func done(r semel.Record, nonce byte, result string) semel.Record {
	r.State, r.Nonce, r.Result, r.Replay = semel.Done, semel.Nonce{nonce, 2}, []byte(result), time.Hour
	return r
}

func swap(t testing.TB, s semel.Store, old semel.Version, next semel.Record) semel.Record {
	t.Helper()
	r, err := s.CompareAndSwap(t.Context(), old, next)
	if err != nil {
		t.Fatal(err)
	}
	return r.Record
}

// What was acknowledged is there after kill -9, while 8 callers write.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	e := own(t, nil)
	s := open(t, at(e, "kill"), etcd.Options{})
	var mu sync.Mutex
	acknowledged := map[semel.Digest]semel.Record{}
	const kills, each = 5, 60
	for round := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for caller := range 8 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					next := pending(fmt.Sprint(round, caller, i), byte(i))
					one, end := context.WithTimeout(ctx, 2*time.Second)
					r, err := s.CompareAndSwap(one, semel.Version{}, next)
					end()
					if err == nil {
						mu.Lock()
						acknowledged[next.Digest] = r.Record
						mu.Unlock()
					}
				}
			})
		}
		for len(held(&mu, acknowledged)) < (round+1)*each {
			time.Sleep(time.Millisecond)
		}
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		cancel()
		wg.Wait()
		if err := e.Start(); err != nil {
			t.Fatal(err)
		}
	}
	lost := 0
	for d, want := range acknowledged {
		r, err := s.Get(t.Context(), d)
		if err != nil || r.Record.Version != want.Version {
			t.Errorf("acknowledged at %v, now %v, %v", want.Version, r.Record.Version, err)
			lost++
		}
	}
	t.Logf("%d kills: LOST %d/%d (95%%: <= %.5f)", kills, lost, len(acknowledged), 3/float64(len(acknowledged)))
}

func held(mu *sync.Mutex, m map[semel.Digest]semel.Record) map[semel.Digest]struct{} {
	mu.Lock()
	defer mu.Unlock()
	out := make(map[semel.Digest]struct{}, len(m))
	for d := range m {
		out[d] = struct{}{}
	}
	return out
}

func etcdctl(t *testing.T, args ...string) string {
	t.Helper()
	command := exec.Command("etcdctl", args...)
	command.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("etcdctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// snapshot saves the server's state, and gives what puts it back: the server is
// killed and starts again from the snapshot, as a member of the same name.
func snapshot(t *testing.T, e *server.Etcd) (restore func()) {
	t.Helper()
	c := plain(t, e, "", "")
	members, err := c.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name, peer := members.Members[0].Name, members.Members[0].PeerURLs[0]
	file := filepath.Join(t.TempDir(), "snapshot")
	etcdctl(t, "--endpoints", e.URL(), "snapshot", "save", file)
	return func() {
		t.Helper()
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		data := filepath.Join(e.Dir(), "data")
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		etcdctl(t, "snapshot", "restore", file, "--data-dir", data, "--name", name,
			"--initial-cluster", name+"="+peer, "--initial-advertise-peer-urls", peer)
		if err := e.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// Field bug 29, by restore: after a snapshot was put back, revisions begin again
// where it was taken and the cluster's id is the same. No token comes twice, a
// stale owner matches nothing, and each store that was open goes on. After one
// lost write the revision is where it was, so nobody can notice; after more, the
// store that saw them does, and begins a new epoch.
func TestFieldBug29_TokensRegressAfterARestore(t *testing.T) {
	for _, more := range []int{0, 5} {
		t.Run(fmt.Sprint(1+more, " writes lost"), func(t *testing.T) { restored(t, more) })
	}
}

func restored(t *testing.T, more int) {
	e := own(t, nil)
	c := plain(t, e, "", "")
	idle, owner := open(t, at(e, "restore"), etcd.Options{}), open(t, at(e, "restore"), etcd.Options{})
	swap(t, idle, semel.Version{}, pending("before", 1))
	before, err := c.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	restore := snapshot(t, e)
	lost := swap(t, owner, semel.Version{}, pending("k", 1))
	for i := range more {
		swap(t, owner, semel.Version{}, pending(fmt.Sprint("more ", i), 1))
	}
	restore()
	after, err := c.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the cluster's id is the same: %t; revision %d, then %d", after.Header.ClusterId == before.Header.ClusterId, before.Header.Revision, after.Header.Revision)
	// A store that saw nothing of what was lost writes first, at a revision that was
	// given out before.
	heir := swap(t, idle, semel.Version{}, pending("k", 2))
	if heir.Version.Compare(lost.Version) <= 0 {
		t.Errorf("the heir's token is %v, the lost one was %v: it must be greater", heir.Version, lost.Version)
	}
	r, err := owner.CompareAndSwap(t.Context(), lost.Version, done(lost, 1, "of the lost claim"))
	if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != heir.Nonce {
		t.Errorf("the stale owner: got %v over %v, %v; want a conflict with the heir", r.Record.Version, lost.Version, err)
	}
	next := swap(t, owner, semel.Version{}, pending("after", 1))
	if more > 0 && next.Version.Epoch <= lost.Version.Epoch {
		t.Errorf("the epoch is still %d though the revision went back", next.Version.Epoch)
	}
	final := swap(t, idle, heir.Version, done(heir, 2, "of the heir"))
	if final.Version.Epoch < next.Version.Epoch {
		t.Errorf("a write of the old epoch %d went through in epoch %d", final.Version.Epoch, next.Version.Epoch)
	}
}

// Field bug 35: a restart loses claims. Neither an orderly one nor a kill does.
func TestFieldBug35_RestartLosesClaims(t *testing.T) {
	e := own(t, nil)
	s := open(t, at(e, "restart"), etcd.Options{})
	for i, end := range []func() error{e.Stop, e.Kill} {
		claim := swap(t, s, semel.Version{}, pending(fmt.Sprint("k", i), 1))
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(); err != nil {
			t.Fatal(err)
		}
		r, err := open(t, at(e, "restart"), etcd.Options{}).CompareAndSwap(t.Context(), semel.Version{}, pending(fmt.Sprint("k", i), 2))
		if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != claim.Nonce {
			t.Errorf("a second claim after the restart: %v, %v", r.Record.Nonce, err)
		}
		swap(t, s, claim.Version, done(claim, 1, "receipt"))
	}
}
