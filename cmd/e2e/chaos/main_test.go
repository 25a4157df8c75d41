// Package chaos kills what Semel stands on. Several `semel gateway` processes
// share one store in front of one payment API; clients ask for each payment many
// times; meanwhile the store's servers and the gateways are ended by kill -9 and
// started again, promoted, flushed, and cut off.
//
// At the end the account of package storm counts from four logs that know nothing
// of each other: the clients' journal, the API's ledger, the journal that Semel
// itself keeps, and a dump of the store. The checks are checked as well: each is
// seen to fail where what it is about is taken away.
//
//	go test ./cmd/e2e/chaos -v              small: what `make test` runs
//	SEMEL_CHAOS=large go test ./cmd/e2e/chaos -v -timeout 6h
//
// `make servers` installs the servers. It tests the composition: a test of one
// store's rules belongs beside that store.
package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
)

// size is how much of everything there is.
type size struct {
	postgresKills, mariadbKills, redisKills, etcdKills int
	gatewayKills                                       int // beside those of each server
	promotions                                         int // of each kind
	herds                                              int
}

func small() size { return size{15, 5, 5, 5, 5, 2, 1} }
func large() size { return size{300, 200, 200, 100, 500, 30, 100} }

var (
	// sizes is chosen by SEMEL_CHAOS.
	sizes = small()
	// seed is the only chance in the tests' plans. What the machine's timing adds
	// cannot be repeated. SEMEL_CHAOS_SEED repeats it.
	seed = rand.Uint64N(1_000_000) + 1
	// scratch is removed at the end.
	scratch string
	// semel builds the command, once.
	semel = sync.OnceValues(func() (string, error) { return program.Build(scratch) })
)

func TestMain(m *testing.M) {
	switch text := os.Getenv("SEMEL_CHAOS"); text {
	case "", "small":
	case "large":
		sizes = large()
	default:
		fmt.Fprintf(os.Stderr, "SEMEL_CHAOS=%s: there are small and large\n", text)
		os.Exit(2)
	}
	if text := os.Getenv("SEMEL_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			fmt.Fprintln(os.Stderr, "SEMEL_CHAOS_SEED:", err)
			os.Exit(2)
		}
	}
	// Most of each test is waiting, for servers and for leases.
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var err error
	if scratch, err = os.MkdirTemp("", "semel-chaos-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch) // a temporary directory
	os.Exit(code)
}
