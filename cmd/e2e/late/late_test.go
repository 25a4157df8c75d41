package late

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/cmd/internal/lossy"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/semelhttp"
)

const (
	replay   = 3 * time.Second
	remember = 8 * time.Second
	keys     = 600
	copies   = 6
	// begin is how long first requests come, and end the last copy's time.
	begin = 4 * time.Second
	end   = 18 * time.Second
	seed  = 20261121
)

const settings = `
upstream: %s
store: %s
scope: header:Authorization
require: true
lease: 1s
wait: 500ms
replay: %v
remember: %v
log-level: warn
lifecycle: {every: 1s}
`

// key is one operation, and what its copies were told.
type key struct {
	id      string
	timed   bool // carries its own time
	made    time.Time
	copies  []time.Duration // when they are sent
	answers []answer
}

// answer is what one copy was told.
type answer struct {
	sent, came time.Time
	status     int
	kind       string // of a problem
	original   int    // the status that a problem tells
	body       string
	replayed   bool
}

func (a answer) String() string {
	return fmt.Sprintf("%s–%s %d %s %q replayed %v", a.sent.Format("05.000"), a.came.Format("05.000"), a.status, a.kind, a.body, a.replayed)
}

// definitive tells whether the operation is known to have run.
func (a answer) definitive() bool {
	return a.status == http.StatusCreated || a.kind == "result-gone"
}

// plan draws the keys and the times of their copies. Opaque keys have no copy so
// late that the key may have been forgotten: nothing could tell it from a new one.
func plan() []*key {
	source := rand.New(rand.NewPCG(seed, 1))
	var out []*key
	for i := range keys {
		k := &key{id: fmt.Sprintf("order-%04d", i), timed: i%2 == 0}
		first := time.Duration(source.Int64N(int64(begin)))
		last := end
		if !k.timed {
			last = first + remember - 500*time.Millisecond
		}
		k.copies = append(k.copies, first)
		for range copies {
			k.copies = append(k.copies, first+time.Duration(source.Int64N(int64(last-first))))
		}
		slices.Sort(k.copies)
		out = append(out, k)
	}
	return out
}

// scene is two gateways over a primary that has a synchronous standby.
type scene struct {
	*ledger
	primary, standby *server.Postgres
	relay            *lossy.Proxy
	gateways         []*program.Gateway
	client           http.Client
}

func newScene(t *testing.T) *scene {
	t.Helper()
	binary, err := semel()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{ledger: &ledger{runs: make(map[string][]time.Time)}, client: http.Client{Timeout: 5 * time.Second}}
	upstream := httptest.NewServer(s.ledger)
	t.Cleanup(upstream.Close)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	s.primary, err = server.StartPostgres(filepath.Join(dir, "primary"), server.PostgresOptions{})
	must(err)
	t.Cleanup(func() { _ = s.primary.Kill() })
	s.standby, err = s.primary.Standby(filepath.Join(dir, "standby"), true)
	must(err)
	t.Cleanup(func() { _ = s.standby.Kill() })
	s.relay, err = lossy.Start(lossy.Options{Upstream: s.primary.Address(), Seed: seed})
	must(err)
	t.Cleanup(func() { _ = s.relay.Close() })
	store := strings.Replace(s.primary.URL("postgres"), s.primary.Address(), s.relay.Addr(), 1)
	file := filepath.Join(dir, "semel.yaml")
	must(os.WriteFile(file, fmt.Appendf(nil, settings, upstream.URL, store, replay, remember), 0o600))
	for range 2 {
		g, err := program.NewGateway(binary, "--config", file)
		must(err)
		t.Cleanup(g.Kill)
		must(g.Start(20 * time.Second))
		s.gateways = append(s.gateways, g)
	}
	return s
}

// send sends one copy.
func (s *scene) send(ctx context.Context, k *key, gateway int) answer {
	body := fmt.Sprintf(`{"key":%q}`, k.id)
	a := answer{sent: time.Now()}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.gateways[gateway].Address+"/orders", strings.NewReader(body))
	if err != nil {
		a.kind = err.Error()
		return a
	}
	r.Header.Set("Authorization", "client")
	r.Header.Set("Idempotency-Key", `"`+k.id+`"`)
	r.GetBody = nil
	resp, err := s.client.Do(r)
	if err != nil {
		a.kind, a.came = "no answer", time.Now()
		return a
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		a.kind = "half an answer"
	}
	a.came, a.status, a.body, a.replayed = time.Now(), resp.StatusCode, string(all), resp.Header.Get("Idempotent-Replayed") == "true"
	var problem struct {
		Type     string
		Original int `json:"original_status"`
	}
	if resp.StatusCode != http.StatusCreated && json.Unmarshal(all, &problem) == nil {
		a.kind, a.original = problem.Type[strings.LastIndexByte(problem.Type, '#')+1:], problem.Original
		a.body = ""
	}
	return a
}

