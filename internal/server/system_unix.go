//go:build unix

package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that a server runs as. The zero value is whoever runs this process.
type account struct {
	name     string
	uid, gid int
}

func (a account) self() bool { return a.name == "" }

// unprivileged returns the account for servers that refuse root: the first of
// these users that exists, or this process's own if it is not root's.
func unprivileged(names ...string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	names = append(names, "nobody")
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return account{}, fmt.Errorf("the user id of %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return account{}, fmt.Errorf("the group id of %s: %w", name, err)
		}
		return account{name, uid, gid}, nil
	}
	return account{}, fmt.Errorf("the server refuses to run as root, and there is none of the users %s:"+
		" add one of them, or run the tests as an ordinary user", strings.Join(names, ", "))
}

// apply has the command run as the account.
func (a account) apply(command *exec.Cmd) {
	if a.self() {
		return
	}
	command.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)},
	}
}

const (
	signalStop     = syscall.SIGSTOP
	signalContinue = syscall.SIGCONT
)

// kill signals a process; the only error there can be is that it is gone.
func kill(pid int, signal syscall.Signal) { _ = syscall.Kill(pid, signal) }

// freeze stops a process and returns it and its descendants, the process first.
// It looks until nothing changes: a fork may be under way.
func freeze(pid int) []int {
	kill(pid, signalStop)
	family := descendants(pid)
	for range 100 {
		again := descendants(pid)
		if slices.Equal(family, again) {
			break
		}
		family = again
	}
	return append([]int{pid}, family...)
}

// descendants returns the processes below pid, sorted.
func descendants(pid int) []int {
	parents := parents()
	var below []int
	for p := range parents {
		for up := parents[p]; up > 1; up = parents[up] {
			if up == pid {
				below = append(below, p)
				break
			}
		}
	}
	slices.Sort(below)
	return below
}

// parents maps each process to its parent, those left out that have ended and wait to be reaped.
func parents() map[int]int {
	parents := map[int]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 { // not Linux
		out, _ := exec.Command("ps", "-A", "-o", "pid=,ppid=,state=").Output()
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) == 3 && !strings.HasPrefix(f[2], "Z") {
				pid, _ := strconv.Atoi(f[0])
				parents[pid], _ = strconv.Atoi(f[1])
			}
		}
		return parents
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // the name before it may hold anything
		if len(f) > 1 && f[0][0] != 'Z' && f[0][0] != 'X' {
			parents[pid], _ = strconv.Atoi(string(f[1]))
		}
	}
	return parents
}

// gone tells whether a process has ended; reaped it need not be.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	_, there := parents()[pid]
	return !there
}

// lock takes the lock of a file, which ends with this process. It reports false
// if another process has it.
func lock(path string) (*os.File, bool, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		closing := f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, false, closing
		}
		return nil, false, err
	}
	return f, true, nil
}
