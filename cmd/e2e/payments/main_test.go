// Package payments proves the example application: cmd/examples/payments, a shop
// that takes orders and has a provider charge for them.
//
// Customers place an order and pay for it, each request several times over and
// again until there is an answer. Meanwhile the shop's processes are ended by
// kill -9, at random and at every named point of their code, PostgreSQL is killed,
// and the provider loses a fifth of its answers. What came of it is counted from
// four logs that know nothing of each other: the customers' journal, the provider's
// ledger, Semel's journal, and the rows of the shop's database.
//
// The example has no hooks for this. The points are put into a copy of its source
// that `go build -overlay` compiles in its place, and so are the mistakes of which
// the tests show that they are found.
//
//	go test ./cmd/e2e/payments -v              small: what `make test` runs
//	SEMEL_CHAOS=large go test ./cmd/e2e/payments -v -timeout 1h
package payments

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// size is how much of everything there is.
type size struct {
	customers int // each has two operations: an order and its payment
	kills     int // of a shop, at random
	rounds    int // of kills at every named point
	servers   int // kills of PostgreSQL
}

var (
	// sizes is chosen by SEMEL_CHAOS.
	sizes = size{customers: 100, kills: 3, rounds: 1, servers: 2}
	// seed is the only chance in the tests' plans. What the machine's timing adds
	// cannot be repeated. SEMEL_CHAOS_SEED repeats it.
	seed = rand.Uint64N(1_000_000) + 1
	// scratch is removed at the end.
	scratch string
)

func TestMain(m *testing.M) {
	switch text := os.Getenv("SEMEL_CHAOS"); text {
	case "", "small":
	case "large":
		sizes = size{customers: 1000, kills: 50, rounds: 3, servers: 15}
	default:
		fmt.Fprintf(os.Stderr, "SEMEL_CHAOS=%s: there are small and large\n", text)
		os.Exit(2)
	}
	var err error
	if text := os.Getenv("SEMEL_CHAOS_SEED"); text != "" {
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
	if scratch, err = os.MkdirTemp("", "semel-payments-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch) // a temporary directory
	os.Exit(code)
}
