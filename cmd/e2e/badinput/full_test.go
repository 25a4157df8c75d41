package badinput

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/semelhttp"
)

// refusing is a server that takes no writes for a while, though it answers.
type refusing struct {
	name     string
	on, off  func()
	says     string // in the gateway's log
	starting string // what a gateway says that is to start meanwhile; empty if it may
	slack    bool   // some writes may pass before all are refused
}

// refusesWrites wants new keys to be refused while the server takes no writes,
// in time and without a start, and known ones to be replayed.
func refusesWrites(t *testing.T, url string, all []refusing) {
	t.Helper()
	f := startFar(t, url)
	f.runs(t, "/before")
	for _, r := range all {
		asked := names("/asked-while-"+r.name+"-%d", 3)
		r.on()
		if r.slack {
			asked = f.exhausts(t, r.name)
		} else {
			f.refuses(t, r.name, asked...)
		}
		f.replays(t, "/before")
		if r.starting != "" {
			refused(t, "a server that is "+r.name, url, r.starting)
		}
		f.says(t, r.says)
		r.off()
		f.settles(t, r.name+" no more", asked...)
		f.runs(t, "/after-"+r.name)
	}
}

// exhausts asks for one path after the other until three were refused, and gives
// all of them. What was not refused ran once, and its answer is stored or its
// outcome is unknown.
func (f *far) exhausts(t *testing.T, name string) (asked []string) {
	t.Helper()
	done, unknown, refused := 0, 0, 0
	for _, path := range names("/asked-until-it-is-"+name+"-%d", 500) {
		if refused == 3 {
			break
		}
		bad.Add(1)
		asked = append(asked, path)
		a, err := exchange(f.address, pathRequest(path), false)
		ran := f.upstream.ran(path)
		switch {
		case err == nil && a.status == 201 && ran == 1:
			done++
		case err == nil && a.kind == semelhttp.OutcomeUnknownKind && ran == 1:
			unknown++
		case err == nil && a.kind == semelhttp.StoreUnavailable && a.after != "" && ran == 0:
			refused++
		default:
			t.Errorf("%s: %s: got %v, %v after %d runs", name, path, a, err, ran)
		}
	}
	if refused < 3 {
		t.Errorf("%s: after %d requests only %d were refused", name, len(asked), refused)
	}
	t.Logf("%s: %d ran and are stored, %d ran and their outcome is unknown, %d were refused", name, done, unknown, refused)
	return asked
}

// TestNoWrites has servers that are full or were made read-only.
func TestNoWrites(t *testing.T) {
	t.Parallel()
	var side sync.WaitGroup
	for name, test := range map[string]func(t *testing.T){
		"postgres": fullPostgres, "postgres-read-only": readOnlyPostgres, "mariadb": fullMariaDB, "redis": fullRedis, "etcd": fullEtcd,
	} {
		side.Go(func() { t.Run(name, test) })
	}
	side.Wait()
}

func readOnlyPostgres(t *testing.T) {
	s := servers.Postgres(t)
	url := postgresDatabase(t, s, "turned")
	set := func(statement string) func() {
		return func() {
			psql(t, s.URL("postgres"), statement+"; SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'turned'")
		}
	}
	refusesWrites(t, url, []refusing{{
		name: "read-only", says: "takes no writes", starting: "default_transaction_read_only",
		on:  set("ALTER DATABASE turned SET default_transaction_read_only = on"),
		off: set("ALTER DATABASE turned RESET default_transaction_read_only"),
	}})
}

