// Package arch holds Semel's architecture rules as a test: who may import whom, how large a file, a function and a package
// may be, which names and which package variables are not allowed, and what must be documented. It has no exemption list.
//
// Its test runs with `go test ./internal/arch` and with everything else in `make test`. It reads source text with go/parser
// and needs neither the modules' dependencies nor a build. Nothing imports it. Do not use it to check style that gofumpt or
// staticcheck can check.
package arch
