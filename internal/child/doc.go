// Package child runs a command as a process that is killed as kill -9 does,
// and that does not outlive the process that started it, as far as the system
// has a way to say so.
//
//	p, err := child.Start(exec.Command("semel", "gateway", …))
//	…
//	defer p.Kill()
//
// The demo, the end-to-end tests and the servers of tests import it. For a
// process that is to end in good order, use os/exec and a signal.
package child
