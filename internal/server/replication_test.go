//go:build unix

package server

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func startPostgres(t *testing.T, o PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(filepath.Join(t.TempDir(), "server"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, p.Kill) })
	return p
}

func mustAnswer(t *testing.T, p *Postgres, statement, want string) {
	t.Helper()
	if got, err := p.psql(statement); err != nil || got != want {
		t.Fatalf("%s: %q, %v; want %q", statement, got, err, want)
	}
}

// A standby follows; a sync one holds up commits while it is away; promoted, it
// has what was committed, and takes writes.
func TestStandby(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(map[bool]string{false: "async", true: "sync"}[sync], func(t *testing.T) {
			p := startPostgres(t, PostgresOptions{})
			s, err := p.Standby(filepath.Join(t.TempDir(), "standby"), sync)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { do(t, s.Kill) })
			mustAnswer(t, p, "CREATE TABLE t (v text); INSERT INTO t VALUES ('kept')", "")
			if _, err := s.psql("CREATE TABLE u ()"); err == nil || !strings.Contains(err.Error(), "read-only") {
				t.Errorf("a write to the standby: %v", err)
			}
			do(t, s.Stop)
			committed := make(chan error, 1)
			go func() { _, err := p.psql("INSERT INTO t VALUES ('late')"); committed <- err }()
			select {
			case err := <-committed:
				if sync || err != nil {
					t.Fatalf("a commit without the standby: %v", err)
				}
			case <-time.After(500 * time.Millisecond):
				if !sync {
					t.Error("a commit waits for a standby that is not sync")
				}
			}
			do(t, s.Start)
			if sync {
				do(t, func() error { return <-committed })
			}
			do(t, func() error { return s.waitFor("2", "SELECT count(*) FROM t") }, p.Kill, s.Promote)
			mustAnswer(t, s, "SELECT string_agg(v, ',' ORDER BY v) FROM t", "kept,late")
			mustAnswer(t, s, "INSERT INTO t VALUES ('new')", "")
			if err := s.Promote(); err == nil {
				t.Error("a primary was promoted")
			}
		})
	}
}

// Through PgBouncer, transactions of one client may run on several connections.
func TestBouncer(t *testing.T) {
	p := startPostgres(t, PostgresOptions{})
	b, err := p.Bouncer(filepath.Join(t.TempDir(), "bouncer"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, b.Kill) })
	ask := func(url, statement, want string) {
		t.Helper()
		if got, err := p.psqlAt(url, statement); err != nil || got != want {
			t.Errorf("%s: %s: %q, %v; want %q", url, statement, got, err, want)
		}
	}
	ask(b.URL("postgres"), "SELECT current_user", postgresSuperuser)
	ask(b.URLAs(LoginRole, LoginPassword, "postgres"), "SELECT current_user", LoginRole)
	if got, err := p.psqlAt(b.URL("pgbouncer"), "SHOW CONFIG"); err != nil || !strings.Contains(got, "pool_mode|transaction") {
		t.Errorf("its configuration: %v, %s", err, got)
	}
	do(t, b.Kill)
	if _, err := p.psqlAt(b.URL("postgres"), "SELECT 1"); err == nil {
		t.Error("it answers after kill")
	}
	do(t, b.Start)
	ask(b.URL("postgres"), "SELECT 1", "1")
}

