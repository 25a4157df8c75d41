// Caddy is the peer of the gateway's benches: Caddy as its module has it, with
// the HTTP server and reverse_proxy and without the other standard modules,
// which take minutes to compile and are not on a request's way. It is built and
// run by the bench command, and is no Caddy for anything else.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"              // the server
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy" // the handler
)

func main() { caddycmd.Main() }
