package server

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Bouncer is PgBouncer in front of a PostgreSQL server, in transaction mode:
// each transaction of a client may run on another connection. It is safe for
// concurrent use. Kill, Stop and Pause do not touch the server behind it.
type Bouncer struct {
	program
	behind *Postgres
	port   int
}

// Bouncer starts a PgBouncer in front of the server, with at most 20 connections
// for each database and user.
func (p *Postgres) Bouncer(dir string) (*Bouncer, error) {
	binary, err := bouncerProduct().find()
	if err != nil {
		return nil, err
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
	b := &Bouncer{behind: p}
	b.program = program{
		name: "PgBouncer", version: version(binary), dir: dir, account: account, orderly: syscall.SIGINT,
		command: func() *exec.Cmd { return exec.Command(binary, b.file()) },
		ready:   func(int) error { return b.answers() },
	}
	users := fmt.Sprintf("%q \"\"\n%q %q\n", postgresSuperuser, LoginRole, LoginPassword)
	if err := account.write(filepath.Join(dir, "users"), users); err != nil {
		return nil, err
	}
	if err := onFreePorts(1, func(ports []int) error {
		b.port = ports[0]
		if err := account.write(b.file(), b.configuration()); err != nil {
			return err
		}
		return b.Start()
	}); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Bouncer) file() string { return filepath.Join(b.dir, "pgbouncer.ini") }

func (b *Bouncer) configuration() string {
	return strings.Join([]string{
		"[databases]",
		fmt.Sprintf("* = host=127.0.0.1 port=%d", b.behind.port),
		"[pgbouncer]",
		"listen_addr = 127.0.0.1",
		fmt.Sprintf("listen_port = %d", b.port),
		"unix_socket_dir =",
		"pool_mode = transaction",
		"default_pool_size = 20",
		"max_client_conn = 1000",
		"auth_type = trust",
		"auth_file = " + filepath.Join(b.dir, "users"),
		"admin_users = " + postgresSuperuser,
		"ignore_startup_parameters = extra_float_digits",
		"server_login_retry = 0.2", // seconds until it tries a server that was gone again
		"",
	}, "\n")
}

// answers asks it which file it was configured from: another's PgBouncer would name another.
func (b *Bouncer) answers() error {
	config, err := b.behind.psqlAt(b.URL("pgbouncer"), "SHOW CONFIG")
	if err == nil && !strings.Contains(config, b.dir) {
		err = errors.New("another PgBouncer has the port")
	}
	return err
}

// URL is the address of a database behind it, for the superuser.
func (b *Bouncer) URL(database string) string { return postgresURL(b.port, database, nil) }

// URLAs is the address of a database behind it for another role. PgBouncer
// checks no password and knows no role but the superuser and LoginRole.
func (b *Bouncer) URLAs(role, password, database string) string {
	return postgresURL(b.port, database, url.UserPassword(role, password))
}
