package program

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/semelhq/semel/internal/child"
)

// Build compiles the semel command into dir and gives the binary's path. The
// caller's working directory must lie in the module that holds the command.
func Build(dir string) (string, error) {
	binary := filepath.Join(dir, "semel.exe") // the suffix harms nobody
	out, err := exec.Command("go", "build", "-o", binary, "github.com/semelhq/semel/cmd/semel").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the semel command: %w\n%s", err, out)
	}
	return binary, nil
}

// Process is one process that was started. It does not outlive this one, as far
// as package child can see to that.
type Process struct {
	*child.Process
	command *exec.Cmd
	output  tail
}

// Start starts the command. Standard output and standard error are kept, as far
// as they are not redirected already.
func Start(command *exec.Cmd) (*Process, error) {
	p := &Process{command: command}
	if command.Stdout == nil {
		command.Stdout = &p.output
	}
	if command.Stderr == nil {
		command.Stderr = &p.output
	}
	command.WaitDelay = 5 * time.Second
	var err error
	p.Process, err = child.Start(command)
	return p, err
}

// Output gives the last 64 KiB of what the process wrote.
func (p *Process) Output() string { return p.output.String() }

// Terminate asks the process to end as an operator does, and gives its exit
// code. One that has not ended after the time limit is killed.
func (p *Process) Terminate(limit time.Duration) (int, error) {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	return p.Wait(limit)
}

// Wait waits for the end of the process and gives its exit code. One that has
// not ended after the time limit is killed.
func (p *Process) Wait(limit time.Duration) (int, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.Ended():
		return p.command.ProcessState.ExitCode(), nil
	case <-timer.C:
		p.Kill()
		return 0, fmt.Errorf("process %d had not ended after %v and was killed; it wrote:\n%s", p.PID(), limit, p.Output())
	}
}

// Serving waits until the process answers HTTP requests at the address. It asks
// for a tunnel, which every server refuses and none passes on.
func (p *Process) Serving(address string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		err := answers(address, deadline)
		if err == nil {
			return nil
		}
		select {
		case <-p.Ended():
			return fmt.Errorf("it ended with code %d before it answered at %s; it wrote:\n%s", p.command.ProcessState.ExitCode(), address, p.Output())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it did not answer at %s within %v: %w; it wrote:\n%s", address, limit, err, p.Output())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func answers(address string, deadline time.Time) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "CONNECT ready:1 HTTP/1.1\r\nHost: ready:1\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	_, err = http.ReadResponse(bufio.NewReader(c), nil)
	return err
}

// Address gives a loopback address that nobody listens at. Its port lies below
// those that systems give to outgoing connections, so it stays free while the
// process that listens there is down.
func Address() (string, error) {
	for range 200 {
		address := "127.0.0.1:" + strconv.Itoa(12_000+rand.IntN(18_000))
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port was found between 12000 and 30000")
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

const tailBytes = 64 << 10

// Write is part of io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept.Write(p)
	if over := t.kept.Len() - tailBytes; over > 0 {
		t.kept.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kept.String()
}
