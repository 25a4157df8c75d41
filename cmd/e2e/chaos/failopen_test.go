package chaos

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	root "github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/storm"
)

// TestFailOpen is for a route that goes on without its store: two gateways that
// cannot see each other both run what they are both asked for. Every such answer
// is flagged; when the store is back all of it is in there, each double is told,
// none is silent, and one answer stands.
func TestFailOpen(t *testing.T) {
	t.Parallel()
	const keys = 20 // of each kind
	db := startPostgres(t)
	s := newScene(t, 2, 2*keys, db.URL("postgres"), storm.APIOptions{Work: 2 * time.Millisecond}, "--cache", "none", "--fail-open")
	s.client.Patience(20 * time.Second)
	both, one := s.clients.Payments[:keys], s.clients.Payments[keys:]
	ask := func(payments []storm.Payment, gateway int) []storm.Entry {
		answers := make([]storm.Entry, len(payments))
		var all sync.WaitGroup
		for i := range payments {
			all.Go(func() {
				answers[i] = s.client.Ask(t.Context(), &payments[i], storm.Copy{Amount: payments[i].Amount}, gateway)
			})
		}
		all.Wait()
		return answers
	}
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	for gateway, payments := range [][]storm.Payment{append(both[:keys:keys], one...), both} {
		for again, answers := range [][]storm.Entry{ask(payments, gateway), ask(payments, gateway)} {
			for _, e := range answers {
				if e.Status != 201 || !e.Unconfirmed || e.Replayed != (again == 1) {
					t.Errorf("%s/%s through gateway %d, time %d: got %d %s, replayed %v, unconfirmed %v; want 201, flagged", e.Account, e.Key, gateway, again+1, e.Status, e.Reason, e.Replayed, e.Unconfirmed)
				}
			}
		}
	}
	if runs := s.ledger.Lines(); runs != 3*keys {
		t.Errorf("%d runs of %d keys, of which %d are asked for at both gateways, want %d", runs, 2*keys, keys, 3*keys)
	}
	if err := db.Start(); err != nil {
		t.Fatal(err)
	}
	kept := s.reconciled(2*keys, keys)
	for i, here := range ask(s.clients.Payments, 0) {
		there := ask(s.clients.Payments[i:i+1], 1)[0]
		if here.Status != 201 || here.Body != there.Body || here.Unconfirmed || there.Unconfirmed || !here.Replayed || !there.Replayed {
			t.Errorf("%s/%s after the outage: %d %q and %d %q, want one answer, confirmed", here.Account, here.Key, here.Status, here.Body, there.Status, there.Body)
		}
	}
	c := storm.Account(s.evidence(nil))
	told, silent := s.conflicts(), 0
	for i := range both {
		if name := (storm.Name{Account: both[i].Account, Key: both[i].Key}); !told[kept[name].Record.Digest.String()] {
			silent++
			t.Errorf("%s ran at both gateways, and neither tells", name)
		}
	}
	t.Logf("fail open: PostgreSQL away, %d keys run locally, flagged, and reconciled; %d of them ran at both gateways (DOUBLE, as the route accepts), %d conflicts told; silent doubles: %d of %d (95 %%: <= %.2g)",
		2*keys, c.Double, len(told), silent, c.Double, storm.Three(c.Double))
	if c.Double != keys || len(told) != keys || c.Lost+c.Leaked+c.Swallowed+c.Stuck+c.Unexpected > 0 {
		t.Errorf("want %d doubles, all told, and nothing else:\n%s%s", keys, c.String(), strings.Join(c.Findings, "\n"))
	}
}

// reconciled waits until the store has so many finished keys and the gateways
// have told of so many conflicts, and gives what the store has.
func (s *scene) reconciled(keys, conflicts int) map[storm.Name]storm.Kept {
	s.t.Helper()
	deadline := time.Now().Add(progressWithin)
	for {
		kept, finished := s.dump(), 0
		for _, k := range kept {
			if k.Record.State == root.Done {
				finished++
			}
		}
		told := len(s.conflicts())
		if finished >= keys && told >= conflicts {
			return kept
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%v after the store was back it has %d of %d keys, and %d of %d conflicts were told", progressWithin, finished, keys, told, conflicts)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// conflicts gives the digests of the keys of which a gateway's log says that
// they ran twice.
func (s *scene) conflicts() map[string]bool {
	all := map[string]bool{}
	for _, g := range s.gateways {
		for line := range strings.Lines(g.Process.Output()) {
			var told struct {
				Msg    string `json:"msg"`
				Digest string `json:"key_digest"`
			}
			if json.Unmarshal([]byte(line), &told) == nil && strings.Contains(told.Msg, "ran twice") {
				all[told.Digest] = true
			}
		}
	}
	return all
}
