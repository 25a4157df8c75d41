// Package arch holds Semel's architecture rules as a test: who may import whom, how large a file, a function and a package
// may be, which names and which package variables are not allowed, and what must be documented. It has no exemption list:
// a rule that is wrong is changed here, for everybody, together with a page in docs/design.
//
// It reads source text with go/parser, so it needs neither the dependencies of the modules nor a build, and takes a fraction
// of a second. Its test runs with everything else in `make test`, or alone:
//
//	go test ./internal/arch
//
// Nothing imports this package. Leave to gofumpt and staticcheck what they can check.
package arch
