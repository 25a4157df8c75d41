package chaos

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/cmd/internal/storm"
)

const (
	// lease is short, so that what a kill left behind settles within a test.
	lease = time.Second
	// startWithin bounds the start of a gateway, which needs its store.
	startWithin = 10 * time.Second
	// settleWithin bounds the asking after the storm.
	settleWithin = 2 * time.Minute
	// rate is how many payments are begun in a second, each by several clients.
	rate = 40
)

// scene is all that a test has set up: clients, gateways, payment API.
type scene struct {
	t        *testing.T
	source   *rand.Rand // of the test's own decisions
	store    string     // its URL
	ledger   *storm.Ledger
	path     string // of the ledger
	api      *storm.API
	gateways []*program.Gateway
	journal  storm.Journal
	client   *storm.Client
	clients  *storm.Clients
	zero     time.Time // of the storm
}

// newScene starts the API and so many gateways in front of it, all on the same
// store. At most payments are asked for.
func newScene(t *testing.T, gateways, payments int, store string, o storm.APIOptions, arguments ...string) *scene {
	t.Helper()
	binary, err := semel()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, source: rand.New(rand.NewPCG(seed, 7)), store: store, path: filepath.Join(t.TempDir(), "ledger.jsonl")}
	if s.ledger, err = storm.OpenLedger(s.path); err != nil {
		t.Fatal(err)
	}
	if o.Seed == 0 {
		o.Seed = seed
	}
	if s.api, err = storm.StartAPI(s.ledger, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.api.Close()
		_ = s.ledger.Close() // its lines were written
	})
	var addresses []string
	for range gateways {
		g, err := program.NewGateway(binary, append([]string{
			"--upstream", "http://" + s.api.Address(), "--store", store, "--lease", lease.String(), "--wait", "500ms",
			"--require", "--log-format", "json", "--log-level", "warn",
		}, arguments...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Kill)
		if err := g.Start(startWithin); err != nil {
			t.Fatal(err)
		}
		s.gateways = append(s.gateways, g)
		addresses = append(addresses, g.Address)
	}
	s.client = storm.NewClient(&s.journal, addresses...)
	t.Cleanup(s.client.Close)
	s.clients = &storm.Clients{
		Client: s.client, Payments: storm.Plan(seed, payments, time.Duration(payments)*time.Second/rate),
	}
	t.Logf("SEMEL_CHAOS_SEED=%d", seed)
	return s
}

// storm has payments asked for until during returns.
func (s *scene) storm(ctx context.Context, during func() error) {
	s.t.Helper()
	over, wrong := make(chan struct{}), make(chan error, 1)
	s.zero = time.Now()
	go func() {
		defer close(over)
		wrong <- during()
	}()
	s.clients.Run(ctx, over)
	if err := <-wrong; err != nil {
		s.t.Fatal(err)
	}
}

// settle asks for everything that was begun until the answers are definitive.
func (s *scene) settle() {
	ctx, cancel := context.WithTimeout(s.t.Context(), settleWithin)
	defer cancel()
	s.clients.Settle(ctx)
}
