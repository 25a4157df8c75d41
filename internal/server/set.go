package server

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Set holds the servers that the tests of one package share: one of each kind,
// started when a test first asks for it. Tests keep apart by databases, schemas
// or prefixes of their own, and do not kill a shared server. The zero value is
// ready. It is safe for concurrent use.
type Set struct {
	mu       sync.Mutex
	dir      string
	lock     *os.File // held while dir is in use
	postgres shared[*Postgres]
	mariadb  shared[*MariaDB]
	redis    shared[*Redis]
	etcd     shared[*Etcd]
	running  []func() error // each ends one server
}

// shared is a server, or why there is none: every test gets the same answer.
type shared[T any] struct {
	asked  bool
	server T
	err    error
}

// life is what all servers have for Set.
type life interface {
	Kill() error
	Start() error
	Stop() error
	Pause() error
	Resume() error
	PID() int
	Address() string
	Version() string
	kind() string
}

func (p *program) kind() string { return p.name }

// Run runs a package's tests, ends the servers that they shared, removes their
// files, and returns the code to exit with. An interrupted run ends them, too.
//
//	func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }
func (s *Set) Run(m *testing.M) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	finished := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case got := <-signals:
			fmt.Fprintf(os.Stderr, "server: %v: ending the servers\n", got)
			s.report(s.Close())
			os.Exit(1)
		case <-finished:
		}
	})
	code := m.Run()
	signal.Stop(signals)
	close(finished)
	wg.Wait()
	if err := s.Close(); err != nil {
		s.report(err)
		return max(code, 1)
	}
	return code
}

func (s *Set) report(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
	}
}

// Postgres returns the shared PostgreSQL server. If it does not start, the test
// ends, failed, with what the server said.
func (s *Set) Postgres(t testing.TB) *Postgres {
	t.Helper()
	return get(t, s, "postgres", &s.postgres, func(dir string) (*Postgres, error) {
		return StartPostgres(dir, PostgresOptions{})
	})
}

// MariaDB returns the shared MariaDB server, as Postgres does.
func (s *Set) MariaDB(t testing.TB) *MariaDB {
	t.Helper()
	return get(t, s, "mariadb", &s.mariadb, func(dir string) (*MariaDB, error) {
		return StartMariaDB(dir, MariaDBOptions{})
	})
}

// Redis returns the shared Redis server, as Postgres does.
func (s *Set) Redis(t testing.TB) *Redis {
	t.Helper()
	return get(t, s, "redis", &s.redis, func(dir string) (*Redis, error) {
		return StartRedis(dir, RedisOptions{})
	})
}

// Etcd returns the shared etcd server, as Postgres does.
func (s *Set) Etcd(t testing.TB) *Etcd {
	t.Helper()
	return get(t, s, "etcd", &s.etcd, func(dir string) (*Etcd, error) {
		return StartEtcd(dir, EtcdOptions{})
	})
}

// get returns a shared server, started if nobody asked before.
func get[T life](t testing.TB, s *Set, name string, server *shared[T], start func(dir string) (T, error)) T {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !server.asked {
		server.asked = true
		began := time.Now()
		if server.err = s.open(); server.err == nil {
			server.server, server.err = start(filepath.Join(s.dir, name))
		}
		if server.err == nil {
			s.running = append(s.running, server.server.Kill)
			fmt.Fprintf(os.Stderr, "server: %s %s at %s, ready in %v\n", server.server.kind(), server.server.Version(),
				server.server.Address(), time.Since(began).Round(time.Millisecond))
		}
	}
	if server.err != nil {
		t.Fatalf("no server for this test: %v", server.err)
	}
	return server.server
}

// Names within the directory of temporary files.
const (
	dirPattern = "semel-servers-*"
	lockName   = "lock"
)

// open makes the set's directory, with mu held, and removes those of sets whose
// process was killed.
func (s *Set) open() (err error) {
	if s.dir != "" {
		return nil
	}
	if err := sweep(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", dirPattern); err != nil {
		return err
	}
	var ok bool
	if s.lock, ok, err = lock(filepath.Join(s.dir, lockName)); err == nil && !ok {
		err = fmt.Errorf("somebody else has the lock of the new directory %s", s.dir)
	}
	return err
}

// sweep removes the directories of sets that are no more. A lock that can be
// taken is nobody's. A directory without one may be just being made.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPattern))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		name := filepath.Join(dir, lockName)
		if _, err := os.Stat(name); err != nil {
			continue
		}
		f, free, err := lock(name)
		if err != nil || !free {
			continue // another user's, or in use
		}
		// What cannot be removed is left to the next sweep: it is not this set's.
		_ = os.RemoveAll(dir)
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the servers and removes their files. Run calls it; a program
// without tests does so itself. The set can be used again afterwards.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, end := range slices.Backward(s.running) {
		errs = append(errs, end())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	s.running, s.dir, s.lock = nil, "", nil
	s.postgres, s.mariadb, s.redis, s.etcd = shared[*Postgres]{}, shared[*MariaDB]{}, shared[*Redis]{}, shared[*Etcd]{}
	return errors.Join(errs...)
}
