// Package stores opens stores and caches by their URLs, for the commands: one
// table says what each scheme is, what it needs and how it is opened.
//
// It knows nothing of what a store does; what a store survives it asks the store
// itself (semel.Describer).
package stores
