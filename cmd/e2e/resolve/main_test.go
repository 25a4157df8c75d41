// Package resolve shows that a request whose outcome nobody knows comes to one
// definitive answer by configuration alone: the real gateway stands in front of a
// payment service that loses its answers, after the work and before it, and that
// can be asked by the key which the gateway derives. The gateway is killed with
// -9 meanwhile. What counts is the service's own ledger, which has no unique
// constraint.
//
//	go test ./cmd/e2e/resolve -v
//
// Put tests of templates and settings beside package gateway and the settings.
package resolve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
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
	if scratch, err = os.MkdirTemp("", "semel-resolve-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// order is what a client sends.
type order struct {
	ID string `json:"id"`
	// Mode is what becomes of the first request. answered: it is charged and answered.
	// after, before: the answer is lost after the charge, or before it. silent: it is
	// charged and never answered. late: it is charged after the gateway has given up.
	Mode string `json:"mode"`
}

// service is the payment service with its ledger. It charges whenever it is told.
type service struct {
	mu      sync.Mutex
	charges map[string][]string // by order
	byKey   map[string]string   // the last charge by derived key
	runs    map[string]int      // requests by order
	arrived chan string         // orders of the mode silent, once charged
	lost    int                 // answers
	asked   int
}

// lateBy is more than the gateway's patience, and less than it takes to believe that
// nothing was done.
const lateBy = 500 * time.Millisecond

func newService() *service {
	return &service{
		charges: make(map[string][]string), byKey: make(map[string]string), runs: make(map[string]int), arrived: make(chan string, 1000),
	}
}

// ServeHTTP takes orders at any path with POST, and tells by the derived key what
// became of one; at /hangs and /errs it does not.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		s.charge(w, r)
	case strings.HasPrefix(r.URL.Path, "/hangs/"):
		<-r.Context().Done()
	case strings.HasPrefix(r.URL.Path, "/errs/"):
		w.WriteHeader(http.StatusInternalServerError)
	default:
		s.tell(w, strings.TrimPrefix(r.URL.Path, "/charges/by-key/"))
	}
}

func (s *service) charge(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	key := r.Header.Get("Semel-Derived-Key")
	s.mu.Lock()
	s.runs[o.ID]++
	first := s.runs[o.ID] == 1
	if first && o.Mode == "late" {
		s.lost++
		s.mu.Unlock()
		time.Sleep(lateBy)
		s.mu.Lock()
	}
	loses := first && (o.Mode == "after" || o.Mode == "before" || o.Mode == "silent")
	if loses {
		s.lost++
	}
	var charge string
	if !first || o.Mode != "before" {
		charge = fmt.Sprintf("%s-%d", o.ID, len(s.charges[o.ID])+1)
		s.charges[o.ID] = append(s.charges[o.ID], charge)
		s.byKey[key] = charge
	}
	s.mu.Unlock()
	if loses && o.Mode != "silent" {
		panic(http.ErrAbortHandler)
	}
	if first && o.Mode == "silent" {
		s.arrived <- o.ID
		<-r.Context().Done() // the gateway has given up, or is dead
		return
	}
	answer(w, http.StatusCreated, charge)
}

func (s *service) tell(w http.ResponseWriter, key string) {
	s.mu.Lock()
	charge, known := s.byKey[key]
	s.asked++
	s.mu.Unlock()
	if !known {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	answer(w, http.StatusOK, charge)
}

// charged gives the charges of an order, and how often it came.
func (s *service) charged(id string) (charges []string, runs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.charges[id], s.runs[id]
}

func answer(w http.ResponseWriter, status int, charge string) {
	w.Header().Set("Location", "/charges/"+charge)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, "{\"charge\":%q}\n", charge)
}
