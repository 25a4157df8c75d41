package resolve_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/resolve"
)

// What resolvers say that is short of an answer, too long, or nothing.
func TestAnswersThatAreOdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.policy("charge", func(_ context.Context, u semel.Unresolved) (semel.Settlement, error) {
			switch u.Record.Key.ID {
			case "no bytes":
				return semel.Settlement{State: semel.Done, Result: semel.Result{Code: 204}, Why: "it is there"}, nil
			case "no reason":
				return semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte("r")}}, nil
			}
			return semel.Settlement{State: semel.Done, Result: semel.Result{Code: 201, Data: []byte("r")}, Why: strings.Repeat("é", 3000)[1:]}, nil
		})
		p.Replay, p.Remember = 5*time.Hour, 50*time.Hour
		for _, id := range []string{"no bytes", "no reason", "a novel"} {
			w.doubt(id, p)
		}
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Owner: "host:1"})
		defer stop()
		time.Sleep(time.Second)
		for id, want := range map[string]string{"no bytes": "it is there", "no reason": "it gave no reason", "a novel": "éééé"} {
			a, ran, err := w.retry(id, p)
			if ran || err != nil || !a.Replayed || a.Code != 204 && string(a.Data) != "r" {
				t.Errorf("%s: got %d %q, ran %v, %v; want its answer", id, a.Code, a.Data, ran, err)
			}
			held, err := w.store.Get(t.Context(), w.guard().Digest(ask(id, p).Key))
			r := held.Record
			if err != nil || !strings.Contains(r.Owner, want) || !utf8.ValidString(r.Owner) || len(r.Owner) > 600 {
				t.Errorf("%s: the record says %q, %v; want %q", id, r.Owner, err, want)
			}
			if r.Replay != 5*time.Hour || r.TTL != 50*time.Hour {
				t.Errorf("%s: replayed for %v and remembered for %v, want its policy's times", id, r.Replay, r.TTL)
			}
		}
	})
}

// What a person has settled while it was queued is not asked for.
func TestNobodyAsksForWhatIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var p *semel.Policy
		p = w.policy("charge", func(_ context.Context, u semel.Unresolved) (semel.Settlement, error) {
			g := w.guard()
			for _, id := range []string{"a", "b"} {
				if id != u.Record.Key.ID {
					if _, err := g.Resolve(t.Context(), g.Digest(ask(id, p).Key), semel.Settlement{State: semel.Released, Who: "anna", Why: "I looked"}, p); err != nil {
						t.Error(err)
					}
				}
			}
			return done("x"), nil
		})
		w.doubt("a", p)
		w.doubt("b", p)
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Workers: 1})
		defer stop()
		time.Sleep(time.Minute)
		if w.called() != 1 || len(w.all()) != 1 {
			t.Errorf("%d calls, told %+v; want one of each", w.called(), w.all())
		}
	})
}

// Resolvers that hang do not pile up without an end.
func TestHungCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		mend := make(chan struct{})
		p := w.policy("charge", func(context.Context, semel.Unresolved) (semel.Settlement, error) {
			<-mend
			return semel.Settlement{}, nil
		})
		const most, workers = 256, 8
		for i := range most + 50 {
			w.doubt(fmt.Sprint(i), p)
		}
		_, stop := w.run(w.guard(), resolve.Options{Policies: []*semel.Policy{p}, Timeout: time.Second, Workers: workers})
		time.Sleep(10 * time.Minute)
		if n := w.called(); n < most || n > most+workers {
			t.Errorf("%d calls hang, want %d, and the workers' at most", n, most)
		}
		stop()
		close(mend)
	})
}
