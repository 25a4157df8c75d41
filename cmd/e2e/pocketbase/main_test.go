// Package pocketbase puts the gateway in front of an application that nobody
// here wrote, PocketBase, and lets a storm of retries create each object once:
// through networks that lose requests and answers, and with the gateway killed
// by kill -9 again and again.
//
// The application runs as a process of its own, and so does the gateway. What is
// claimed is checked against three sources that know nothing of each other: what
// the clients were answered, what the application holds, and what `semel list`
// says of the store. The checker is tested as well: each count has a case that
// raises it, and the same storm without a gateway must show doubles.
//
//	go test ./cmd/e2e/pocketbase -v -seed 7
//
// It tests the composition and its processes. Put a test of one rule where the
// rule is.
package pocketbase

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
)

// seed is the only chance in the tests' plans. What the machine's timing adds
// cannot be repeated.
var seed = flag.Uint64("seed", 0, "repeat the plan of an earlier run; 0 draws one")

// scratch is removed at the end.
var scratch string

func TestMain(m *testing.M) {
	if dir := os.Getenv(appVariable); dir != "" {
		if err := serveApp(dir); err != nil {
			fmt.Fprintln(os.Stderr, "the application:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	var err error
	if scratch, err = os.MkdirTemp("", "semel-pocketbase-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// semel builds the command, once.
var semel = sync.OnceValues(func() (string, error) { return program.Build(scratch) })
