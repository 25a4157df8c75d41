// Package child builds the programs that are measured and runs them, each as a
// private process on a free port of the loopback, and ends exactly those. A
// process of its own gives each side its own heap and its own garbage collector.
// None outlives the bench, as far as the root's package child can see to that.
// It is for this module's benches and is no way to run a service.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/semelhq/semel/internal/child"
)

// FreeAddress gives an address of the loopback that nobody listens on.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Process is a running program that serves Address.
type Process struct {
	*child.Process
	Address string
	command *exec.Cmd
	output  bytes.Buffer // read only after the process has ended
}

// startWithin is how long a program may take until it accepts connections.
const startWithin = 20 * time.Second

// Start runs the program at path, which is to listen on address, and waits until
// it does. env is added to this process' own environment.
func Start(ctx context.Context, address, path string, env []string, arguments ...string) (*Process, error) {
	name := filepath.Base(path)
	p := &Process{Address: address, command: exec.Command(path, arguments...)}
	p.command.Env = append(os.Environ(), env...)
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	var err error
	if p.Process, err = child.Start(p.command); err != nil {
		return nil, err
	}
	for limit := time.Now().Add(startWithin); ; {
		c, err := net.DialTimeout("tcp4", address, time.Second)
		if err == nil {
			return p, c.Close()
		}
		select {
		case <-p.Ended():
			return nil, fmt.Errorf("%s ended at once: %s", name, p.output.String())
		case <-ctx.Done():
			p.Stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(limit) {
			p.Stop()
			return nil, fmt.Errorf("%s does not listen: %s", name, p.output.String())
		}
	}
}

// Stop ends the process and waits for its end.
func (p *Process) Stop() {
	_ = p.command.Process.Signal(os.Interrupt)
	select {
	case <-p.Ended():
	case <-time.After(5 * time.Second):
		p.Kill()
	}
}

// CPU gives the processor time that the process has used, or 0 where the system
// does not tell by /proc.
func (p *Process) CPU() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0
	}
	user, system, err := ticks(string(text))
	if err != nil {
		return 0
	}
	const tick = 10 * time.Millisecond
	return time.Duration(user+system) * tick
}

// ticks reads the fields utime and stime, which are the 12th and 13th after the
// program's name in parentheses.
func ticks(stat string) (user, system int, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, 0, errors.New("too few fields")
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return user, system, errors.Join(err1, err2)
}
