package chaos

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	_ "github.com/go-sql-driver/mysql" // to make a database

	"github.com/semelhq/semel/cmd/internal/storm"
	"github.com/semelhq/semel/internal/server"
)

// planned is how many payments a storm of so many kills can use up, also on a
// machine that is busy with others.
func planned(kills int) int { return rate * (60 + 15*kills) }

// kill runs a storm over two gateways that share the store, and counts.
func kill(t *testing.T, name, url string, one killable, servers, gateways int) {
	t.Helper()
	s := newScene(t, 2, planned(max(servers, gateways)), url, storm.APIOptions{})
	e, o := s.underKills(one, servers, gateways)
	c := s.account(e, fmt.Sprintf("%s: %d kills of the server (away for %v altogether), %d of gateways", name, o.servers, o.down, o.gateways))
	if o.servers != servers || o.gateways != gateways {
		t.Errorf("%d kills of the server and %d of gateways, want %d and %d", o.servers, o.gateways, servers, gateways)
	}
	if c.InDoubt == 0 || c.Paid < c.Keys/2 || c.Replays < c.Keys/2 {
		t.Errorf("the storm proves too little: %d of %d keys paid, %d in doubt, %d replays", c.Paid, c.Keys, c.InDoubt, c.Replays)
	}
	s.planted(e)
}

// TestSQLite is for the file that two gateways share; there is no server to kill.
func TestSQLite(t *testing.T) {
	t.Parallel()
	kill(t, "SQLite", "sqlite:"+filepath.Join(t.TempDir(), "semel.db"), nil, 0, sizes.gatewayKills)
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	db := startPostgres(t)
	kill(t, "PostgreSQL", db.URL("postgres"), db, sizes.postgresKills, sizes.gatewayKills)
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	db, err := server.StartMariaDB(filepath.Join(t.TempDir(), "mariadb"), server.MariaDBOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Kill() })
	admin, err := sql.Open("mysql", fmt.Sprintf("root:password@tcp(%s)/", db.Address()))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE semel"); err != nil {
		t.Fatal(err)
	}
	kill(t, "MariaDB", db.URL("semel"), db, sizes.mariadbKills, sizes.gatewayKills)
}

// TestRedis has every write in the append-only file, on disk, before it is
// answered: the defaults of package server.
func TestRedis(t *testing.T) {
	t.Parallel()
	db, err := server.StartRedis(filepath.Join(t.TempDir(), "redis"), server.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Kill() })
	kill(t, "Redis", db.URL(), db, sizes.redisKills, sizes.gatewayKills)
}

func TestEtcd(t *testing.T) {
	t.Parallel()
	db, err := server.StartEtcd(filepath.Join(t.TempDir(), "etcd"), server.EtcdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Kill() })
	kill(t, "etcd", "etcd://"+db.Address(), db, sizes.etcdKills, sizes.gatewayKills)
}
