// Package server starts private PostgreSQL, MariaDB, Redis and etcd servers
// from the binaries that are installed, for tests, simulations of outages and
// benchmarks: real servers that can be killed, paused and started again. It is
// not for production, and only tests of the root module and of adapter, and
// programs of cmd and bench, may import it.
//
//	var servers server.Set // in a _test.go file
//
//	func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }
//
//	func TestStore(t *testing.T) {
//		db := servers.Postgres(t) // started at the first call, shared by the package's tests
//		… db.URL("postgres") …
//	}
//
// A test that kills its server starts one of its own:
//
//	db, err := server.StartPostgres(t.TempDir(), server.PostgresOptions{})
//	…
//	defer db.Kill()
//
// # What every server has in common
//
// It keeps all its files in the directory given, which has to be empty or
// absent, and listens on a port of 127.0.0.1 that was free and stays the same
// over Kill and Start. It writes as durably as the real thing: nothing here
// turns fsync off. A Start… function returns when the server has answered as
// itself, so another server on the same port is not mistaken for it. If it does
// not come up, the error ends with the last lines of its log, which is the file
// "log" in its directory.
//
// On Linux the kernel kills the servers when the process that started them is
// gone, however it ended. Elsewhere only Set.Run, Stop and Kill end them.
//
// PostgreSQL, MariaDB and PgBouncer refuse to run as root. Started by root, they
// run as the user postgres, mysql or nobody, and those directories above theirs
// that belong to root and lie in the directory of temporary files are made
// passable (mode +x) for that user.
//
// `make servers` installs what is missing.
package server
