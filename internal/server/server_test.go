//go:build unix

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// each kind of server, behind what the tests of all of them need.
type kind struct {
	name  string
	start func(dir string) (life, error)
	write func(s life, value string) error // durably, before it returns
	read  func(s life) (string, error)
	// shared is the tests' shared one; move changes the port of one that does not run.
	shared func(t *testing.T) life
	move   func(s life, port int) error
}

func kinds() []kind {
	return []kind{
		{
			"postgres",
			func(dir string) (life, error) { return StartPostgres(dir, PostgresOptions{}) },
			func(s life, value string) error {
				_, err := s.(*Postgres).psql("CREATE TABLE IF NOT EXISTS t (v text); INSERT INTO t VALUES ('" + value + "')")
				return err
			},
			func(s life) (string, error) { return s.(*Postgres).psql("SELECT v FROM t") },
			func(t *testing.T) life { return servers.Postgres(t) },
			func(s life, port int) error {
				p := s.(*Postgres)
				p.port = port
				return p.account.write(filepath.Join(p.data(), "semel.conf"), p.configuration())
			},
		},
		{
			"mariadb",
			func(dir string) (life, error) { return StartMariaDB(dir, MariaDBOptions{}) },
			func(s life, value string) error {
				m := s.(*MariaDB)
				_, err := m.query("CREATE DATABASE d; CREATE TABLE d.t (v text); INSERT INTO d.t VALUES ('" + value + "')")
				return err
			},
			func(s life) (string, error) { return s.(*MariaDB).query("SELECT v FROM d.t") },
			func(t *testing.T) life { return servers.MariaDB(t) },
			func(s life, port int) error {
				m := s.(*MariaDB)
				m.port = port
				return m.account.write(m.file(), m.configuration())
			},
		},
		{
			"redis",
			func(dir string) (life, error) { return StartRedis(dir, RedisOptions{}) },
			func(s life, value string) error { _, err := s.(*Redis).call("SET", "k", value); return err },
			func(s life) (string, error) { return s.(*Redis).call("GET", "k") },
			func(t *testing.T) life { return servers.Redis(t) },
			func(s life, port int) error {
				r := s.(*Redis)
				r.port = port
				return r.configure()
			},
		},
		{
			"etcd",
			func(dir string) (life, error) { return StartEtcd(dir, EtcdOptions{}) },
			func(s life, value string) error { return s.(*Etcd).put("k", value) },
			func(s life) (string, error) { return s.(*Etcd).get("k") },
			func(t *testing.T) life { return servers.Etcd(t) },
			func(s life, port int) error { s.(*Etcd).port = port; return nil },
		},
	}
}

// forEach runs a test on a server of its own of each kind.
func forEach(t *testing.T, test func(t *testing.T, k kind, s life)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			began := time.Now()
			s, err := k.start(filepath.Join(t.TempDir(), "server"))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s %s, ready in %v", s.kind(), s.Version(), time.Since(began).Round(time.Millisecond))
			t.Cleanup(func() {
				if err := s.Kill(); err != nil {
					t.Error(err)
				}
			})
			test(t, k, s)
		})
	}
}

func mustHold(t *testing.T, k kind, s life, want string) {
	t.Helper()
	if got, err := k.read(s); err != nil || got != want {
		t.Fatalf("it holds %q, %v; want %q", got, err, want)
	}
}

func do(t *testing.T, steps ...func() error) {
	t.Helper()
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// What was written is there after a pause, a kill and an orderly end; the port
// stays the same.
func TestLife(t *testing.T) {
	forEach(t, func(t *testing.T, k kind, s life) {
		do(t, func() error { return k.write(s, "kept") })
		t.Run("pause", func(t *testing.T) { testPause(t, k, s) })
		at, pid := s.Address(), s.PID()
		for _, end := range []struct {
			name string
			do   func() error
		}{{"kill", s.Kill}, {"stop", s.Stop}, {"kill while paused", func() error { return errors.Join(s.Pause(), s.Kill()) }}} {
			family := append(descendants(s.PID()), s.PID())
			do(t, end.do)
			for _, pid := range family {
				if !gone(pid) {
					t.Errorf("process %d is still there after %s", pid, end.name)
				}
			}
			if _, err := k.read(s); err == nil {
				t.Fatalf("it answers after %s", end.name)
			}
			began := time.Now()
			do(t, s.Start)
			t.Logf("ready again %v after %s", time.Since(began).Round(time.Millisecond), end.name)
			mustHold(t, k, s, "kept")
		}
		if s.Address() != at || s.PID() == pid {
			t.Errorf("it is at %s as process %d, was at %s as %d", s.Address(), s.PID(), at, pid)
		}
		if err := s.Start(); err == nil {
			t.Error("it started twice")
		}
		do(t, s.Kill, s.Kill, s.Stop) // once more is no harm
		if err := s.Pause(); err == nil {
			t.Error("it was paused and is not there")
		}
	})
}

// All processes of a paused server stand still: it answers nothing, and forgets nothing.
func testPause(t *testing.T, k kind, s life) {
	do(t, s.Pause, s.Pause)
	for _, pid := range append(descendants(s.PID()), s.PID()) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(text), ") T ") { // elsewhere there is no such file
			t.Errorf("a process runs: %s", text)
		}
	}
	answered := make(chan error, 1)
	go func() { _, err := k.read(s); answered <- err }()
	select {
	case err := <-answered:
		t.Errorf("it answered while it was paused: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	do(t, s.Resume)
	<-answered // whether that one was in time is not the question
	mustHold(t, k, s, "kept")
}

// The directory of a server has to be its own.
func TestForeignDirectory(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "somebody's"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := k.start(dir); err == nil {
				t.Error("it started", errors.Join(s.Kill()))
			}
		})
	}
}
