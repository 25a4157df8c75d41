// Package semelhttp is the HTTP door: [Handler] gives a server's routes the
// Idempotency-Key contract, [Transport] gives a client safe retries.
//
//	guard, err := semel.NewGuard(store, semel.Options{})
//	…
//	h, err := semelhttp.NewHandler(guard, mux, semelhttp.Options{
//		Scope: semelhttp.HeaderScope("Authorization"),
//	})
//
// The contract follows draft-ietf-httpapi-idempotency-key-header-07; refusals
// are RFC 9457 problem documents. docs/spec/http.md holds the full table.
//
// A request is read whole, up to a limit, before anything runs; an answer is
// stored before its first byte leaves, unless the handler streams it. Do not
// use it for routes whose request bodies do not fit in memory.
//
// The package imports the root and the standard library only, and may be
// imported by everything above it.
package semelhttp
