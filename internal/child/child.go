package child

import (
	"os/exec"
	"runtime"
)

// Process is a running child. It is safe for concurrent use.
type Process struct {
	command *exec.Cmd
	ended   chan struct{}
	err     error // read it after ended
}

// Start starts the command, which belongs to the Process from then on. On
// Linux the kernel kills the child when this process dies, however it dies; on
// other systems only Kill does. The error is that of starting.
func Start(command *exec.Cmd) (*Process, error) {
	p := &Process{command: command, ended: make(chan struct{})}
	started := make(chan error)
	bind(command)
	go func() {
		// Linux ends the child with the thread that started it, so that thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = command.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Ended is closed when the child is gone, for whatever reason.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err tells how the child ended, as exec.Cmd.Wait does. It waits for that.
func (p *Process) Err() error {
	<-p.ended
	return p.err
}

// PID is the child's process id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Kill is kill -9. It returns when the child is gone, and does nothing to one
// that has ended already.
func (p *Process) Kill() {
	_ = p.command.Process.Kill() // the error is that it has ended
	<-p.ended
}
