package badinput

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/internal/server"
)

// unusable is a store that a gateway refuses at its start.
type unusable struct {
	name  string
	url   string
	texts []string
}

func refusedAll(t *testing.T, all []unusable) {
	t.Helper()
	for _, u := range all {
		refused(t, u.name, u.url, u.texts...)
	}
	t.Logf("%d stores were refused", len(all))
}

// begun has a gateway make a store, and stops it.
func begun(t *testing.T, url string, more ...string) {
	t.Helper()
	f := startFar(t, url, more...)
	f.runs(t, "/first")
	f.stop(t)
}

// stop ends the gateway as its operator would.
func (f *far) stop(t *testing.T) {
	t.Helper()
	if code, err := f.process.Terminate(patience); code != 0 || err != nil {
		t.Fatalf("the gateway was asked to end: exit code %d, %v; it wrote:\n%s", code, err, f.process.Output())
	}
	f.stopped = true
}

// says checks that the gateway has written each of the texts. What it wrote
// takes a moment to get here.
func (f *far) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for deadline := time.Now().Add(patience); !strings.Contains(f.process.Output(), text); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("it does not say %q, but:\n%s", text, f.process.Output())
				break
			}
		}
	}
}

func TestRefusedPostgres(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t)
	owned := func(name, statements string) (url string) {
		url = postgresDatabase(t, s, name)
		if statements != "" {
			psql(t, url, statements)
		}
		return url
	}
	foreign := func(name string) string { // a database of the superuser's
		psql(t, s.URL("postgres"), "CREATE DATABASE "+name)
		return s.URLAs(server.LoginRole, server.LoginPassword, name)
	}
	made := func(name, statements string) string {
		url := owned(name, "")
		outputs(t, "", built(t), "migrate", "--store", url)
		psql(t, url, statements)
		return url
	}
	theirs := foreign("theirs")
	outputs(t, "", built(t), "migrate", "--store", s.URL("theirs"))
	standby, err := s.Standby(t.TempDir(), false)
	must(t, err)
	t.Cleanup(func() { _ = standby.Kill() }) // its directory goes with the test
	psql(t, s.URL("postgres"), "CREATE DATABASE fixed OWNER "+server.LoginRole+"; ALTER DATABASE fixed SET default_transaction_read_only = on")
	refusedAll(t, []unusable{
		{"a wrong password", s.URLAs(server.LoginRole, "password7", "postgres"), []string{"check the user, the password"}},
		{"a wrong password after the question mark", "postgres://" + s.Address() + "/postgres?sslmode=disable&user=" + server.LoginRole + "&password=password7", []string{"the password"}},
		{"a URL that is none", "postgres://me:password7@127.0.0.1:x/x", []string{"postgres://user:password@host:5432/database"}},
		{"no such database", s.URLAs(server.LoginRole, server.LoginPassword, "none"), []string{"no such database", "create it"}},
		{"no right to make a schema", foreign("bare"), []string{"semel migrate", "permission denied"}},
		{"no rights on the tables", theirs, []string{"GRANT"}},
		{"read-only", s.URLAs(server.LoginRole, server.LoginPassword, "fixed"), []string{"default_transaction_read_only", "ALTER DATABASE"}},
		{"a standby", standby.URL("postgres"), []string{"standby", "primary"}},
		{"another application's tables", owned("shop", "CREATE SCHEMA semel; CREATE TABLE semel.orders (id int)"), []string{"another application"}},
		{"a newer schema", made("newer", "UPDATE semel.schema_version SET version = 99"), []string{"newer", "99"}},
		{"an older schema", made("older", "UPDATE semel.schema_version SET version = 0"), []string{"semel migrate"}},
		{"tables that are gone", made("gone", "DROP TABLE semel.records"), []string{"semel migrate"}},
	})
}

