// Package otel gives the numbers of guards, sweepers and stores to OpenTelemetry's
// metrics.
//
//	numbers, err := otel.New(provider.Meter("semel"))
//	…
//	guard, err := semel.NewGuard(store, semel.Options{Observe: numbers.Guard})
//	sweeper, err := lifecycle.New(guard, lifecycle.Options{Observe: numbers.Sweeper})
//	err = otel.Growth(provider.Meter("semel"), sweeper.Growth, otel.GrowthOptions{})
//
// docs/spec/metrics.md names them all. What they tell is bounded whatever clients
// send: keys are nowhere, and scopes by a digest, the largest ones only.
//
// Do not count on them to decide anything: an event may be lost with its process.
// The journal has what happened. Programs import it; it needs OpenTelemetry's API,
// and the program brings the SDK.
package otel
