// Package gateway puts the Idempotency-Key contract in front of an HTTP
// service that knows nothing of it: a reverse proxy around package semelhttp.
//
//	g, err := gateway.New(gateway.Config{
//		Upstream: upstream,
//		Guard:    guard,
//		Routes: []gateway.Route{{
//			Match:   "*",
//			Options: semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")},
//		}},
//	})
//	…
//	err = g.Serve(ctx, listener, nil)
//
// It sends each request that may have an effect at most once. If it fails
// before a byte has left, nothing was started and the key stays free (502); if
// it fails later, nobody knows, and the client is told so (409).
//
// Do not use it where the service's own code can be changed and has a database
// of its own: only there can an effect and its record commit together. A gateway
// keeps the answers of guarded requests in memory until they are stored.
//
// The package composes the root, level 1 and the standard library. Programs
// import it; libraries do not.
package gateway
