// Package demo is what `semel demo` runs: a small payment API that charges
// whenever it is called, a gateway in front of it as a process of its own, a
// network that loses requests and answers, and clients that ask for each
// payment many times. In the middle the gateway is killed, more than once.
//
// At the end the demo counts what happened from two records that the gateway
// has no part in: the clients' journal of every request and answer, and the
// payment API's ledger. Package storm has the clients, the API and the account; a
// run without the gateway shows that the storm does double-charge.
//
//	report, err := demo.Run(ctx, demo.Options{Binary: semel, Out: os.Stdout, Exit: true})
//
// Everything listens on the loopback interface and lies in one temporary
// directory, which is removed at the end with the processes. It is neither a
// benchmark nor a test suite: the end-to-end tests are. Package main of the
// command imports it, and nobody else.
package demo