// disturb kills the gateway that may be sweeping, and has the standby take over.
func (s *scene) disturb() error {
	time.Sleep(begin + replay/2)
	s.gateways[0].Kill()
	if err := s.gateways[0].Start(20 * time.Second); err != nil {
		return err
	}
	time.Sleep(replay / 2)
	if err := s.primary.Kill(); err != nil {
		return err
	}
	if err := s.standby.Promote(); err != nil {
		return err
	}
	s.relay.SetUpstream(s.standby.Address())
	time.Sleep(time.Second)
	s.gateways[1].Kill()
	return s.gateways[1].Start(20 * time.Second)
}

// run has all copies sent, each at its time or as soon after it as the machine can.
func (s *scene) run(t *testing.T, all []*key) {
	t.Helper()
	zero := time.Now()
	var clients, other sync.WaitGroup
	other.Go(func() {
		if err := s.disturb(); err != nil {
			t.Error(err)
		}
	})
	for i, k := range all {
		clients.Go(func() {
			for n, at := range k.copies {
				time.Sleep(time.Until(zero.Add(at)))
				if n == 0 && k.timed {
					k.id = semelhttp.NewKey()
				}
				if n == 0 {
					k.made = time.Now()
				}
				k.answers = append(k.answers, s.send(t.Context(), k, (i+n)%2))
			}
		})
	}
	clients.Wait()
	other.Wait()
}

// counts is what was found.
type counts struct {
	double, flip, early, overdue, silent     int
	replays, gone, expired, refused, unasked int
}

// judge looks at one key. Every bound is one that no delay can break: what is too
// early is measured from the first request's beginning, what is overdue from the
// first answer's arrival.
func (s *scene) judge(t *testing.T, k *key, c *counts) {
	t.Helper()
	bad := func(count *int, why string) {
		*count++
		t.Errorf("%s: %s, in %v; runs %v", k.id, why, k.answers, s.runs[k.id])
	}
	runs := s.runs[k.id]
	first := slices.IndexFunc(k.answers, answer.definitive)
	if first < 0 {
		c.unasked++
		return
	}
	for i, began := range runs {
		if i > 0 && (k.timed || began.Before(runs[0].Add(remember))) {
			bad(&c.double, "it ran again")
		}
	}
	receipt := ""
	for i, a := range k.answers {
		switch {
		case a.definitive() && len(runs) == 0:
			bad(&c.silent, "it is told as done and never ran")
		case a.status == http.StatusCreated && receipt != "" && a.body != receipt && len(runs) == 1:
			bad(&c.flip, "two different answers")
		case a.replayed && i > first && k.answers[first].status == http.StatusCreated && a.sent.After(k.answers[first].came.Add(replay)) && len(runs) == 1:
			bad(&c.overdue, "its result is there after its time")
		case a.kind == "result-gone" && (a.original != http.StatusCreated || a.came.Before(runs[0].Add(replay))):
			bad(&c.early, "its result is gone before its time, or the status is not told")
		case a.kind == "key-expired" && (!k.timed || a.came.Before(k.made.Add(remember-time.Millisecond))):
			bad(&c.early, "the key is refused as too old before its time")
		}
		switch {
		case a.replayed:
			c.replays++
		case a.kind == "result-gone":
			c.gone++
		case a.kind == "key-expired":
			c.expired++
		case a.status != http.StatusCreated:
			c.refused++
		}
		if a.status == http.StatusCreated && receipt == "" {
			receipt = a.body
		}
	}
}

// TestLateCopies: no copy has its operation run a second time, before and after
// each retention, through a failover (INVARIANTS X1, X2, X3).
func TestLateCopies(t *testing.T) {
	s := newScene(t)
	all := plan()
	s.run(t, all)
	var c counts
	for _, k := range all {
		s.judge(t, k, &c)
	}
	t.Logf("%d keys, %d copies each, through one promotion and two kills of gateways: %d replays, %d results gone, %d keys too old, %d other refusals, %d keys never answered",
		keys, copies, c.replays, c.gone, c.expired, c.refused, c.unasked)
	for _, zero := range []struct {
		name  string
		count int
	}{{"DOUBLE", c.double}, {"FLIP", c.flip}, {"SILENT", c.silent}, {"too early", c.early}, {"overdue", c.overdue}} {
		t.Logf("  %-9s %d of %d keys  (95 %%: <= %.4f)", zero.name, zero.count, keys, 3/float64(keys))
	}
	if least := min(c.replays, c.gone, c.expired); least < keys/10 || c.unasked > keys/10 {
		t.Errorf("it proves too little: %+v", c)
	}
	// Whatever was told last, a key that carries its time is never new again.
	for _, k := range all {
		if !k.timed {
			continue
		}
		if a := s.send(t.Context(), k, 1); a.kind != "key-expired" && a.kind != "result-gone" && a.kind != "outcome-unknown" {
			t.Errorf("%s, at the end: %v", k.id, a)
		}
	}
}
