// Package storm is a retry storm and its account: clients that ask for each
// payment many times, a payment API that charges whenever it is called, and what
// came of it. The demo and the end-to-end tests put their gateways, networks and
// outages in between.
//
//	ledger, err := storm.OpenLedger(path)
//	api, err := storm.StartAPI(ledger, storm.APIOptions{Seed: seed})
//	client := storm.NewClient([]string{gateway}, &storm.Journal{})
//	…
//	counts := storm.Account(storm.Evidence{Journal: client.Journal.All(), …})
//
// [Account] counts from logs that know nothing of each other: the clients'
// journal of every request and answer, the API's ledger, a file with one line per
// charge, and, where somebody looked, what Semel's store and its journal hold. It
// is a pure function; its tests show that it finds what it looks for.
//
// It is neither a benchmark nor a simulation: package sim is that. Packages of
// cmd import it.
package storm
