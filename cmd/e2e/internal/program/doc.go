// Package program builds the semel command and runs it as a process of its own,
// for tests that are about the real thing: what is on its standard error, its
// exit code, and what is left of it after kill -9.
//
//	semel, err := program.Build(dir)
//	…
//	gateway, err := program.Start(exec.Command(semel, "gateway", "--upstream", url, "--listen", address))
//	…
//	defer gateway.Kill()
//
// It ends the processes that it started, by their id, and no others. The
// end-to-end tests import it. Tests of one verb's logic call its package instead:
// a process costs a hundred times as much.
package program
