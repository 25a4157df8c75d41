package server

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The superuser of every PostgreSQL and MariaDB server, and a role that may log
// in with its password and has no rights beyond that.
const (
	postgresSuperuser = "postgres"
	LoginRole         = "login"
	LoginPassword     = "correct-horse"
)

// PostgresOptions are the options of StartPostgres.
type PostgresOptions struct {
	// Settings are lines for postgresql.conf, name to value without quotes, over
	// the defaults here: PostgreSQL's own, but 200 connections, and standbys that
	// look for their primary every 200 ms.
	Settings map[string]string
	// Environment is added to the server's, as "NAME=value": for a library that gives
	// it another clock.
	Environment []string
}

// Postgres is a PostgreSQL server. It is safe for concurrent use.
type Postgres struct {
	program
	port     int
	bin      string // the folder of its programs
	settings map[string]string

	environment []string
	standbys    struct {
		sync.Mutex
		count int
		sync  []string // names of those that a commit waits for
	}
}

// StartPostgres starts a PostgreSQL server of its own in dir, with the databases
// that initdb makes. Everybody may log in without a password, as "postgres" with
// all rights; LoginRole needs its password.
func StartPostgres(dir string, o PostgresOptions) (*Postgres, error) {
	p, err := newPostgres(dir, o.Settings)
	if err != nil {
		return nil, err
	}
	p.environment = o.Environment
	if _, err := p.run(nil, p.tool("initdb"), "--pgdata="+p.data(), "--username="+postgresSuperuser,
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	access := "host all " + LoginRole + " 127.0.0.1/32 scram-sha-256\n" +
		"host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
	if err := p.account.write(filepath.Join(p.data(), "pg_hba.conf"), access); err != nil {
		return nil, err
	}
	if err := p.startFirst(); err != nil {
		return nil, err
	}
	if _, err := p.psql("CREATE ROLE " + LoginRole + " LOGIN PASSWORD '" + LoginPassword + "'"); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

// newPostgres finds the programs and makes the directory.
func newPostgres(dir string, settings map[string]string) (*Postgres, error) {
	binary, err := postgresProduct().find()
	if err != nil {
		return nil, err
	}
	if binary, err = filepath.EvalSymlinks(binary); err != nil { // to the folder of the others
		return nil, err
	}
	for _, tool := range []string{"initdb", "psql", "pg_basebackup"} {
		if _, err := postgresProduct().tool(binary, tool); err != nil {
			return nil, err
		}
	}
	account, err := unprivileged("postgres")
	if err != nil {
		return nil, err
	}
	if dir, err = makePlace(dir); err != nil {
		return nil, err
	}
	if err := account.give(dir); err != nil {
		return nil, err
	}
	p := &Postgres{bin: filepath.Dir(binary), settings: maps.Clone(settings)}
	p.program = program{
		name: "PostgreSQL", version: version(binary), dir: dir, account: account, orderly: syscall.SIGINT,
		command: func() *exec.Cmd {
			command := exec.Command(binary, "-D", p.data())
			command.Env = append(environment(dir), p.environment...)
			return command
		},
		ready: p.answers, atEnd: p.tidy,
	}
	return p, nil
}

func (p *Postgres) data() string            { return filepath.Join(p.dir, "data") }
func (p *Postgres) tool(name string) string { return filepath.Join(p.bin, name) }

// startFirst writes the configuration and starts, on a port that is free.
func (p *Postgres) startFirst() error {
	main := filepath.Join(p.data(), "postgresql.conf")
	text, err := os.ReadFile(main)
	if err != nil {
		return err
	}
	const include = "\ninclude = 'semel.conf'\n"
	if !strings.Contains(string(text), include) { // a standby has it from its primary
		if err := p.account.write(main, string(text)+include); err != nil {
			return err
		}
	}
	return onFreePorts(1, func(ports []int) error {
		p.port = ports[0]
		if err := p.account.write(filepath.Join(p.data(), "semel.conf"), p.configuration()); err != nil {
			return err
		}
		return p.Start()
	})
}

// configuration is the text of semel.conf.
func (p *Postgres) configuration() string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(p.port),
		"unix_socket_directories": "", // their paths have a limit that temporary directories reach
		"max_connections":         "200",
		// Files in the data directory, where a killed server's are found and removed.
		"dynamic_shared_memory_type":  "mmap",
		"wal_retrieve_retry_interval": "200ms",
		"wal_keep_size":               "256MB", // for a standby that comes back late
	}
	maps.Copy(settings, p.settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return text.String()
}

// answers is one attempt to see the server ready. Its pid file is cheap to read
// and tells whose it is; then a query proves what the file says.
func (p *Postgres) answers(pid int) error {
	text, err := os.ReadFile(p.pidFile())
	if err != nil {
		return err
	}
	const pidLine, portLine, statusLine = 0, 3, 7
	lines := strings.Split(string(text), "\n")
	if len(lines) <= statusLine || lines[pidLine] != strconv.Itoa(pid) || lines[portLine] != strconv.Itoa(p.port) {
		return errors.New("its pid file is not complete")
	}
	if status := strings.TrimSpace(lines[statusLine]); status != "ready" {
		return fmt.Errorf("its pid file says %q", status)
	}
	_, err = p.psql("SELECT 1")
	return err
}

func (p *Postgres) pidFile() string { return filepath.Join(p.data(), "postmaster.pid") }

// tidy removes what a killed server leaves: its pid file, which would stop the
// next start if another process had its number by then, and the System V shared
// memory that the file names.
func (p *Postgres) tidy() {
	text, err := os.ReadFile(p.pidFile())
	if err != nil {
		return // it ended in good order
	}
	const memoryLine = 6 // key and id
	if lines := strings.Split(string(text), "\n"); len(lines) > memoryLine {
		if f := strings.Fields(lines[memoryLine]); len(f) == 2 {
			// Without ipcrm, 56 bytes stay until the next start on this data.
			_, _ = p.run(nil, "ipcrm", "-m", f[1])
		}
	}
	if err := os.Remove(p.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // the next start says what is wrong
	}
}

// URL is the address of a database, "postgres" being one that there always is,
// for the superuser.
func (p *Postgres) URL(database string) string { return postgresURL(p.port, database, nil) }

// URLAs is the address of a database for another role. LoginRole needs
// LoginPassword; the server looks at no other's.
func (p *Postgres) URLAs(role, password, database string) string {
	return postgresURL(p.port, database, url.UserPassword(role, password))
}

// postgresURL is an address; without a user, for the superuser.
func postgresURL(port int, database string, user *url.Userinfo) string {
	if user == nil {
		user = url.User(postgresSuperuser)
	}
	u := url.URL{Scheme: "postgres", User: user, Host: address(port), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Address is host and port.
func (p *Postgres) Address() string { return address(p.port) }

// psql runs one statement as superuser in the database postgres, and returns its
// result, the columns of a row divided by |.
func (p *Postgres) psql(statement string) (string, error) {
	return p.psqlAt(p.URL("postgres"), statement)
}

func (p *Postgres) psqlAt(url, statement string) (string, error) {
	return p.run([]string{"PGCONNECT_TIMEOUT=10"}, p.tool("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement)
}
