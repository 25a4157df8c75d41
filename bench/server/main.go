// Server is what the benches put under load: one small payment API as a bare
// net/http handler, behind semelhttp, on fiber, and behind fiber's idempotency
// middleware; and the upstream of the proxies. The bench command builds it and
// runs each kind as a process of its own; it is no example of how to write a
// service.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	kind := flag.String("kind", "bare", "`what` to serve: bare, semel, fiber, fiber-guarded or upstream")
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	store := flag.String("store", "memory:", "`URL` of the store of semel: memory:, postgres:// or redis://; over a network there is a cache in front; fiber-guarded takes redis:// as well")
	flag.Parse()
	serve := map[string]func(address string) error{
		"bare":          serveBare,
		"semel":         func(address string) error { return serveSemel(address, *store) },
		"fiber":         func(address string) error { return serveFiber(address, *store, false) },
		"fiber-guarded": func(address string) error { return serveFiber(address, *store, true) },
		"upstream":      serveUpstream,
	}[*kind]
	if serve == nil {
		fmt.Fprintf(os.Stderr, "there is no kind %q\n", *kind)
		os.Exit(2)
	}
	if err := serve(*listen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