func TestRefusedMariaDB(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	made := func(name, statements string) string {
		url := mariadbDatabase(t, s, name)
		outputs(t, "", built(t), "migrate", "--store", url)
		mariadb(t, s, name, statements)
		return url
	}
	mariadb(t, s, "", "CREATE DATABASE theirs; CREATE DATABASE seen; GRANT SELECT ON seen.* TO '"+server.LoginRole+"'@'127.0.0.1'")
	outputs(t, "", built(t), "migrate", "--store", s.URL("seen"))
	shop := mariadbDatabase(t, s, "shop")
	mariadb(t, s, "shop", "CREATE TABLE semel_record (id INT PRIMARY KEY)")
	login := func(database string) string {
		return s.URLAs(server.LoginRole, server.LoginPassword, database)
	}
	refusedAll(t, []unusable{
		{"a wrong password", s.URLAs(server.LoginRole, "password7", "theirs"), []string{"refuses the user or the password"}},
		{"a URL that is none", "mysql://me:password7@127.0.0.1:x/x", []string{"mysql://user:password@host:3306/database"}},
		{"no database in the URL", "mysql://me:password7@" + s.Address() + "/", []string{"does not name one database"}},
		{"no such database", s.URL("none"), []string{"CREATE DATABASE"}},
		{"no rights", login("theirs"), []string{"lacks a right", "SELECT, INSERT, UPDATE and DELETE"}},
		{"a right to read only", login("seen"), []string{"lacks a right"}},
		{"another application's tables", shop, []string{"semel"}},
		{"a newer schema", made("newer", "INSERT INTO semel_schema VALUES (99)"), []string{"newer", "99"}},
		{"tables that are gone", made("gone", "DROP TABLE semel_record"), []string{"semel migrate"}},
	})
}

func TestRefusedRedis(t *testing.T) {
	t.Parallel()
	s, own := ownRedis(t, nil)
	replica, err := s.Replica(t.TempDir())
	must(t, err)
	t.Cleanup(func() { _ = replica.Kill() }) // its directory goes with the test
	rediscli(t, s, "ACL SETUSER login on >"+server.LoginPassword+" ~* +@read +info")
	rediscli(t, s, "SELECT 3\nSET semel:{0}! theirs")
	rediscli(t, s, "SELECT 4\nHSET semel:{0}! layout 9/1")
	at := func(user, password string, db int) string {
		return fmt.Sprintf("redis://%s:%s@%s/%d", user, password, s.Address(), db)
	}
	refusedAll(t, []unusable{
		{"a wrong password", at("", "password7", 0), []string{"password is wrong"}},
		{"no password", "redis://" + s.Address(), []string{"wants a password"}},
		{"a URL that is none", "redis://me:password7@127.0.0.1:x", []string{"redis://user:password@host:6379/0"}},
		{"no rights", at("login", server.LoginPassword, 0), []string{"may not run a command"}},
		{"a replica", replica.URL(), []string{"replica", "master"}},
		{"another application's key", at("", server.LoginPassword, 3), []string{"semel:"}},
		{"another release's layout", at("", server.LoginPassword, 4), []string{"laid out"}},
		{"no Cluster", strings.Replace(own.url, "redis:", "redis+cluster:", 1), []string{"not part of a Cluster", "redis://"}},
	})
	// What evicts must not arbitrate, and may cache.
	rediscli(t, s, "CONFIG SET maxmemory-policy allkeys-lru")
	refused(t, "a server that evicts", own.url, "maxmemory-policy", "noeviction")
	cached := startFar(t, postgresDatabase(t, servers.Postgres(t), "behind_redis"), "--cache="+own.url)
	cached.runs(t, "/cached")
	rediscli(t, s, "CONFIG SET maxmemory-policy noeviction")
	// What forgets is used, with a word of caution.
	loose, unkept := ownRedis(t, map[string]string{"appendonly": "no"})
	startFar(t, unkept.url).says(t, "set appendonly yes and appendfsync always")
	rediscli(t, loose, "CONFIG SET appendonly yes")
	rediscli(t, loose, "CONFIG SET appendfsync everysec")
	startFar(t, unkept.url).says(t, "appendfsync is everysec")
}

// etcdCall calls etcd's gateway from JSON to gRPC.
func etcdCall(t *testing.T, s *server.Etcd, path string, body map[string]any) string {
	t.Helper()
	text, err := json.Marshal(body)
	must(t, err)
	resp, err := http.Post(s.URL()+path, "application/json", bytes.NewReader(text))
	must(t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", path, resp.Status, out)
	}
	return string(out)
}

// etcdFill writes a value and tells whether there was no room for it.
func etcdFill(t *testing.T, s *server.Etcd, key, value string) (full bool) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"key": encoded(key), "value": encoded(value)})
	must(t, err)
	resp, err := http.Post(s.URL()+"/v3/kv/put", "application/json", bytes.NewReader(text))
	must(t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK && !strings.Contains(string(out), "database space exceeded") {
		t.Fatalf("put: %s: %s", resp.Status, out)
	}
	return resp.StatusCode != http.StatusOK
}

