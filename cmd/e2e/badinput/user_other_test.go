//go:build !unix

package badinput

import (
	"os/exec"
	"testing"
)

func asNobody(*testing.T, *exec.Cmd, string) bool { return false }
