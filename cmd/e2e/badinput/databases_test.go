package badinput

import (
	"net"
	"testing"

	"github.com/semelhq/semel/internal/server"
)

// psql runs statements and gives what they return.
func psql(t *testing.T, url, statements string) string {
	t.Helper()
	return outputs(t, statements, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url)
}

// mariadb runs statements as the superuser and gives what they return.
func mariadb(t *testing.T, s *server.MariaDB, database, statements string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Address())
	must(t, err)
	args := []string{"--no-defaults", "--protocol=TCP", "--host=" + host, "--port=" + port, "--user=root", "--password=password", "--batch", "--skip-column-names"}
	if database != "" {
		args = append(args, database)
	}
	return outputs(t, statements, "mariadb", args...)
}

// rediscli runs a command, words divided by blanks.
func rediscli(t *testing.T, s *server.Redis, command string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Address())
	must(t, err)
	return outputs(t, "AUTH "+server.LoginPassword+"\n"+command+"\n", "redis-cli", "-h", host, "-p", port)
}

// postgresDatabase makes a database of LoginRole's.
func postgresDatabase(t *testing.T, s *server.Postgres, name string) (url string) {
	t.Helper()
	psql(t, s.URL("postgres"), "CREATE DATABASE "+name+" OWNER "+server.LoginRole)
	return s.URLAs(server.LoginRole, server.LoginPassword, name)
}

// mariadbDatabase makes a database that LoginRole may use.
func mariadbDatabase(t *testing.T, s *server.MariaDB, name string) (url string) {
	t.Helper()
	mariadb(t, s, "", "CREATE DATABASE "+name+"; GRANT ALL ON "+name+".* TO '"+server.LoginRole+"'@'127.0.0.1'")
	return s.URLAs(server.LoginRole, server.LoginPassword, name)
}