// smallDisk gives a directory of so many bytes that the user of the server may
// write to. It is mounted for one process alone, and is gone with it: others
// reach it through that process' own root.
func smallDisk(t *testing.T, s *server.Postgres, size int) string {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil || os.Getuid() != 0 || exec.Command(unshare, "--mount", "true").Run() != nil {
		t.Skip("a full disk needs the right to mount one; run as root, with util-linux")
	}
	user, group := outputs(t, "", "stat", "-c", "%u", s.Dir()), outputs(t, "", "stat", "-c", "%g", s.Dir())
	place := t.TempDir()
	script := fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=0777 tmpfs "$0" && exec setpriv --reuid %s --regid %s --clear-groups sleep 600`, size, user, group)
	holder, err := program.Start(exec.Command(unshare, "--mount", "sh", "-c", script, place))
	must(t, err)
	t.Cleanup(holder.Kill)
	disk := filepath.Join("/proc", fmt.Sprint(holder.PID()), "root", place)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", holder.PID()))
		if err == nil && strings.TrimSpace(string(name)) == "sleep" {
			return disk
		}
		if time.Now().After(deadline) {
			t.Fatalf("no small disk: %s", holder.Output())
		}
	}
}

func fullPostgres(t *testing.T) {
	s, _ := ownPostgres(t)
	disk := smallDisk(t, s, 24<<20)
	user := outputs(t, "", "stat", "-c", "%u", s.Dir())
	space := filepath.Join(disk, "space")
	must(t, os.Mkdir(space, 0o700))
	outputs(t, "", "chown", user, space)
	psql(t, s.URL("postgres"), "CREATE TABLESPACE small LOCATION '"+space+"'")
	psql(t, s.URL("postgres"), "CREATE DATABASE full_up OWNER "+server.LoginRole+" TABLESPACE small")
	filler := filepath.Join(disk, "filler")
	url := s.URLAs(server.LoginRole, server.LoginPassword, "full_up")
	refusesWrites(t, url, []refusing{{
		name: "full", says: "disk is full",
		on:    func() { fill(t, filler) },
		off:   func() { must(t, os.Remove(filler)) },
		slack: true, // pages that have room take more
	}})
}

// fill writes a file until its disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	block := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(block)
	}
	if !strings.Contains(err.Error(), "no space") {
		t.Fatal(err)
	}
	must(t, file.Close())
}

func fullMariaDB(t *testing.T) {
	s, b := ownMariaDB(t)
	refusesWrites(t, b.url, []refusing{{
		name: "read-only", says: "read-only", starting: "read-only",
		on:  func() { mariadb(t, s, "", "SET GLOBAL read_only=ON") },
		off: func() { mariadb(t, s, "", "SET GLOBAL read_only=OFF") },
	}})
}

func fullRedis(t *testing.T) {
	s, b := ownRedis(t, nil)
	set := func(setting, value string) func() {
		return func() { rediscli(t, s, "CONFIG SET "+setting+" "+value) }
	}
	refusesWrites(t, b.url, []refusing{
		{name: "full", says: "memory is full", starting: "memory is full", on: set("maxmemory", "1"), off: set("maxmemory", "0")},
		{name: "without-replicas", says: "min-replicas-to-write", starting: "min-replicas-to-write", on: set("min-replicas-to-write", "1"), off: set("min-replicas-to-write", "0")},
	})
}

func fullEtcd(t *testing.T) {
	s, b := ownEtcd(t, map[string]string{"quota-backend-bytes": "2097152"})
	refusesWrites(t, b.url, []refusing{{
		// Transactions within transactions cost nothing by its count, so some may pass.
		name: "full", says: "quota", starting: "quota", slack: true,
		on: func() {
			text := strings.Repeat("f", 1<<19)
			for i := range 16 {
				etcdFill(t, s, fmt.Sprintf("/filler/%d", i), text)
			}
			// The alarm comes a moment after the first refusal.
			for deadline := time.Now().Add(patience); !etcdFill(t, s, "/filler/x", "x"); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("etcd takes more than its quota")
				}
			}
		},
		off: func() {
			revision := etcdRevision(t, s, "/filler/")
			etcdCall(t, s, "/v3/kv/compaction", map[string]any{"revision": revision, "physical": true})
			etcdCall(t, s, "/v3/maintenance/defragment", map[string]any{})
			var alarms struct{ Alarms []map[string]any }
			must(t, json.Unmarshal([]byte(etcdCall(t, s, "/v3/maintenance/alarm", map[string]any{"action": "GET"})), &alarms))
			for _, alarm := range alarms.Alarms {
				alarm["action"] = "DEACTIVATE"
				etcdCall(t, s, "/v3/maintenance/alarm", alarm)
			}
		},
	}})
}
