// Package linear checks that stores are linearizable: it lets clients loose on
// one, writes down what each asked and was told and when, and has porcupine
// search for an order of the operations, one after the other, that explains
// every answer. A history without such an order is an error of the store.
//
//	go test ./e2e/linear -run Stores/postgres -histories 300 -seed 7
//
// A new store is one line in TestStores. Histories that have no such order are
// kept in testdata and judged again. The package is a test and nothing
// imports it. storetest says what a store does when asked one thing at a time;
// begin there.
package linear

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/storetest"
)

var (
	histories  = flag.Int("histories", 0, "histories to record of each store; 0 means a few, the fewer the slower the store is")
	clients    = flag.Int("clients", 16, "clients of a history")
	operations = flag.Int("operations", 200, "operations of each client")
	keys       = flag.Int("keys", 4, "keys of a history; 16 times as many where finished records are final")
	keep       = flag.Bool("keep", false, "write illegal histories of the broken stores into testdata")
	seed       = flag.Uint64("seed", 1, "begins the clients' choices; their interleaving is the scheduler's")
)

// losing gives stores that lose every twentieth request and every twentieth
// answer of a swap.
func losing(open func(t *testing.T, at *place) semel.Store) func(t *testing.T, at *place) semel.Store {
	fate := func(c storetest.Call) int {
		if !c.Writes() {
			return -1
		}
		// Not every tenth call by count: clients that fall into step with the count
		// would lose every answer.
		return rand.New(rand.NewPCG(1, uint64(c.Number))).IntN(20)
	}
	return func(t *testing.T, at *place) semel.Store {
		return storetest.LoseAnswers(
			storetest.LoseRequests(open(t, at), func(c storetest.Call) bool { return fate(c) == 0 }),
			func(c storetest.Call) bool { return fate(c) == 1 },
		)
	}
}

// linearizable checks histories of stores, each of a store that holds nothing.
func linearizable(t *testing.T, histories int, sub subject) {
	t.Helper()
	n := size{*clients, *operations, *keys}
	if sub.final {
		n.keys *= 16
	}
	count := map[porcupine.CheckResult]int{}
	told := map[string]int{}
	for i := range histories {
		from := *seed + uint64(i)
		t.Run(fmt.Sprint("seed ", from), func(t *testing.T) {
			at := newPlace(t)
			var stores []semel.Store
			for range max(1, sub.processes) {
				stores = append(stores, sub.open(t, at))
			}
			history := record(t, stores, n, sub.final, from)
			result := judge(t, "history", history)
			count[result]++
			tally(told, history)
			if result != porcupine.Ok {
				t.Errorf("it is %s; -seed %d -histories 1 makes the same choices", result, from)
			}
		})
	}
	t.Logf("%d histories of %d clients with %d operations each on %d keys: %d illegal, %d undecided; told: %v",
		histories, n.clients, n.operations, n.keys, count[porcupine.Illegal], count[porcupine.Unknown], told)
	if t.Failed() {
		return
	}
	for _, what := range []string{"got", "wrote", "refused"} {
		if told[what] < n.clients*histories {
			t.Errorf("%d operations %s: the histories hardly test that", told[what], what)
		}
	}
}

// tally counts what the clients were told.
func tally(told map[string]int, history []porcupine.Operation) {
	for _, op := range history {
		switch out := op.Output.(output); {
		case !op.Input.(input).Swap:
			told["got"]++
		case out.Unknown:
			told["unknown"]++
		case out.Wrote:
			told["wrote"]++
		default:
			told["refused"]++
		}
	}
}

