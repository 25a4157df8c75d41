package server

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	mariadbSuperuser = "root"
	mariadbPassword  = "password"
)

// MariaDBOptions are the options of StartMariaDB.
type MariaDBOptions struct {
	// Settings are lines for the server's section of my.cnf, name to value; an
	// empty value leaves the name alone. They go over the defaults here: MariaDB's
	// own, but 300 connections, names of clients not looked up, and a small redo log.
	Settings map[string]string
	// Environment is added to the server's, as "NAME=value": for a library that gives
	// it another clock.
	Environment []string
}

// MariaDB is a MariaDB server. It is safe for concurrent use.
type MariaDB struct {
	program
	port     int
	client   string
	settings map[string]string
	first    string // a file of statements for the next start; "" after the first
}

// StartMariaDB starts a MariaDB server of its own in dir. The superuser is "root"
// with the password "password"; LoginRole has LoginPassword and no rights.
func StartMariaDB(dir string, o MariaDBOptions) (*MariaDB, error) {
	m, binary, err := newMariaDB(dir, o)
	if err != nil {
		return nil, err
	}
	install, err := mariadbProduct().tool(binary, "mariadb-install-db")
	if err != nil {
		return nil, err
	}
	if _, err := m.run(nil, install, "--no-defaults", "--datadir="+m.data(), "--auth-root-authentication-method=normal",
		"--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M"); err != nil {
		return nil, err
	}
	m.first = filepath.Join(m.dir, "first.sql")
	if err := m.account.write(m.first, firstStatements()); err != nil {
		return nil, err
	}
	if err := onFreePorts(1, func(ports []int) error {
		m.port = ports[0]
		if err := m.account.write(m.file(), m.configuration()); err != nil {
			return err
		}
		return m.Start()
	}); err != nil {
		return nil, err
	}
	m.first = ""
	return m, nil
}

// newMariaDB finds the programs and makes the directories.
func newMariaDB(dir string, o MariaDBOptions) (*MariaDB, string, error) {
	binary, err := mariadbProduct().find()
	if err != nil {
		return nil, "", err
	}
	client, err := mariadbProduct().tool(binary, "mariadb")
	if err != nil {
		return nil, "", err
	}
	account, err := unprivileged("mysql")
	if err != nil {
		return nil, "", err
	}
	if dir, err = makePlace(dir); err != nil {
		return nil, "", err
	}
	if err := account.give(dir); err != nil {
		return nil, "", err
	}
	m := &MariaDB{client: client, settings: maps.Clone(o.Settings)}
	m.program = program{
		name: "MariaDB", version: version(binary), dir: dir, account: account, orderly: syscall.SIGTERM,
		command: func() *exec.Cmd {
			args := []string{"--defaults-file=" + m.file()}
			if m.first != "" {
				args = append(args, "--init-file="+m.first)
			}
			command := exec.Command(binary, args...)
			command.Env = append(environment(dir), o.Environment...)
			return command
		},
		ready: func(int) error { return m.answers() },
	}
	for _, name := range []string{"data", "tmp"} {
		if err := account.mkdir(filepath.Join(dir, name)); err != nil {
			return nil, "", err
		}
	}
	return m, binary, nil
}

// firstStatements makes the users; the server runs a file of one statement a line at its start.
func firstStatements() string {
	return strings.Join([]string{
		fmt.Sprintf("CREATE OR REPLACE USER '%s'@'127.0.0.1' IDENTIFIED BY '%s';", mariadbSuperuser, mariadbPassword),
		fmt.Sprintf("GRANT ALL ON *.* TO '%s'@'127.0.0.1' WITH GRANT OPTION;", mariadbSuperuser),
		fmt.Sprintf("CREATE OR REPLACE USER '%s'@'127.0.0.1' IDENTIFIED BY '%s';", LoginRole, LoginPassword),
		"",
	}, "\n")
}

func (m *MariaDB) data() string { return filepath.Join(m.dir, "data") }
func (m *MariaDB) file() string { return filepath.Join(m.dir, "my.cnf") }

func (m *MariaDB) configuration() string {
	settings := map[string]string{
		"datadir":      m.data(),
		"tmpdir":       filepath.Join(m.dir, "tmp"),
		"bind-address": "127.0.0.1",
		"port":         strconv.Itoa(m.port),
		// Relative to the data directory, where the server is when it binds: paths of
		// sockets have a limit that temporary directories reach.
		"socket":               "mariadb.sock",
		"pid-file":             filepath.Join(m.dir, "pid"),
		"skip-name-resolve":    "",
		"max_connections":      "300",
		"innodb_log_file_size": "16M",
	}
	maps.Copy(settings, m.settings)
	var text strings.Builder
	text.WriteString("[mariadbd]\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if value := settings[name]; value == "" {
			fmt.Fprintln(&text, name)
		} else {
			fmt.Fprintf(&text, "%s = %s\n", name, value)
		}
	}
	return text.String()
}

// answers is one attempt to see the server ready: its greeting, which is cheap
// to look for, and then a query that tells whose server it is.
func (m *MariaDB) answers() error {
	conn, err := net.DialTimeout("tcp", address(m.port), time.Second)
	if err != nil {
		return err
	}
	if err := errors.Join(conn.SetDeadline(time.Now().Add(5*time.Second)), readByte(conn), conn.Close()); err != nil {
		return err
	}
	data, err := m.query("SELECT @@datadir")
	if err == nil && filepath.Clean(data) != m.data() {
		err = fmt.Errorf("another server has the port: its data is in %s", data)
	}
	return err
}

func readByte(conn net.Conn) error {
	_, err := conn.Read(make([]byte, 1))
	return err
}

// URL is the address of a database, or of none if that is empty, for the superuser.
func (m *MariaDB) URL(database string) string {
	return m.URLAs(mariadbSuperuser, mariadbPassword, database)
}

// URLAs is the address of a database for another user.
func (m *MariaDB) URLAs(user, password, database string) string {
	u := url.URL{Scheme: "mysql", User: url.UserPassword(user, password), Host: address(m.port), Path: "/" + database}
	return u.String()
}

// Address is host and port.
func (m *MariaDB) Address() string { return address(m.port) }

// query runs a statement as superuser, and returns its result, the columns of a row divided by tabs.
func (m *MariaDB) query(statement string) (string, error) {
	return m.run([]string{"MYSQL_PWD=" + mariadbPassword}, m.client, "--no-defaults", "--protocol=TCP", "--host=127.0.0.1",
		"--port="+strconv.Itoa(m.port), "--user="+mariadbSuperuser, "--batch", "--skip-column-names", "--execute="+statement)
}

// CreateDatabase makes an empty database.
func (m *MariaDB) CreateDatabase(name string) error {
	_, err := m.query("CREATE DATABASE `" + strings.ReplaceAll(name, "`", "``") + "`")
	return err
}
