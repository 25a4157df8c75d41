// Package late shows what becomes of copies that come late: by the thousand,
// before and after each of the two retentions, through two gateways, while the
// results are dropped, the keys forgotten, the gateway that sweeps killed, and the
// database replaced by its standby. What counts is the service's own ledger.
//
//	go test ./cmd/e2e/late -v
//
// Put tests of one sweep beside the store, and of the sweeper beside lifecycle.
package late

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
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
	if scratch, err = os.MkdirTemp("", "semel-late-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// ledger is the service: it does whatever it is told, and writes it down.
type ledger struct {
	mu   sync.Mutex
	runs map[string][]time.Time // by key, when they began
}

// ServeHTTP takes an order.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var o struct{ Key string }
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	l.runs[o.Key] = append(l.runs[o.Key], time.Now())
	n := len(l.runs[o.Key])
	l.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "receipt %d of %s", n, o.Key)
}