// TestModel judges histories of two clients and one key by hand. Each row is one
// operation: client, call, return, what it asked, what it was told.
func TestModel(t *testing.T) {
	at := func(n uint64) semel.Version { return semel.Version{Epoch: 1, Counter: n} }
	get := func(nonce, version uint64) (input, output) {
		if nonce == 0 {
			return input{}, output{}
		}
		return input{}, output{Held: held{nonce, at(version)}}
	}
	swap := func(old semel.Version, nonce uint64, out output) (input, output) {
		return input{Swap: true, Old: old, Nonce: nonce}, out
	}
	wrote := func(nonce, version uint64) output { return output{Wrote: true, Held: held{nonce, at(version)}} }
	told := func(nonce, version uint64) output { return output{Held: held{nonce, at(version)}} }
	insert := func(nonce, version uint64) (input, output) {
		return swap(semel.Version{}, nonce, wrote(nonce, version))
	}
	op := func(client int, call, back int64) func(input, output) porcupine.Operation {
		return func(in input, out output) porcupine.Operation {
			return porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: back}
		}
	}
	lost := output{Unknown: true}
	for name, c := range map[string]struct {
		want    porcupine.CheckResult
		history []porcupine.Operation
	}{
		"insert, read":                   {porcupine.Ok, []porcupine.Operation{op(0, 1, 2)(insert(1, 5)), op(1, 3, 4)(get(1, 5))}},
		"insert, nothing read":           {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(insert(1, 5)), op(1, 3, 4)(get(0, 0))}},
		"nothing read meanwhile":         {porcupine.Ok, []porcupine.Operation{op(0, 1, 4)(insert(1, 5)), op(1, 2, 3)(get(0, 0))}},
		"two inserts":                    {porcupine.Illegal, []porcupine.Operation{op(0, 1, 4)(insert(1, 5)), op(1, 2, 3)(insert(2, 6))}},
		"an insert refused":              {porcupine.Ok, []porcupine.Operation{op(0, 1, 4)(insert(1, 5)), op(1, 2, 3)(swap(at(0), 2, told(1, 5)))}},
		"refused by nothing":             {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(swap(semel.Version{}, 2, output{}))}},
		"the same version twice":         {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(insert(1, 5)), op(1, 3, 4)(swap(at(5), 2, wrote(2, 5)))}},
		"an older version":               {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(insert(1, 5)), op(1, 3, 4)(swap(at(5), 2, wrote(2, 4)))}},
		"over what was not held":         {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(insert(1, 5)), op(1, 3, 4)(swap(at(4), 2, wrote(2, 6)))}},
		"lost and written":               {porcupine.Ok, []porcupine.Operation{op(0, 1, 2)(swap(semel.Version{}, 1, lost)), op(1, 3, 4)(get(1, 5))}},
		"lost and not written":           {porcupine.Ok, []porcupine.Operation{op(0, 1, 2)(swap(semel.Version{}, 1, lost)), op(1, 3, 4)(get(0, 0))}},
		"lost, seen, gone":               {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(swap(semel.Version{}, 1, lost)), op(1, 3, 4)(get(1, 5)), op(1, 5, 6)(get(0, 0))}},
		"lost, seen at two versions":     {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(swap(semel.Version{}, 1, lost)), op(1, 3, 4)(get(1, 5)), op(1, 5, 6)(get(1, 6))}},
		"lost, then an insert over it":   {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(swap(semel.Version{}, 1, lost)), op(1, 1, 4)(insert(2, 6)), op(1, 5, 6)(get(1, 5))}},
		"lost where it could not be had": {porcupine.Illegal, []porcupine.Operation{op(0, 1, 2)(insert(1, 5)), op(1, 3, 4)(swap(at(4), 2, lost)), op(1, 5, 6)(get(2, 6))}},
	} {
		if got := porcupine.CheckOperationsTimeout(model(), c.history, checkTime); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// TestBroken: the histories of a broken store are found to be illegal.
func TestBroken(t *testing.T) {
	for name, flaw := range flaws() {
		t.Run(name, func(t *testing.T) {
			caught := 0
			for i := range 5 {
				history := record(t, []semel.Store{newBroken(flaw, uint64(i))}, size{16, 50, 2}, false, uint64(i))
				if judge(t, "broken", history) == porcupine.Illegal {
					caught++
				}
			}
			if caught == 0 {
				t.Error("0 of 5 histories are illegal")
			}
			t.Logf("%d of 5 histories are illegal", caught)
		})
	}
}