// etcdRevision deletes what begins with a prefix and gives the revision then.
func etcdRevision(t *testing.T, s *server.Etcd, prefix string) string {
	t.Helper()
	end := prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
	out := etcdCall(t, s, "/v3/kv/deleterange", map[string]any{"key": encoded(prefix), "range_end": encoded(end)})
	var answer struct {
		Header struct{ Revision string }
	}
	must(t, json.Unmarshal([]byte(out), &answer))
	return answer.Header.Revision
}

func etcdPut(t *testing.T, s *server.Etcd, key, value string) {
	t.Helper()
	etcdCall(t, s, "/v3/kv/put", map[string]any{"key": encoded(key), "value": encoded(value)})
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestRefusedEtcd(t *testing.T) {
	t.Parallel()
	s, _ := ownEtcd(t, nil)
	etcdPut(t, s, "/shop/orders/1", "theirs")
	etcdPut(t, s, "/odd/floor", "theirs")
	etcdPut(t, s, "/newer/floor", strings.Repeat("\x00", 15)+"\x01\x09")
	at := func(user, prefix string) string { return "etcd://" + user + s.Address() + "/" + prefix }
	refusedAll(t, []unusable{
		{"a URL that is none", "etcd://me:password7@127.0.0.1/x", []string{"etcd://[user:password@]host:port"}},
		{"another application's keys", at("", "shop"), []string{"another program", "another prefix"}},
		{"another application's floor", at("", "odd"), []string{"another prefix"}},
		{"another release's layout", at("", "newer"), []string{"layout 9"}},
	})
	for _, call := range []struct {
		path string
		body map[string]any
	}{
		{"/v3/auth/user/add", map[string]any{"name": "root", "password": "password7"}},
		{"/v3/auth/role/add", map[string]any{"name": "root"}},
		{"/v3/auth/user/grant", map[string]any{"user": "root", "role": "root"}},
		{"/v3/auth/user/add", map[string]any{"name": server.LoginRole, "password": server.LoginPassword}},
		{"/v3/auth/enable", map[string]any{}},
	} {
		etcdCall(t, s, call.path, call.body)
	}
	refusedAll(t, []unusable{
		{"no password", at("", "app"), []string{"wants a user"}},
		{"a wrong password", at(server.LoginRole+":password7@", "app"), []string{"does not accept this user and password"}},
		{"no rights", at(server.LoginRole+":"+server.LoginPassword+"@", "app"), []string{"grant-permission", "/app/"}},
	})
}

// TestAnotherSecret: with another secret each key would be a new one.
func TestAnotherSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := func(name string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(strings.Repeat(name, 16)), 0o600))
		return "--secret-file=" + path
	}
	first, other := secret("first"), secret("other")
	var side sync.WaitGroup
	for name, url := range map[string]string{
		"postgres": postgresDatabase(t, servers.Postgres(t), "secret"),
		"mariadb":  mariadbDatabase(t, servers.MariaDB(t), "secret"),
		"redis":    servers.Redis(t).URL() + "/5",
		"etcd":     "etcd://" + servers.Etcd(t).Address() + "/secret",
	} {
		side.Go(func() {
			t.Run(name, func(t *testing.T) {
				begun(t, url, first)
				for with, more := range map[string][]string{"another secret": {other}, "no secret": nil} {
					command := onURL(t, url, "127.0.0.1:1", append(more, "--listen=127.0.0.1:0")...)
					refusal(t, with, command, 1, "deployment secret", "start with that secret")
				}
				startFar(t, url, first).replays(t, "/first")
			})
		})
	}
	side.Wait()
}

// TestClocks: PostgreSQL's clock is an hour off. It decides alone, so nothing
// runs twice, and whoever starts the gateway is told.
func TestClocks(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t)
	for name, hour := range map[string]string{"ahead": "+ interval '1 hour'", "behind": "- interval '1 hour'"} {
		url := postgresDatabase(t, s, name)
		psql(t, url, `CREATE SCHEMA odd; CREATE FUNCTION odd.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
			AS $$ SELECT pg_catalog.clock_timestamp() `+hour+` $$`)
		psql(t, s.URL("postgres"), "ALTER DATABASE "+name+" SET search_path = odd, pg_catalog, public")
		f := startFar(t, url)
		f.says(t, "set the clocks")
		f.runs(t, "/hour-off")
		startFarOf(t, f.upstream, url, "--cache=none").replays(t, "/hour-off")
		if off := psql(t, url, "SELECT abs(extract(epoch FROM written - pg_catalog.clock_timestamp())) > 3000 FROM semel.records LIMIT 1"); off != "t" {
			t.Errorf("%s: the record's time is not the server's (%s)", name, off)
		}
	}
}
