package child

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// This test binary is also the child, and the child's child.
func TestMain(m *testing.M) {
	switch os.Getenv("SEMEL_TEST_CHILD") {
	case "sleep":
		time.Sleep(time.Minute)
	case "parent":
		p, err := Start(again("sleep"))
		if err != nil {
			panic(err)
		}
		fmt.Println(p.PID())
		time.Sleep(time.Minute)
	default:
		os.Exit(m.Run())
	}
}

func again(role string) *exec.Cmd {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "SEMEL_TEST_CHILD="+role)
	return command
}

func TestKill(t *testing.T) {
	p, err := Start(again("sleep"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Ended():
		t.Fatalf("it ended by itself: %v", p.Err())
	case <-time.After(50 * time.Millisecond):
	}
	p.Kill()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "kill") && runtime.GOOS != "windows" {
		t.Errorf("ended with %v, want killed", err)
	}
	p.Kill() // once more is no harm
}

func TestStartFails(t *testing.T) {
	if p, err := Start(exec.Command("no-such-program-anywhere")); err == nil {
		p.Kill()
		t.Error("it started")
	}
}

// The child of a process that is killed dies as well.
func TestDiesWithParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a way to say so")
	}
	parent := again("parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait() // killed
	state := "/proc/" + strings.TrimSpace(line) + "/stat"
	for range 500 {
		text, err := os.ReadFile(state)
		if err != nil || strings.Contains(string(text), ") Z ") { // gone, or waiting to be reaped by init
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s is still there", strings.TrimSpace(line))
}
