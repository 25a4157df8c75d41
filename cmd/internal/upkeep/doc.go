// Package upkeep is what an operator does about the size of a store: look at its
// growth, and sweep it once. The commands import it; gateways have lifecycle.Sweeper
// for the same.
package upkeep
