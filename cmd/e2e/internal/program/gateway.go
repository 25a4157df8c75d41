package program

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Gateway is `semel gateway` as a process that can be killed and started again,
// with the same arguments and at the same address. Its methods are not for
// concurrent use.
type Gateway struct {
	// Address is where it listens.
	Address string
	// Process is the present one, nil before the first start.
	Process *Process

	binary    string
	arguments []string
}

// NewGateway prepares a gateway at a free loopback address, which is not among
// the arguments. The binary is Build's.
func NewGateway(binary string, arguments ...string) (*Gateway, error) {
	address, err := Address()
	if err != nil {
		return nil, err
	}
	return &Gateway{Address: address, binary: binary, arguments: slices.Concat([]string{"gateway", "--listen", address}, arguments)}, nil
}

// usage is the exit code of settings that are wrong: another try changes nothing.
const usage = 2

// Start starts it and waits until it answers. One that ends before that, as it
// does while its store is away, is started again until the limit.
func (g *Gateway) Start(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for tries := 1; ; tries++ {
		command := exec.Command(g.binary, g.arguments...)
		// Without the settings of a gateway of the user's own.
		command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SEMEL_") })
		var err error
		if g.Process, err = Start(command); err != nil {
			return err
		}
		if err = g.Process.Serving(g.Address, limit); err == nil {
			return nil
		}
		g.Process.Kill()
		if time.Now().After(deadline) || command.ProcessState.ExitCode() == usage {
			return fmt.Errorf("semel gateway, started %d times: %w", tries, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends it as kill -9 does.
func (g *Gateway) Kill() {
	if g.Process != nil {
		g.Process.Kill()
	}
}
