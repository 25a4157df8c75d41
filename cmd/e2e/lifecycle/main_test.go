// Package lifecycle shows how long a key lives behind the real gateway: its result
// goes first, then the key, then its lines of the journal, which are in the archive
// by then; and who sees to that while gateways are killed with -9. What counts is
// the service's own ledger.
//
//	go test ./cmd/e2e/lifecycle -v
//
// Put tests of one sweep beside the store, of the sweeper beside lifecycle, and of
// many late copies into e2e/late.
package lifecycle

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
)

// scratch is removed at the end.
var scratch string

// semel builds the command, once.
var semel = sync.OnceValues(func() (string, error) { return program.Build(scratch) })

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "semel-lifecycle-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := servers.Run(m)
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// patience bounds each wait: so long, on the slowest machine.
const patience = 60 * time.Second

// scene is a service, and gateways in front of it over one SQLite file.
type scene struct {
	t        *testing.T
	binary   string
	dir      string
	store    string
	gateways []*program.Gateway
	mu       sync.Mutex
	runs     map[string][]time.Time
}

// open starts gateways with some more lines of settings.
func open(t *testing.T, gateways int, settings string) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), runs: make(map[string][]time.Time)}
	var err error
	if s.binary, err = semel(); err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(s)
	t.Cleanup(service.Close)
	s.store = "sqlite:" + filepath.Join(s.dir, "semel.db")
	file := filepath.Join(s.dir, "semel.yaml")
	text := fmt.Sprintf("upstream: %s\nstore: %s\nscope: shared\nlog-level: warn\nlease: 1s\n%s", service.URL, s.store, settings)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range gateways {
		g, err := program.NewGateway(s.binary, "--config", file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Kill)
		if err := g.Start(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		s.gateways = append(s.gateways, g)
	}
	return s
}

// ServeHTTP is the service: it does whatever it is told, and writes it down.
func (s *scene) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[string(key)] = append(s.runs[string(key)], time.Now())
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "run %d", len(s.runs[string(key)]))
}

// ran gives when a key's operation ran.
func (s *scene) ran(key string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.runs[key]...)
}

// answer is what a client is told.
type answer struct {
	status   int
	body     string
	kind     string // of a problem
	original int
}

// send sends a copy of a key's request through a gateway.
func (s *scene) send(gateway int, key string) answer {
	s.t.Helper()
	r := httptest.NewRequest("POST", "http://"+s.gateways[gateway].Address+"/orders", strings.NewReader(key))
	r.Header.Set("Idempotency-Key", `"`+key+`"`)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var problem struct {
		Type     string
		Original int `json:"original_status"`
	}
	_ = json.Unmarshal(body, &problem) // of a problem only
	return answer{resp.StatusCode, string(body), problem.Type[strings.LastIndexByte(problem.Type, '#')+1:], problem.Original}
}

// held is a record as `semel list` tells it.
type held struct {
	Key, State, Owner string
	Bytes             int `json:"result_bytes"`
}

// list gives the records of a scope, of operations if it is empty.
func (s *scene) list(scope string) map[string]held {
	s.t.Helper()
	arguments := []string{"list", "--json", "--limit", "10000", "--store", s.store}
	if scope != "" {
		arguments = append(arguments, "--scope", scope)
	}
	out, err := exec.CommandContext(s.t.Context(), s.binary, arguments...).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	var all struct{ Records []held }
	if err := json.Unmarshal(out, &all); err != nil {
		s.t.Fatal(err)
	}
	records := make(map[string]held)
	for _, r := range all.Records {
		records[r.Key] = r
	}
	return records
}

// wait waits until something is so.
func (s *scene) wait(what string, so func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("after %v it is not so that %s", patience, what)
		}
	}
}
