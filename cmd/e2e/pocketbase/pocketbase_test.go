package pocketbase

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/internal/lossy"
)

// outside is the network between the clients and the gateway.
func outside() lossy.Faults {
	return lossy.Faults{
		RequestLost: 0.05, RequestCut: 0.03, AnswerLost: 0.08, AnswerCut: 0.04, HangUp: 0.04,
		Delayed: 0.2, MaxDelay: 10 * time.Millisecond,
	}
}

func network(t *testing.T, upstream string, number uint64, faults lossy.Faults) *lossy.Proxy {
	t.Helper()
	p, err := lossy.Start(lossy.Options{Upstream: upstream, Seed: number, Faults: faults})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestWithoutGateway proves that the storm and its checker can find what they
// look for: the same clients, network and application, and no gateway.
func TestWithoutGateway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Logf("seed %d", *seed)
	source := rand.New(rand.NewPCG(*seed, 2))
	app := startApp(t)
	s := newStorm(t, newOperations(source, 40, 12), network(t, app.address, *seed, outside()).Addr())
	s.run(ctx, plan(source, s.ops), 16, *seed)
	s.settleAll(ctx)
	held, err := app.records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := check(s.ops, s.journal.answers, held, nil)
	t.Logf("%d requests sent to the application itself; %s", s.sent.Load(), r)
	if r.double < len(s.ops)/2 || r.flip < len(s.ops)/2 || r.forged < len(s.ops)/2 || r.unmarked < len(s.ops)/2 {
		t.Errorf("without a gateway almost every operation must be executed more than once, and the check says: %s", r)
	}
	if r.stuck > 0 {
		t.Errorf("the application did not answer: %q", r.findings)
	}
}
