package badinput

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

// records are what get and list print with --json.
type records struct {
	Records []struct{ Key, State, Scope, Digest string }
	Missing []string
}

// printed runs a verb and reads its JSON, all of it.
func printed(t *testing.T, args ...string) (r records) {
	t.Helper()
	out, err := exec.Command(built(t), append(args, "--json")...).Output()
	must(t, err)
	if err := json.Unmarshal(out, &r); err != nil {
		t.Errorf("%q prints no JSON: %v:\n%s", args, err, out)
	}
	return r
}

// listed wants a key to be found in a state by both verbs.
func listed(t *testing.T, url, key, state string) {
	t.Helper()
	got := printed(t, "get", key, "--store", url)
	if len(got.Records) != 1 || got.Records[0].Key != key || got.Records[0].State != state || len(got.Missing) > 0 {
		t.Errorf("get %s of a store: got %+v, want it %s", key, got, state)
		return
	}
	all := printed(t, "list", "--state", state, "--store", url)
	if !slices.Contains(all.Records, got.Records[0]) {
		t.Errorf("list --state %s: got %+v, want %+v among them", state, all, got.Records[0])
	}
}

// TestVerbs looks into each store while a gateway uses it.
func TestVerbs(t *testing.T) {
	t.Parallel()
	var side sync.WaitGroup
	for name, url := range map[string]string{
		"postgres": postgresDatabase(t, servers.Postgres(t), "verbs"),
		"mariadb":  mariadbDatabase(t, servers.MariaDB(t), "verbs"),
		"redis":    servers.Redis(t).URL() + "/6",
		"etcd":     "etcd://" + servers.Etcd(t).Address() + "/verbs",
	} {
		side.Go(func() { t.Run(name, func(t *testing.T) { verbs(t, url) }) })
	}
	side.Wait()
}

func verbs(t *testing.T, url string) {
	f := startFar(t, url)
	f.runs(t, "/ran")
	f.upstream.answer("/broken-off", resets())
	f.try(t, trial{name: "broken off", request: pathRequest("/broken-off"), want: want{status: 409, kind: semelhttp.OutcomeUnknownKind, starts: 1}})
	listed(t, url, "key-of-ran", "done")
	listed(t, url, "key-of-broken-off", "in-doubt")
	refusal(t, "a key that never was", exec.Command(built(t), "get", "never", "--store", url), 1, "nothing is remembered of the key never")
	if got := printed(t, "list", "--state", "released", "--store", url); len(got.Records) > 0 {
		t.Errorf("list --state released: got %+v, want none", got)
	}
}

// TestMigrate makes schemas twice, by two at once, and by hand.
func TestMigrate(t *testing.T) {
	t.Parallel()
	p, m := servers.Postgres(t), servers.MariaDB(t)
	for _, s := range []struct {
		name, url, wrong string
		run              func(statements string) string
		begin, tables    string
	}{
		{
			"postgres", postgresDatabase(t, p, "migrated"), p.URLAs("login", "password7", "migrated"),
			func(statements string) string { return psql(t, p.URL("migrated"), statements) },
			"CREATE SCHEMA by_hand;\nSET search_path TO by_hand;\n",
			"SELECT count(*) FROM pg_tables WHERE schemaname = 'by_hand'",
		},
		{
			"mariadb", mariadbDatabase(t, m, "migrated"), m.URLAs("login", "password7", "migrated"),
			func(statements string) string { return mariadb(t, m, "", statements) },
			"CREATE DATABASE by_hand;\nUSE by_hand;\n",
			"SELECT count(*) FROM information_schema.tables WHERE table_schema = 'by_hand'",
		},
	} {
		migrate := func(more ...string) *exec.Cmd {
			return exec.Command(built(t), append([]string{"migrate", "--store", s.url}, more...)...)
		}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { refusal(t, s.name+": two at once", migrate(), 0, "is up to date") })
		}
		both.Wait()
		refusal(t, s.name+": once more", migrate(), 0, "is up to date")
		refusal(t, s.name+": a wrong password", exec.Command(built(t), "migrate", "--store", s.wrong), 1, "password")
		startFar(t, s.url).runs(t, "/migrated")

		text := outputs(t, "", built(t), "migrate", "--print", "--store", s.url)
		up, down, whole := strings.Cut(text, "-- +goose Down")
		s.run(s.begin + up)
		if n := s.run(s.tables); !whole || n < "4" {
			t.Errorf("%s: --print makes %s tables, and has a way back: %v", s.name, n, whole)
		}
		_, use, _ := strings.Cut(s.begin, "\n")
		s.run(use + down)
		if n := s.run(s.tables); n != "0" {
			t.Errorf("%s: the way back leaves %s tables", s.name, n)
		}
	}
	for _, url := range []string{"sqlite:x", "memory:", "redis://h", "etcd://h:1/x", "semel://h", "mongodb://h"} {
		for _, more := range [][]string{nil, {"--print"}} {
			refusal(t, "migrate "+url, exec.Command(built(t), append([]string{"migrate", "--store", url}, more...)...), 2, "store")
		}
	}
	refusal(t, "nobody there", exec.Command(built(t), "migrate", "--store", "postgres://me:password7@127.0.0.1:1/x"), 1, "127.0.0.1:1")
	refusal(t, "nobody there", exec.Command(built(t), "migrate", "--store", "mysql://me:password7@127.0.0.1:1/x"), 1, "127.0.0.1:1")
}
