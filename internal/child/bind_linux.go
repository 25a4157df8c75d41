package child

import (
	"os/exec"
	"syscall"
)

// bind has the kernel kill the child when its parent dies, however that dies.
// What the caller asked for, such as another user, stays.
func bind(command *exec.Cmd) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
