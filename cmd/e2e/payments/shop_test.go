package payments

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/internal/server"
)

const (
	// lease is short, so that what a kill left behind settles within a test.
	lease = time.Second
	// startWithin bounds the start of a shop, which needs its database.
	startWithin = 20 * time.Second
)

// A shop is one process of the example, killed and started again at the same
// address.
type shop struct {
	address string
	command func(point string) *exec.Cmd
	process *program.Process
	running *exec.Cmd
}

// start starts the shop, to die at a point if that is not empty. One that ends
// before it serves, as it does while its database is away, is started again.
func (s *shop) start(point string) error {
	deadline := time.Now().Add(startWithin)
	for tries := 1; ; tries++ {
		var err error
		s.running = s.command(point)
		if s.process, err = program.Start(s.running); err != nil {
			return err
		}
		if err = s.process.Serving(s.address, startWithin); err == nil {
			return nil
		}
		if s.killed() { // at its point, while it started: what the resolver has, it has from before
			return nil
		}
		s.process.Kill()
		if time.Now().After(deadline) {
			return fmt.Errorf("the shop, started %d times: %w", tries, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// killed tells whether the process has ended by a signal.
func (s *shop) killed() bool {
	select {
	case <-s.process.Ended():
	default:
		return false
	}
	status, ok := s.running.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// scene is all that a test has set up: shops, provider, database.
type scene struct {
	t        *testing.T
	database *server.Postgres
	url      string
	ledger   string // the provider's file
	shops    []*shop
	market   *market
}

// newScene starts a database, a provider that loses a fifth of its answers, and
// so many shops.
func newScene(t *testing.T, binary string, shops int) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{t: t, ledger: filepath.Join(dir, "charges.jsonl")}
	var err error
	if s.database, err = server.StartPostgres(filepath.Join(dir, "postgres"), server.PostgresOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.database.Kill() })
	s.url = s.database.URL("postgres")
	charges, err := provider()
	if err != nil {
		t.Fatal(err)
	}
	by := address(t)
	at, err := program.Start(exec.Command(charges, "--listen", by, "--ledger", s.ledger, "--lose", "0.2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(at.Kill)
	var addresses []string
	for range shops {
		one := &shop{address: address(t)}
		one.command = func(point string) *exec.Cmd {
			c := exec.Command(binary, "--listen", one.address, "--database", s.url, "--provider", "http://"+by,
				"--lease", lease.String(), "--every", "250ms")
			c.Env = append(os.Environ(), "PAYMENTS_DIE_AT="+point)
			return c
		}
		if err := one.start(""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { one.process.Kill() })
		s.shops = append(s.shops, one)
		addresses = append(addresses, one.address)
	}
	s.market = newMarket(addresses)
	t.Logf("SEMEL_CHAOS_SEED=%d", seed)
	return s
}

func address(t *testing.T) string {
	t.Helper()
	a, err := program.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}
