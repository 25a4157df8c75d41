//go:build !unix

package server

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// account is the user that a server runs as. Here nothing runs.
type account struct {
	name     string
	uid, gid int
}

func (a account) self() bool { return true }

// unprivileged refuses: these servers are run on Unix only.
func unprivileged(...string) (account, error) {
	return account{}, errors.New("the servers of tests run on Linux, macOS and other Unix systems only")
}

func (a account) apply(*exec.Cmd) {}

const (
	signalStop     = syscall.Signal(0)
	signalContinue = syscall.Signal(0)
)

func kill(int, syscall.Signal) {}

func freeze(pid int) []int { return []int{pid} }

func gone(int) bool { return true }

func lock(path string) (*os.File, bool, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	return f, err == nil, err
}
