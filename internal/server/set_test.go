//go:build unix

package server

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var servers Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

// startAll starts one server of each kind of a set, and returns their processes.
func startAll(t *testing.T, s *Set) (all []life, processes []int) {
	t.Helper()
	all = []life{s.Postgres(t), s.MariaDB(t), s.Redis(t), s.Etcd(t)}
	for _, server := range all {
		processes = append(append(processes, server.PID()), descendants(server.PID())...)
	}
	return all, processes
}

// mustBeGone waits a little: what the kernel kills is not gone at once.
func mustBeGone(t *testing.T, processes []int) {
	t.Helper()
	for _, pid := range processes {
		for range 1000 {
			if gone(pid) {
				break
			}
			time.Sleep(pollEvery)
		}
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
}

// Two sets side by side have servers of their own, ask as often as one may; the
// end of one leaves nothing of it and nothing of the other touched.
func TestTwoSets(t *testing.T) {
	var one, other Set
	t.Cleanup(func() { do(t, one.Close, other.Close) })
	first, processes := startAll(t, &one)
	again, _ := startAll(t, &one)
	if !slices.Equal(first, again) {
		t.Error("the same set gave other servers")
	}
	second, _ := startAll(t, &other)
	for i, k := range kinds() {
		if first[i].Address() == second[i].Address() {
			t.Errorf("both sets' %s is at %s", k.name, first[i].Address())
		}
		do(t, func() error { return k.write(first[i], "one") }, func() error { return k.write(second[i], "other") })
		mustHold(t, k, first[i], "one")
	}
	dir := one.dir
	do(t, one.Close)
	mustBeGone(t, processes)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	for i, k := range kinds() {
		mustHold(t, k, second[i], "other")
	}
}

// held makes TestHeld a test that somebody ends.
const held = "SEMEL_TEST_HELD"

func TestHeld(t *testing.T) {
	if os.Getenv(held) == "" {
		t.Skip("TestInterrupted runs it")
	}
	_, processes := startAll(t, &servers)
	fmt.Println("held:", servers.dir, strings.Trim(fmt.Sprint(processes), "[]"))
	time.Sleep(time.Minute)
}

// A run that is interrupted leaves no process and no directory; one that is
// killed leaves no process, and its directory to the next run.
func TestInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			if signal == syscall.SIGKILL && runtime.GOOS != "linux" {
				t.Skip("only Linux ends the children of a process that is killed")
			}
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			// Above the directory of temporary files, a server does not open the way itself.
			do(t, func() error { return os.Chmod(filepath.Dir(temp), 0o711) })
			dir, processes := interrupt(t, signal)
			mustBeGone(t, processes)
			if signal == syscall.SIGKILL {
				var next Set
				do(t, next.open, next.Close)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", dir, err)
			}
		})
	}
}

// interrupt runs TestHeld, ends it, and returns what it had.
func interrupt(t *testing.T, signal syscall.Signal) (dir string, processes []int) {
	command := exec.Command(os.Args[0], "-test.run=^TestHeld$", "-test.v")
	command.Env = append(os.Environ(), held+"=1")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	do(t, command.Start)
	lines := bufio.NewScanner(out)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		f := strings.Fields(lines.Text())
		if len(f) < 3 || f[0] != "held:" {
			continue
		}
		for _, digits := range f[2:] {
			pid, err := strconv.Atoi(digits)
			if err != nil {
				t.Fatal(err)
			}
			if gone(pid) {
				t.Errorf("process %d was gone before", pid)
			}
			processes = append(processes, pid)
		}
		dir = f[1]
		do(t, func() error { return command.Process.Signal(signal) })
	}
	if err := command.Wait(); err == nil || dir == "" {
		t.Fatalf("it ended by itself: %v\n%s", err, strings.Join(said, "\n"))
	}
	return dir, processes
}

// What is in use is not swept, what is just being made neither.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var used Set
	do(t, used.open)
	left := filepath.Join(os.TempDir(), "semel-servers-left")
	made := filepath.Join(os.TempDir(), "semel-servers-made")
	for _, dir := range []string{left, made} {
		do(t, func() error { return os.Mkdir(dir, 0o700) })
	}
	do(t, func() error { return os.WriteFile(filepath.Join(left, lockName), nil, 0o600) }, sweep)
	for dir, want := range map[string]bool{used.dir: true, made: true, left: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %t, want %t", dir, err == nil, want)
		}
	}
	do(t, used.Close)
}

// A start that fails says why, with the server's own words.
func TestFailedStart(t *testing.T) {
	unknown := map[string]string{"no_such_setting": "1"}
	for name, start := range map[string]func(dir string) (life, error){
		"postgres": func(dir string) (life, error) { return StartPostgres(dir, PostgresOptions{Settings: unknown}) },
		"mariadb":  func(dir string) (life, error) { return StartMariaDB(dir, MariaDBOptions{Settings: unknown}) },
		"redis":    func(dir string) (life, error) { return StartRedis(dir, RedisOptions{Settings: unknown}) },
		"etcd":     func(dir string) (life, error) { return StartEtcd(dir, EtcdOptions{Settings: unknown}) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := start(filepath.Join(t.TempDir(), "server"))
			if err == nil {
				t.Fatal("it started", s.Kill())
			}
			if text := err.Error(); !strings.Contains(text, "no_such_setting") || strings.Count(text, "\n") > logLines+2 {
				t.Errorf("the error has not the end of the log, or more: %v", err)
			}
		})
	}
}

// A port that another server of the kind has is told from every other failure,
// and that server is not mistaken for the one that starts.
func TestPortTaken(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			shared := k.shared(t)
			s, err := k.start(filepath.Join(t.TempDir(), "server"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { do(t, s.Kill) })
			_, digits, _ := strings.Cut(shared.Address(), ":")
			taken, err := strconv.Atoi(digits)
			if err != nil {
				t.Fatal(err)
			}
			do(t, s.Stop, func() error { return k.move(s, taken) })
			if err := s.Start(); !errors.Is(err, errPortTaken) {
				t.Errorf("it started where another is: %v", err)
			}
		})
	}
}

// Such a start is tried again at other ports, a few times; no other failure is.
func TestOnFreePorts(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails int
		with  error
		want  int // attempts
		err   error
	}{
		{"at once", 0, nil, 1, nil},
		{"taken twice", 2, fmt.Errorf("start: %w", errPortTaken), 3, nil},
		{"always taken", 100, errPortTaken, 6, errPortTaken},
		{"anything else", 100, fs.ErrPermission, 1, fs.ErrPermission},
	} {
		t.Run(c.name, func(t *testing.T) {
			var attempts [][]int
			err := onFreePorts(2, func(ports []int) error {
				attempts = append(attempts, slices.Clone(ports))
				if len(attempts) <= c.fails {
					return c.with
				}
				return nil
			})
			if len(attempts) != c.want || !errors.Is(err, c.err) {
				t.Errorf("attempts %v, %v; want %d, %v", attempts, err, c.want, c.err)
			}
			for _, ports := range attempts {
				if len(ports) != 2 || ports[0] == ports[1] {
					t.Errorf("ports %v, want two", ports)
				}
			}
		})
	}
}

// Without a binary, the error says what to install.
func TestMissing(t *testing.T) {
	for _, p := range []product{
		{name: "Nothing", binaries: []string{"no-such-server"}, debian: "nothing-server", homebrew: "nothing"},
	} {
		_, err := p.find()
		if err == nil {
			t.Fatal("found")
		}
		for _, want := range []string{"no-such-server", "nothing-server", "make servers"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %s in: %v", want, err)
			}
		}
	}
}
