// Package lossy is a network that loses things on purpose: a TCP proxy on the
// loopback interface that drops requests, drops answers to requests that were
// carried out, cuts both in half and delays them. The faults are drawn from a
// seed.
//
// A retry storm is only worth something if answers are lost after the effect
// has happened. A proxy that cuts connections at random times rarely hits that
// moment; this one waits for the first byte of the answer and cuts there.
//
//	network, err := lossy.Start(lossy.Options{
//		Upstream: "127.0.0.1:8080",
//		Seed:     1,
//		Faults:   lossy.Faults{RequestLost: 0.05, AnswerLost: 0.1},
//	})
//	…
//	defer network.Close()
//	http.Post("http://"+network.Addr(), …)
//
// It knows no protocol. One exchange is what the client sends until the other
// side answers, plus that answer: true for HTTP/1.1 without pipelining and for
// other protocols that take turns. Do not use it for HTTP/2, where one
// connection carries many exchanges at once, nor as a benchmark's network.
//
// The demo and the end-to-end tests import it.
package lossy
