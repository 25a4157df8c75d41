package badinput

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/semelhttp"
)

// breakable is a server that a test has for itself.
type breakable struct {
	life
	url string // of a store, with a password where there are any
}

// life is what all servers of tests have.
type life interface {
	Kill() error
	Start() error
	Pause() error
	Resume() error
	Address() string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// own starts a server for the test alone.
func own[S life](t *testing.T, start func(dir string) (S, error)) S {
	t.Helper()
	s, err := start(t.TempDir())
	must(t, err)
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func ownPostgres(t *testing.T) (*server.Postgres, breakable) {
	t.Helper()
	s := own(t, func(dir string) (*server.Postgres, error) { return server.StartPostgres(dir, server.PostgresOptions{}) })
	return s, breakable{s, postgresDatabase(t, s, "app")}
}

func ownMariaDB(t *testing.T) (*server.MariaDB, breakable) {
	t.Helper()
	s := own(t, func(dir string) (*server.MariaDB, error) { return server.StartMariaDB(dir, server.MariaDBOptions{}) })
	return s, breakable{s, mariadbDatabase(t, s, "app")}
}

func ownRedis(t *testing.T, settings map[string]string) (*server.Redis, breakable) {
	t.Helper()
	all := map[string]string{"requirepass": server.LoginPassword}
	for name, value := range settings {
		all[name] = value
	}
	s := own(t, func(dir string) (*server.Redis, error) {
		return server.StartRedis(dir, server.RedisOptions{Settings: all})
	})
	return s, breakable{s, s.URL()}
}

func ownEtcd(t *testing.T, settings map[string]string) (*server.Etcd, breakable) {
	t.Helper()
	s := own(t, func(dir string) (*server.Etcd, error) {
		return server.StartEtcd(dir, server.EtcdOptions{Settings: settings})
	})
	return s, breakable{s, "etcd://" + s.Address() + "/app"}
}

// TestOutages runs for the servers side by side: they wait, most of the time.
func TestOutages(t *testing.T) {
	t.Parallel()
	var side sync.WaitGroup
	for name, start := range map[string]func(t *testing.T) breakable{
		"postgres": func(t *testing.T) breakable { _, b := ownPostgres(t); return b },
		"mariadb":  func(t *testing.T) breakable { _, b := ownMariaDB(t); return b },
		"redis":    func(t *testing.T) breakable { _, b := ownRedis(t, nil); return b },
		"etcd":     func(t *testing.T) breakable { _, b := ownEtcd(t, nil); return b },
	} {
		side.Go(func() { t.Run(name, func(t *testing.T) { outages(t, start(t)) }) })
	}
	side.Wait()
}

// outages stops a server in both ways there are, silence and refusal, under a
// gateway that asks it for everything and one that has a cache.
func outages(t *testing.T, s breakable) {
	f := startFar(t, s.url, "--cache=none")
	cached := startFarOf(t, f.upstream, s.url)
	f.runs(t, "/before")
	cached.runs(t, "/before-cached")
	for _, kind := range []struct {
		name     string
		says     string
		out, end func() error
	}{
		{"hangs", "", s.Pause, s.Resume},
		{"is-down", s.Address(), s.Kill, s.Start},
	} {
		began, release := f.upstream.holds("/running-while-it-" + kind.name)
		running := make(chan answer, 1)
		go func() {
			a, err := exchange(f.address, pathRequest("/running-while-it-"+kind.name), false)
			if err != nil {
				t.Errorf("a request that ran while the server %s: %v", kind.name, err)
			}
			running <- a
		}()
		<-began
		must(t, kind.out())
		release()
		var asking sync.WaitGroup
		asked := names("/asked-while-it-"+kind.name+"-%d", 3)
		asking.Go(func() { refused(t, "a server that "+kind.name, s.url, kind.says) })
		asking.Go(func() { f.refuses(t, "the server "+kind.name, append(slices.Clone(asked), "/before")...) })
		asking.Go(func() { cached.refuses(t, "the server "+kind.name+", with a cache", asked...) })
		asking.Go(func() { f.ready(t, 503) })
		cached.replays(t, "/before-cached")
		if a := <-running; a.status != 201 && a.kind != semelhttp.OutcomeUnknownKind {
			t.Errorf("a request that ran while the server %s: got %v, want its answer or that its outcome is unknown", kind.name, a)
		}
		asking.Wait()

		must(t, kind.end())
		f.ready(t, 200)
		cached.ready(t, 200)
		asking.Go(func() {
			f.settles(t, "the server "+kind.name+" no more", append(asked, "/running-while-it-"+kind.name)...)
		})
		cached.settles(t, "the server "+kind.name+" no more, with a cache", asked...)
		asking.Wait()
		f.replays(t, "/before")
		f.runs(t, fmt.Sprintf("/after-it-%s", kind.name))
	}
}
