package child

import (
	"os/exec"
	"syscall"
)

// bind has the kernel kill the child when its parent dies, however that dies.
func bind(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
