// Package child builds the programs that are measured and runs them, each as a
// private process on a free port of the loopback, and ends exactly those. A
// process of its own gives each side its own heap and its own garbage collector.
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
	Address string
	command *exec.Cmd
	output  bytes.Buffer // read only after the process has ended
	ended   chan struct{}
}

// startWithin is how long a program may take until it accepts connections.
const startWithin = 20 * time.Second

// Start runs the program at path, which is to listen on address, and waits until
// it does. env is added to this process' own environment.
func Start(ctx context.Context, address, path string, env []string, arguments ...string) (*Process, error) {
	name := filepath.Base(path)
	p := &Process{Address: address, command: exec.Command(path, arguments...), ended: make(chan struct{})}
	p.command.Env = append(os.Environ(), env...)
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.command.Wait() // what it printed says more
		close(p.ended)
	}()
	for limit := time.Now().Add(startWithin); ; {
		c, err := net.DialTimeout("tcp4", address, time.Second)
		if err == nil {
			return p, c.Close()
		}
		select {
		case <-p.ended:
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
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}

// CPU gives the processor time that the process has used, or 0 where the system
// does not tell by /proc.
func (p *Process) CPU() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
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
