package resolve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
)

const settings = `
upstream: %s
store: sqlite:%s
log-level: info
log-format: json
scope: header:Authorization
lease: 1s
wait: 0s
routes:
  - match: POST /charges
    timeout: 300ms
    resolve:
      path: /charges/by-key/{derived-key}
      done: [200]
      not-done: [404]
      not-done-after: 3s
      status: 201
      every: 200ms
  - match: POST /patient
    timeout: 0
    resolve: {path: "/charges/by-key/{derived-key}", not-done: [404], status: 201}
  - match: POST /hangs
    resolve: {path: "/hangs/{derived-key}", not-done: [404], timeout: 2s}
  - match: POST /errs
    resolve: {path: "/errs/{body.id}", not-done: [404]}
`

// scene is a gateway in front of the service.
type scene struct {
	*service
	*program.Gateway
}

func begin(t *testing.T) *scene {
	t.Helper()
	binary, err := semel()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{service: newService()}
	upstream := httptest.NewServer(s.service)
	t.Cleanup(upstream.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "semel.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, settings, upstream.URL, filepath.Join(dir, "semel.db")), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Gateway, err = program.NewGateway(binary, "--config", file); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// restart kills the gateway with -9 and starts it again.
func (s *scene) restart(t *testing.T) {
	t.Helper()
	s.Kill()
	if err := s.Start(20 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// told is an answer, or why there is none.
type told struct {
	status   int
	text     string // what has to be the same for ever: status, Location and body
	replayed bool
	link     string // to the status of the key
}

func (s *scene) post(path string, o order) told {
	body, err := json.Marshal(o)
	if err != nil {
		return told{}
	}
	return s.send(http.MethodPost, path, o.ID, string(body))
}

func (s *scene) send(method, path, key, body string) told {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.Address+path, strings.NewReader(body))
	if err != nil {
		return told{text: err.Error()}
	}
	r.Header.Set("Authorization", "client")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
		r.GetBody = nil
	}
	client := &http.Transport{DisableKeepAlives: true}
	resp, err := client.RoundTrip(r)
	if err != nil {
		return told{text: err.Error()}
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return told{text: err.Error()}
	}
	out := told{
		status: resp.StatusCode, text: fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location"), " ", string(all)),
		replayed: resp.Header.Get("Idempotent-Replayed") == "true",
	}
	for _, line := range resp.Header["Link"] {
		if target, ok := strings.CutSuffix(line, `>; rel="status"`); ok {
			out.link = target[1:]
		}
	}
	return out
}

// settle asks again and again until the answer is a charge.
func (s *scene) settle(path string, o order, limit time.Duration) told {
	deadline := time.Now().Add(limit)
	for {
		a := s.post(path, o)
		if a.status == http.StatusCreated || time.Now().After(deadline) {
			return a
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Lost answers and five kill -9: each order ends in one answer that stays, and
// the ledger has each charge once.
func TestEachEndsInOneAnswer(t *testing.T) {
	s := begin(t)
	const orders, kills = 125, 5
	modes := [...]string{"answered", "after", "before", "silent", "late"}
	answers := make([]told, orders)
	var clients sync.WaitGroup
	next := make(chan int)
	for range 12 {
		clients.Go(func() {
			for i := range next {
				answers[i] = s.settle("/charges", order{fmt.Sprintf("order-%d", i), modes[i%len(modes)]}, time.Minute)
			}
		})
	}
	killed := 0
	for i := range orders {
		next <- i
		if i%(orders/kills) == 23 { // a silent one
			for id := ""; id != fmt.Sprintf("order-%d", i); { // between the charge and its answer
				id = <-s.arrived
			}
			s.restart(t)
			killed++
		}
	}
	close(next)
	clients.Wait()
	double, lost, flip, stuck := 0, 0, 0, 0
	for i, a := range answers {
		o := order{fmt.Sprintf("order-%d", i), modes[i%len(modes)]}
		if a.status != http.StatusCreated {
			stuck++
			t.Errorf("%s (%s): the last answer is %s", o.ID, o.Mode, a.text)
			continue
		}
		for range 2 {
			if again := s.settle("/charges", o, 10*time.Second); again.text != a.text || !again.replayed {
				flip++
				t.Errorf("%s (%s): first %s, then %s, replayed %v", o.ID, o.Mode, a.text, again.text, again.replayed)
			}
		}
		switch charges, runs := s.charged(o.ID); {
		case len(charges) > 1:
			double++
			t.Errorf("%s (%s): charged %d times in %d runs", o.ID, o.Mode, len(charges), runs)
		case len(charges) == 0 || !strings.Contains(a.text, charges[0]):
			lost++
			t.Errorf("%s (%s): answered %s, and the ledger has %v", o.ID, o.Mode, a.text, charges)
		}
	}
	t.Logf("%d orders, %d lost answers, %d kill -9, %d questions: DOUBLE %d, LOST %d, FLIP %d, STUCK %d of %d (95 %%: at most %.1f %%)",
		orders, s.service.lost, killed, s.asked, double, lost, flip, stuck, orders, 300.0/orders)
	if s.lost < orders/3 || s.asked < s.lost {
		t.Errorf("%d answers were lost and %d questions asked: this shows nothing", s.lost, s.asked)
	}
}

// A resolver that hangs and one that fails keep nobody else waiting, and their
// keys stay in doubt.
func TestBadResolversBlockNobody(t *testing.T) {
	s := begin(t)
	for i := range 12 {
		for _, path := range [...]string{"/hangs", "/errs"} {
			if a := s.post(path, order{fmt.Sprintf("bad%s-%d", strings.ReplaceAll(path, "/", "-"), i), "after"}); a.status != http.StatusConflict {
				t.Fatalf("%s: got %s", path, a.text)
			}
		}
	}
	start := time.Now()
	var slowest time.Duration
	for i := range 5 {
		o := order{fmt.Sprintf("good-%d", i), "after"}
		began := time.Now()
		if a := s.settle("/charges", o, 20*time.Second); a.status != http.StatusCreated || len(s.charges[o.ID]) != 1 {
			t.Errorf("%s: got %s with %v", o.ID, a.text, s.charges[o.ID])
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("beside 24 keys whose resolvers hang or fail, 5 others were settled in %v, the slowest in %v", time.Since(start), slowest)
	for _, path := range [...]string{"/hangs", "/errs"} {
		a := s.post(path, order{"bad" + strings.ReplaceAll(path, "/", "-") + "-0", "after"})
		if state := s.send(http.MethodGet, a.link, "", ""); a.status != http.StatusConflict || !strings.Contains(state.text, `"in-doubt"`) {
			t.Errorf("%s: got %s and the status %s", path, a.text, state.text)
		}
	}
}

// A crash between the call of the upstream and its answer: the process that
// comes after it finds out by itself, nobody has to ask again. The log tells.
func TestKeysOfACrashAreFound(t *testing.T) {
	s := begin(t)
	o := order{"crashed", "silent"}
	var first told
	var wait sync.WaitGroup
	wait.Go(func() { first = s.post("/patient", o) })
	<-s.arrived
	running := s.post("/patient", o)
	s.restart(t)
	wait.Wait()
	if first.status != 0 || running.link == "" {
		t.Fatalf("got %+v and %+v, want no answer and a link", first, running)
	}
	var state told
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(state.text, `"done"`) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		state = s.send(http.MethodGet, running.link, "", "")
	}
	if !strings.Contains(state.text, `{"state":"done","status":201,"replayable":true}`) {
		t.Fatalf("the status is %s\n%s", state.text, s.Process.Output())
	}
	if a := s.post("/patient", o); a.status != http.StatusCreated || !a.replayed || s.runs[o.ID] != 1 {
		t.Errorf("the retry got %s, replayed %v, after %d runs", a.text, a.replayed, s.runs[o.ID])
	}
	const line = `"settled":"done"` // comes after the settlement
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.Process.Output(), line) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if !strings.Contains(s.Process.Output(), line) {
		t.Errorf("the log does not say that it was settled:\n%s", s.Process.Output())
	}
}
