//go:build unix

package badinput

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is the user without rights, on most systems.
const nobody = 65534

// asNobody makes the command run as a user who may read below dir and owns
// nothing. Who is not root is such a user already.
func asNobody(t *testing.T, command *exec.Cmd, dir string) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return true
	}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	for _, path := range []string{dir, command.Path} {
		for d := path; ; d = filepath.Dir(d) {
			info, err := os.Stat(d)
			if err != nil {
				t.Fatal(err)
			}
			if mode := info.Mode().Perm(); mode&0o001 == 0 {
				if d == os.TempDir() || d == filepath.Dir(d) {
					return false // not ours to open
				}
				if err := os.Chmod(d, mode|0o055); err != nil {
					return false
				}
			}
			if d == filepath.Dir(d) || d == os.TempDir() {
				break
			}
		}
	}
	return true
}
