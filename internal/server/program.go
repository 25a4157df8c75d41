package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/semelhq/semel/internal/child"
)

// errPortTaken is in the error of a start that failed because the port was not free.
var errPortTaken = errors.New("another process has the port")

const (
	startTimeout = 60 * time.Second // a machine under load, never the usual
	stopTimeout  = 30 * time.Second
	goneTimeout  = 30 * time.Second
	pollEvery    = 5 * time.Millisecond
	logLines     = 20
	toolLines    = 60 // mariadb-install-db says what is wrong before a page of advice
)

// program is one server: what to run, how to see that it answers, and the
// process while there is one. Its exported methods are those of all servers.
type program struct {
	name     string // "PostgreSQL"
	version  string
	dir      string
	account  account
	command  func() *exec.Cmd
	ready    func(pid int) error // one attempt; nil when this very process answers
	orderly  syscall.Signal      // asks it to end in good order
	atEnd    func()              // tidies what a process leaves outside of its directory; nil: nothing
	mu       sync.Mutex
	process  *child.Process // nil: none; read and written with mu
	paused   bool
	pausedAt []int // its processes
}

// Start starts the server again, on the same data and the same port, after Kill
// or Stop or after it has ended by itself. It returns when the server answers.
// The error is that it runs already, or the end of its log.
func (p *program) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("start %s: it runs already, as process %d; Kill or Stop it first", p.name, p.process.PID())
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	info, err := log.Stat()
	if err != nil {
		return errors.Join(err, log.Close())
	}
	command := p.command()
	p.account.apply(command)
	command.Stdout, command.Stderr = log, log
	if command.Env == nil {
		command.Env = environment(p.dir)
	}
	process, err := child.Start(command)
	if err := errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.process = process
	if err := p.await(info.Size()); err != nil {
		p.end()
		return err
	}
	return nil
}

// await waits until the process answers, or is gone, or it took too long. The
// log of this start begins at an offset.
func (p *program) await(logFrom int64) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := p.ready(p.process.PID())
		if err == nil {
			return nil
		}
		select {
		case <-p.process.Ended():
			return p.failed(fmt.Sprintf("it ended (%v)", p.process.Err()), logFrom)
		case <-timeout.C:
			return p.failed(fmt.Sprintf("no answer after %v (%v)", startTimeout, err), logFrom)
		case <-tick.C:
		}
	}
}

// failed is the error of a start, with the end of the log.
func (p *program) failed(what string, logFrom int64) error {
	text, err := os.ReadFile(p.log())
	if err != nil {
		text = []byte(err.Error())
	} else {
		text = text[min(logFrom, int64(len(text))):]
	}
	cause := errors.New(what)
	if bytes.Contains(bytes.ToLower(text), []byte("address already in use")) {
		cause = fmt.Errorf("%s: %w", what, errPortTaken)
	}
	return fmt.Errorf("start %s %s in %s: %w; the end of its log:\n%s", p.name, p.version, p.dir, cause, lastLines(string(text), logLines))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return "\t" + strings.Join(lines[max(0, len(lines)-n):], "\n\t")
}

func (p *program) log() string { return filepath.Join(p.dir, "log") }

// Kill kills all processes of the server with SIGKILL, at once, and returns when
// they are gone. A server that does not run is no error.
func (p *program) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end()
}

// end is Kill with mu held.
func (p *program) end() error {
	if p.process == nil {
		return nil
	}
	var family []int
	if p.running() {
		// Stopped, the first process can neither fork nor see that its children die.
		family = freeze(p.process.PID())
	}
	for _, pid := range family {
		kill(pid, syscall.SIGKILL)
	}
	p.process.Kill()
	if p.paused {
		family = append(family, p.pausedAt...)
	}
	p.process, p.paused, p.pausedAt = nil, false, nil
	deadline := time.Now().Add(goneTimeout)
	for _, pid := range family {
		for !gone(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("kill %s: process %d is still there after %v", p.name, pid, goneTimeout)
			}
			time.Sleep(pollEvery)
		}
	}
	if p.atEnd != nil {
		p.atEnd()
	}
	return nil
}

// Stop ends the server in good order, as its operator would, and returns when it
// has ended. Its files stay. A server that takes longer than 30 s is killed, and
// that is an error; one that does not run is none.
func (p *program) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return p.end()
	}
	p.resume()
	kill(p.process.PID(), p.orderly)
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.process.Ended():
		return p.end()
	case <-timeout.C:
		return errors.Join(fmt.Errorf("stop %s: it has not ended %v after %v, and was killed", p.name, stopTimeout, p.orderly), p.end())
	}
}

// Pause stops all processes of the server with SIGSTOP: connections stay open
// and nothing is answered. Resume lets them go on.
func (p *program) Pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("pause %s: it does not run", p.name)
	}
	if p.paused {
		return nil
	}
	p.paused, p.pausedAt = true, freeze(p.process.PID())
	for _, pid := range p.pausedAt {
		kill(pid, signalStop)
	}
	return nil
}

// Resume lets a paused server go on; one that is not paused does so anyway.
func (p *program) Resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resume()
	return nil
}

// resume is Resume with mu held.
func (p *program) resume() {
	if p.running() {
		for _, pid := range p.pausedAt {
			kill(pid, signalContinue)
		}
	}
	p.paused, p.pausedAt = false, nil
}

// running tells whether the server's first process is there. It is called with
// mu held, before a signal is sent: the number of a process that has ended may
// be another's by now.
func (p *program) running() bool {
	if p.process == nil {
		return false
	}
	select {
	case <-p.process.Ended():
		return false
	default:
		return true
	}
}

// PID is the process id of the server's first process, 0 when it does not run.
func (p *program) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.process.PID()
}

// Version is what the server's binary says of itself, such as "15.18".
func (p *program) Version() string { return p.version }

// Dir is the directory of the server.
func (p *program) Dir() string { return p.dir }

// run runs a tool of the server to its end, as the server's user, and returns
// what it printed. The error tells what it said.
func (p *program) run(env []string, name string, args ...string) (string, error) {
	command := exec.Command(name, args...)
	p.account.apply(command)
	command.Dir = p.dir
	command.Env = append(environment(p.dir), env...)
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	err := runChild(command, startTimeout)
	if err != nil {
		return "", fmt.Errorf("%s: %w:\n%s", filepath.Base(name), err, lastLines(complaint.String()+out.String(), toolLines))
	}
	return strings.TrimSpace(out.String()), nil
}

// runChild runs a command to its end, for at most timeout.
func runChild(command *exec.Cmd, timeout time.Duration) error {
	command.WaitDelay = time.Second // for a grandchild that holds the output
	process, err := child.Start(command)
	if err != nil {
		return err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-process.Ended():
		return process.Err()
	case <-timer.C:
		process.Kill()
		return fmt.Errorf("killed after %v", timeout)
	}
}
