// Package quota shows quotas with real gateways, as processes in front of a service
// that counts what reaches it: a client over its quota is told when to come back,
// comes back then, and gets in; two gateways that share a quota through their store
// never let more in together, also when one of them is killed with -9; and what
// they tell of their policies is what they do.
//
//	go test ./cmd/e2e/quota -v
//
// Put tests of the quota's own numbers beside package lifecycle.
package quota

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/semelhttp"
)

var servers server.Set

// scratch is removed at the end.
var scratch string

// semel builds the command, once.
var semel = sync.OnceValues(func() (string, error) { return program.Build(scratch) })

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "semel-quota-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := servers.Run(m)
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// service counts the requests that reach it.
type service struct{ runs atomic.Int64 }

// ServeHTTP answers with the count.
func (s *service) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, s.runs.Add(1))
}

// gateways starts n gateways with the same settings in front of one service.
func gateways(t *testing.T, n int, settings string) (*service, []*program.Gateway) {
	t.Helper()
	binary, err := semel()
	if err != nil {
		t.Fatal(err)
	}
	behind := new(service)
	upstream := httptest.NewServer(behind)
	t.Cleanup(upstream.Close)
	file := filepath.Join(t.TempDir(), "semel.yaml")
	if err := os.WriteFile(file, []byte("upstream: "+upstream.URL+"\n"+settings), 0o600); err != nil {
		t.Fatal(err)
	}
	var all []*program.Gateway
	for range n {
		g, err := program.NewGateway(binary, "--config", file)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Start(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Kill)
		all = append(all, g)
	}
	return behind, all
}

// told is an answer that was read.
type told struct {
	*http.Response
	body string
}

func send(t *testing.T, client *http.Client, g *program.Gateway, who, key string) told {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.Address+"/orders", strings.NewReader("one coffee"))
	if err != nil {
		t.Error(err)
		return told{new(http.Response), ""}
	}
	r.Header.Set("Authorization", who)
	r.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return told{new(http.Response), ""}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	return told{resp, string(body)}
}

func TestTooMuchThenItGoes(t *testing.T) {
	behind, all := gateways(t, 1, "store: \"memory:\"\nquota: {new-keys: 3, per: 24s, burst: 3}\n")
	g, plain := all[0], http.DefaultClient
	for range 3 { // duplicates use up nothing
		for i := range 3 {
			if a := send(t, plain, g, "alice", fmt.Sprint("order-", i)); a.StatusCode != 200 || a.Header.Get("Semel-Retention") == "" {
				t.Fatalf("order %d: %d %s", i, a.StatusCode, a.body)
			}
		}
	}
	over := send(t, plain, g, "alice", "order-3")
	problem, ok := semelhttp.ReadProblem(over.Response)
	if over.StatusCode != 429 || !ok || problem.Kind() != semelhttp.QuotaExceeded || problem.RetryAfter < time.Second || problem.RetryAfter > 8*time.Second {
		t.Fatalf("over quota: %d %s, Retry-After %s", over.StatusCode, over.body, over.Header.Get("Retry-After"))
	}
	if a := send(t, plain, g, "alice", "order-1"); a.StatusCode != 200 || a.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a retry over quota: %d %s", a.StatusCode, a.body)
	}
	if a := send(t, plain, g, "bob", "order-3"); a.StatusCode != 200 {
		t.Errorf("another client: %d %s", a.StatusCode, a.body)
	}
	patient := &http.Client{Transport: &semelhttp.Transport{}}
	if a := send(t, patient, g, "alice", "order-3"); a.StatusCode != 200 || a.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("the same request, sent by a client that waits as it is told: %d %s", a.StatusCode, a.body)
	}
	if n := behind.runs.Load(); n != 5 {
		t.Errorf("%d ran, want 5", n)
	}
}

func TestTogetherTheyStayWithinIt(t *testing.T) {
	for name, store := range map[string]func(t *testing.T) string{
		"sqlite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "semel.db") },
		"postgresql": func(t *testing.T) string { return servers.Postgres(t).URL("postgres") },
	} {
		t.Run(name, func(t *testing.T) {
			const most, clients, each = 100, 8, 40
			// A window of most of a year, so that none ends meanwhile.
			settings := fmt.Sprintf("store: %q\nquota: {new-keys: %d, per: 8760h, shared: true, block: 7, within: 5s, alone: 0}\n", store(t), most)
			behind, all := gateways(t, 2, settings)
			var in, over atomic.Int64
			storm := func(round int) {
				var running sync.WaitGroup
				for c := range clients {
					running.Go(func() {
						for i := range each {
							switch a := send(t, http.DefaultClient, all[(c+i)%2], "alice", fmt.Sprintf("order-%d-%d-%d", round, c, i)); a.StatusCode {
							case 200:
								in.Add(1)
							case 429:
								over.Add(1)
							default:
								t.Errorf("%d %s", a.StatusCode, a.body)
							}
						}
					})
				}
				running.Wait()
			}
			storm(1)
			if in.Load() != most || behind.runs.Load() != most || over.Load() != clients*each-most {
				t.Errorf("%d let in, %d ran, %d over quota; want %d, %d and %d", in.Load(), behind.runs.Load(), over.Load(), most, most, clients*each-most)
			}
			all[0].Kill() // and with it what it knew
			if err := all[0].Start(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			storm(2)
			if in.Load() != most || behind.runs.Load() != most {
				t.Errorf("after a kill -9: %d let in, %d ran; want %d", in.Load(), behind.runs.Load(), most)
			}
			if a := send(t, http.DefaultClient, all[0], "bob", "order"); a.StatusCode != 200 {
				t.Errorf("another client: %d %s", a.StatusCode, a.body)
			}
		})
	}
}

func TestThePolicyIsWhatItDoes(t *testing.T) {
	_, all := gateways(t, 1, `store: "memory:"
replay: 48h
remember: 7d
routes:
  - match: POST /orders
    require: true
    quota: {in-flight: 9}
    fingerprint: {json: true, exclude: [/sentAt]}
`)
	base := "http://" + all[0].Address
	resp, err := http.Post(base+"/orders", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var target string
	for _, link := range resp.Header["Link"] {
		if to, ok := strings.CutSuffix(link, `>; rel="service-desc"`); ok {
			target = to[1:]
		}
	}
	var p semelhttp.PolicyDocument
	if resp, err = http.Get(base + target); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != 200 {
		t.Fatalf("the link %q: %d, %v", target, resp.StatusCode, err)
	}
	if p.Key.Without != "refused" || !p.Quota || p.Fingerprint.Body != "json, without /sentAt" || p.Retention != (semelhttp.RetentionPolicy{Replay: 172800, Remember: 604800}) {
		t.Errorf("the policy is %+v", p)
	}
	sent, err := http.NewRequest(http.MethodPost, base+"/orders", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	sent.Header.Set("Authorization", "alice")
	sent.Header.Set(p.Key.Header, "order-1")
	if resp, err = http.DefaultClient.Do(sent); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	said, err := httpsfv.UnmarshalDictionary(resp.Header["Semel-Retention"])
	if err != nil || len(said.Names()) != 2 {
		t.Errorf("%q is no dictionary of two: %v", resp.Header["Semel-Retention"], err)
	}
	want := "replay=" + strconv.FormatInt(p.Retention.Replay, 10) + ", remember=" + strconv.FormatInt(p.Retention.Remember, 10)
	if got := resp.Header.Get("Semel-Retention"); got != want {
		t.Errorf("Semel-Retention is %q, and the policy says %q", got, want)
	}
}