// Passwords are looked at, settings arrive, and the login role has no rights.
func TestRolesAndSettings(t *testing.T) {
	p := startPostgres(t, PostgresOptions{Settings: map[string]string{"application_name": "it's ours"}})
	mustAnswer(t, p, "SHOW application_name", "psql") // the client's own goes over it
	mustAnswer(t, p, "SELECT reset_val FROM pg_settings WHERE name = 'fsync'", "on")
	if got, err := p.psqlAt(p.URLAs(LoginRole, LoginPassword, "postgres"), "SELECT current_user"); err != nil || got != LoginRole {
		t.Errorf("with its password: %q, %v", got, err)
	}
	if _, err := p.psqlAt(p.URLAs(LoginRole, "wrong", "postgres"), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("with a wrong password: %v", err)
	}
	if _, err := p.psqlAt(p.URLAs(LoginRole, LoginPassword, "postgres"), "CREATE TABLE t ()"); err == nil {
		t.Error("the login role makes tables")
	}

	m, err := StartMariaDB(filepath.Join(t.TempDir(), "server"), MariaDBOptions{Settings: map[string]string{"innodb_lock_wait_timeout": "7"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, m.Kill) })
	if got, err := m.query("SELECT @@innodb_lock_wait_timeout, @@innodb_flush_log_at_trx_commit"); err != nil || got != "7\t1" {
		t.Errorf("settings: %q, %v", got, err)
	}
	if got, err := m.query("SELECT count(*) FROM mysql.user WHERE user = ''"); err != nil || got != "0" {
		t.Errorf("users without a name: %q, %v", got, err)
	}
}

// A replica has what was written, and the password of its master.
func TestReplica(t *testing.T) {
	r, err := StartRedis(filepath.Join(t.TempDir(), "server"), RedisOptions{Settings: map[string]string{"requirepass": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, r.Kill) })
	if !strings.HasPrefix(r.URL(), "redis://:secret@127.0.0.1:") {
		t.Errorf("its URL is %s", r.URL())
	}
	do(t, func() error { _, err := r.call("SET", "k", "v"); return err })
	replica, err := r.Replica(filepath.Join(t.TempDir(), "replica"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, replica.Kill) })
	if got, err := replica.call("GET", "k"); err != nil || got != "v" {
		t.Errorf("the replica has %q, %v", got, err)
	}
	if _, err := replica.call("SET", "k", "w"); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("a write to the replica: %v", err)
	}
}

// The sentinels promote the replica once the master is gone.
func TestSentinel(t *testing.T) {
	began := time.Now()
	s, err := StartSentinel(t.TempDir(), RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, s.Kill) })
	t.Logf("ready in %v", time.Since(began).Round(time.Millisecond))
	if now, err := s.Promoted(); err != nil || now != s.Master {
		t.Fatalf("the master at the start: %v, %v", now, err)
	}
	do(t, func() error { _, err := s.Master.call("SET", "k", "v"); return err }, s.Master.Kill)
	began = time.Now()
	do(t, func() error {
		return until("failover", func() error { return s.Replica.expect("INFO", "role", "master") })
	})
	t.Logf("failover in %v", time.Since(began).Round(time.Millisecond))
	do(t, func() error {
		return until("the sentinels' answer", func() error {
			now, err := s.Promoted()
			if err == nil && now != s.Replica {
				err = errors.New("still the old one")
			}
			return err
		})
	})
	if _, err := s.Replica.call("SET", "k", "w"); err != nil {
		t.Errorf("a write to the promoted one: %v", err)
	}
	t.Logf("told after %v", time.Since(began).Round(time.Millisecond))
}

// A cluster is complete, says where a key is, and comes back with its data.
func TestCluster(t *testing.T) {
	began := time.Now()
	c, err := StartRedisCluster(t.TempDir(), RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { do(t, c.Kill) })
	t.Logf("ready in %v", time.Since(began).Round(time.Millisecond))
	owners := func() (owners int, got string) {
		for _, node := range c.Nodes {
			value, err := node.call("GET", "k")
			if err == nil {
				owners, got = owners+1, value
			} else if !strings.Contains(err.Error(), "MOVED") {
				t.Errorf("GET at %s: %v", node.Address(), err)
			}
		}
		return owners, got
	}
	for _, node := range c.Nodes {
		if _, err := node.call("SET", "k", "v"); err != nil && !strings.Contains(err.Error(), "MOVED") {
			t.Errorf("SET at %s: %v", node.Address(), err)
		}
	}
	if n, got := owners(); n != 1 || got != "v" {
		t.Errorf("%d nodes have the key, with %q", n, got)
	}
	do(t, c.Kill, c.Start)
	if n, got := owners(); n != 1 || got != "v" {
		t.Errorf("after a kill, %d nodes have the key, with %q", n, got)
	}
}
